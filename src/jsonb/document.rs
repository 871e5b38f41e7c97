//! A JSON value as flat arrays that are reused from one resource to the next, so that a load allocates nothing per line.
//! It is made by `parse` (from text) and `decode` (from jsonb), changed in place by `fhir`, written by `text` and `encode`.

/// A run of elements or members in the document's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
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
    buffer: String,
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

/// Bytes of text that a document may hold. jsonb ends at 256 MB; numbers written out may add to that.
const MAX_TEXT: usize = 400 << 20;
/// Bytes that elements and members may take in any case, and as many more as times the text.
const MIN_NODES: usize = 32 << 20;
const NODES_BY_TEXT: usize = 3;

impl Document {
    pub fn new() -> Document {
        Document::default()
    }

    /// Forgets everything but the capacity.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.elements.clear();
        self.members.clear();
        self.open_elements.clear();
        self.open_members.clear();
        self.most_nodes = MIN_NODES;
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

    pub fn str(&self, s: Str) -> &str {
        &self.buffer[s.start as usize..s.start as usize + s.len as usize]
    }

    pub fn bytes(&self, s: Str) -> &[u8] {
        &self.buffer.as_bytes()[s.start as usize..s.start as usize + s.len as usize]
    }

    /// Room for `bytes` more of text, and for elements in proportion; false when there is no memory or the limit is passed.
    #[must_use]
    pub fn reserve(&mut self, bytes: usize) -> bool {
        self.most_nodes = self.most_nodes.max(MIN_NODES).saturating_add(NODES_BY_TEXT.saturating_mul(bytes));
        self.buffer.len().saturating_add(bytes) <= MAX_TEXT && self.buffer.try_reserve(bytes).is_ok()
    }

    /// Copies a string into the document.
    pub fn push_str(&mut self, text: &str) -> Str {
        let start = self.buffer.len() as u32;
        self.buffer.push_str(text);
        Str { start, len: text.len() as u32 }
    }

    /// A part of a string that is here already; the bounds are bytes in `s` and lie on characters.
    pub fn part(&self, s: Str, from: usize, to: usize) -> Str {
        debug_assert!(self.str(s).get(from..to).is_some());
        Str { start: s.start + from as u32, len: (to - from) as u32 }
    }

    /// A string made of pieces: what was pushed since `start`.
    pub fn text_len(&self) -> usize {
        self.buffer.len()
    }

    /// Adds to the text that `finish_str` will close.
    pub fn append(&mut self, text: &str) {
        self.buffer.push_str(text);
    }

    pub fn append_char(&mut self, c: char) {
        self.buffer.push(c);
    }

    /// The string that began when `text_len` was `start`.
    pub fn finish_str(&self, start: usize) -> Str {
        Str { start: start as u32, len: (self.buffer.len() - start) as u32 }
    }

    pub fn element(&self, index: usize) -> Value {
        self.elements[index]
    }

    pub fn set_element(&mut self, index: usize, value: Value) {
        self.elements[index] = value;
    }

    pub fn member(&self, index: usize) -> Member {
        self.members[index]
    }

    pub fn set_member(&mut self, index: usize, member: Member) {
        self.members[index] = member;
    }

    pub fn members(&self, span: Span) -> &[Member] {
        &self.members[span.indices()]
    }

    pub fn members_mut(&mut self, span: Span) -> &mut [Member] {
        &mut self.members[span.indices()]
    }

    pub fn elements(&self, span: Span) -> &[Value] {
        &self.elements[span.indices()]
    }

    /// Opens a container of either kind: where its children begin.
    pub fn open(&self) -> (usize, usize) {
        (self.open_elements.len(), self.open_members.len())
    }

    pub fn push_element(&mut self, value: Value) {
        if self.has_room(1) {
            self.open_elements.push(value);
        }
    }

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
        let bytes = (self.elements.len() + self.open_elements.len()) * size_of::<Value>()
            + (self.members.len() + self.open_members.len()) * size_of::<Member>();
        self.full |= bytes > self.most_nodes
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

    /// How many bytes of all text answer to a description.
    pub fn count_bytes(&self, is_counted: impl Fn(u8) -> bool) -> usize {
        self.buffer.bytes().filter(|&byte| is_counted(byte)).count()
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
        let text = self.buffer.as_bytes();
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
