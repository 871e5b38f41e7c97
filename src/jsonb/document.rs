//! A JSON value as flat arrays that are reused from one resource to the next, so that a load allocates nothing per line.
//! It is made by `parse` (from text) and `decode` (from jsonb), changed in place by `fhir`, written by `text` and `encode`.

/// A run of elements or members in the document's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// The places of the children in their array.
    pub fn indices(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// A string in the document's buffer, unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Str {
    start: u32,
    len: u32,
}

/// A JSON value; 12 bytes, copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    /// The literal: decimals keep their zeros.
    Number(Str),
    String(Str),
    /// Elements, in `Document::element`.
    Array(Span),
    /// Members, in `Document::member`.
    Object(Span),
}

/// A key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub key: Str,
    pub value: Value,
}

/// The arrays behind the values of one JSON text.
#[derive(Debug, Default)]
pub struct Document {
    /// What was read, whole, so that most strings need no copy of their own; behind it, what was unescaped or made since.
    buffer: Vec<u8>,
    elements: Vec<Value>,
    members: Vec<Member>,
    /// Children of containers that are still open; what a finished container takes with it.
    open_elements: Vec<Value>,
    open_members: Vec<Member>,
    /// Bytes that the four arrays may take.
    most_nodes: usize,
    /// Set when they would have taken more, or memory ran out. What was pushed since is lost: the document is of no use.
    full: bool,
}

/// Bytes of text that a document may hold. jsonb ends at 256 MB; what is unescaped or written out may come to as much again.
const MAX_TEXT: usize = 600 << 20;
/// Bytes beyond what is read that are made room for.
const ROOM: usize = 4096;
/// Bytes that elements and members may take in any case, and as many more as times the text.
const MIN_NODES: usize = 32 << 20;
const NODES_BY_TEXT: usize = 3;

impl Document {
    /// An empty document.
    pub fn new() -> Document {
        Document::default()
    }

    /// Begins anew with what is to be read, which `slice` then refers to. False when there is no memory or the limit is passed.
    #[must_use]
    pub fn begin(&mut self, bytes: &[u8]) -> bool {
        self.clear();
        self.most_nodes = MIN_NODES.saturating_add(NODES_BY_TEXT.saturating_mul(bytes.len()));
        // What is made later is little beside what is read; without room for it the first of it would double the buffer.
        let fits = self.reserve(bytes.len() + bytes.len() / 16 + ROOM);
        if fits {
            self.buffer.extend_from_slice(bytes);
        }
        fits
    }

    /// A part of what `begin` was given.
    pub fn slice(&self, from: usize, to: usize) -> Str {
        debug_assert!(from <= to && to <= self.buffer.len());
        Str { start: from as u32, len: (to - from) as u32 }
    }

    /// Forgets everything but the capacity.
    fn clear(&mut self) {
        self.buffer.clear();
        self.elements.clear();
        self.members.clear();
        self.open_elements.clear();
        self.open_members.clear();
        self.full = false;
    }

    /// Whether the document had to let go of something. Asked before it is used.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Gives back memory after an unusually large resource. `keep` is in bytes of text.
    pub fn shrink(&mut self, keep: usize) {
        if self.buffer.capacity() > keep {
            self.clear();
            self.buffer.shrink_to(keep);
            self.elements.shrink_to(keep / 64);
            self.members.shrink_to(keep / 64);
            self.open_elements.shrink_to(keep / 64);
            self.open_members.shrink_to(keep / 64);
        }
    }

    /// A string as text; an empty one should a stored jsonb not be UTF-8.
    pub fn str(&self, s: Str) -> &str {
        std::str::from_utf8(self.bytes(s)).unwrap_or_default()
    }

    /// A string as bytes.
    #[inline]
    pub fn bytes(&self, s: Str) -> &[u8] {
        &self.buffer[s.start as usize..s.start as usize + s.len as usize]
    }

    /// Room for `bytes` more of text; false when there is no memory or the limit is passed.
    #[must_use]
    pub fn reserve(&mut self, bytes: usize) -> bool {
        self.buffer.len().saturating_add(bytes) <= MAX_TEXT && self.buffer.try_reserve(bytes).is_ok()
    }

    /// Copies a string into the document.
    pub fn push_str(&mut self, text: &str) -> Str {
        let start = self.buffer.len();
        self.append(text.as_bytes());
        self.finish_str(start)
    }

    /// A part of a string that is here already; the bounds are bytes in `s` and lie on characters.
    pub fn part(&self, s: Str, from: usize, to: usize) -> Str {
        debug_assert!(from <= to && to <= s.len as usize);
        Str { start: s.start + from as u32, len: (to - from) as u32 }
    }

    /// A string made of pieces: what was pushed since `start`.
    pub fn text_len(&self) -> usize {
        self.buffer.len()
    }

    /// Adds to the text that `finish_str` will close.
    pub fn append(&mut self, text: &[u8]) {
        if self.has_text_room(text.len()) {
            self.buffer.extend_from_slice(text);
        }
    }

    /// Adds a character to the text that `finish_str` will close.
    pub fn append_char(&mut self, c: char) {
        self.append(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// Adds a string that is here already to the text that `finish_str` will close.
    pub fn append_str(&mut self, s: Str) {
        if self.has_text_room(s.len as usize) {
            self.buffer.extend_from_within(s.start as usize..s.start as usize + s.len as usize);
        }
    }

    /// Whether that much more text fits; if not for memory, the document is marked as full.
    #[inline]
    fn has_text_room(&mut self, bytes: usize) -> bool {
        if self.buffer.capacity() - self.buffer.len() < bytes {
            self.full = self.full || !self.reserve(bytes);
        }
        !self.full
    }

    /// The string that began when `text_len` was `start`.
    pub fn finish_str(&self, start: usize) -> Str {
        Str { start: start as u32, len: (self.buffer.len() - start) as u32 }
    }

    /// The element at a place of all elements.
    pub fn element(&self, index: usize) -> Value {
        self.elements[index]
    }

    /// Replaces the element at a place of all elements.
    pub fn set_element(&mut self, index: usize, value: Value) {
        self.elements[index] = value;
    }

    /// The member at a place of all members.
    pub fn member(&self, index: usize) -> Member {
        self.members[index]
    }

    /// Replaces the member at a place of all members.
    pub fn set_member(&mut self, index: usize, member: Member) {
        self.members[index] = member;
    }

    /// The members of an object.
    pub fn members(&self, span: Span) -> &[Member] {
        &self.members[span.indices()]
    }

    /// The members of an object, to be changed.
    pub fn members_mut(&mut self, span: Span) -> &mut [Member] {
        &mut self.members[span.indices()]
    }

    /// The elements of an array.
    pub fn elements(&self, span: Span) -> &[Value] {
        &self.elements[span.indices()]
    }

    /// Opens a container of either kind: where its children begin.
    pub fn open(&self) -> (usize, usize) {
        (self.open_elements.len(), self.open_members.len())
    }

    /// Adds an element to the innermost open array; a full document stays as it is, and says so at its end.
    pub fn push_element(&mut self, value: Value) {
        if self.has_room(1) {
            self.open_elements.push(value);
        }
    }

    /// Adds a member to the innermost open object; a full document stays as it is, and says so at its end.
    pub fn push_member(&mut self, key: Str, value: Value) {
        if self.has_room(1) {
            self.open_members.push(Member { key, value });
        }
    }

    /// Whether that many more nodes fit into each array; if not for memory, the document is marked as full.
    #[inline]
    fn has_room(&mut self, nodes: usize) -> bool {
        let fits = |length: usize, capacity: usize| capacity - length >= nodes;
        if fits(self.open_elements.len(), self.open_elements.capacity())
            && fits(self.open_members.len(), self.open_members.capacity())
            && fits(self.elements.len(), self.elements.capacity())
            && fits(self.members.len(), self.members.capacity())
        {
            return !self.full;
        }
        self.grow(nodes)
    }

    #[cold]
    fn grow(&mut self, nodes: usize) -> bool {
        // The rest of the resource is only read. Where memory is short, asking for each element again took 30 s for a line of 40 MB.
        if self.full {
            return false;
        }
        let bytes = (self.elements.len() + self.open_elements.len()) * size_of::<Value>()
            + (self.members.len() + self.open_members.len()) * size_of::<Member>();
        self.full = bytes > self.most_nodes
            || self.open_elements.try_reserve(nodes).is_err()
            || self.open_members.try_reserve(nodes).is_err()
            || self.elements.try_reserve(nodes).is_err()
            || self.members.try_reserve(nodes).is_err();
        !self.full
    }

    /// Closes the array whose `open` gave `mark`.
    pub fn close_array(&mut self, mark: (usize, usize)) -> Value {
        let start = self.elements.len() as u32;
        if self.has_room(self.open_elements.len() - mark.0) {
            self.elements.extend_from_slice(&self.open_elements[mark.0..]);
        }
        self.open_elements.truncate(mark.0);
        Value::Array(Span { start, len: self.elements.len() as u32 - start })
    }

    /// Closes the object whose `open` gave `mark`.
    pub fn close_object(&mut self, mark: (usize, usize)) -> Value {
        let start = self.members.len() as u32;
        if self.has_room(self.open_members.len() - mark.1) {
            self.members.extend_from_slice(&self.open_members[mark.1..]);
        }
        self.open_members.truncate(mark.1);
        Value::Object(Span { start, len: self.members.len() as u32 - start })
    }

    /// Bytes that hold whatever can be made of the document: its text, and for every node a number, an entry, signs.
    pub fn written_size(&self) -> usize {
        self.buffer.len() + 20 * (self.elements.len() + self.members.len() + 1)
    }

    /// How many bytes of all strings answer to a description.
    pub fn count_bytes(&self, is_counted: impl Fn(u8) -> bool) -> usize {
        let count = |s: Str| self.bytes(s).iter().filter(|&&byte| is_counted(byte)).count();
        let of_value = |value: Value| if let Value::String(s) = value { count(s) } else { 0 };
        let elements = self.elements.iter().map(|&value| of_value(value));
        elements.chain(self.members.iter().map(|member| count(member.key) + of_value(member.value))).sum()
    }

    /// Whether any object has a member that is null.
    pub fn has_null_members(&self) -> bool {
        self.members.iter().any(|member| member.value == Value::Null)
    }

    /// The value of a key; the last one where a key stands twice, as in jsonb.
    pub fn get(&self, span: Span, key: &str) -> Option<Value> {
        self.find(span, key).map(|index| self.members[index].value)
    }

    /// The index of a key's last member.
    pub fn find(&self, span: Span, key: &str) -> Option<usize> {
        span.indices().rev().find(|&index| self.bytes(self.members[index].key) == key.as_bytes())
    }

    /// Puts members into jsonb's order (shorter keys first, then by bytes), a key's last value kept.
    pub fn sort_members(&mut self, span: Span) -> Span {
        let text = &self.buffer;
        let key = |m: &Member| &text[m.key.start as usize..m.key.start as usize + m.key.len as usize];
        let members = &mut self.members[span.indices()];
        let ordered = |a: &Member, b: &Member| a.key.len.cmp(&b.key.len).then_with(|| key(a).cmp(key(b)));
        if members.windows(2).all(|pair| ordered(&pair[0], &pair[1]).is_lt()) {
            return span;
        }
        // Stable, so that equal keys keep their order and the last one can win.
        members.sort_by(ordered);
        let mut kept = 0;
        for index in 0..members.len() {
            if index + 1 < members.len() && ordered(&members[index], &members[index + 1]).is_eq() {
                continue;
            }
            members[kept] = members[index];
            kept += 1;
        }
        Span { start: span.start, len: kept as u32 }
    }
}
