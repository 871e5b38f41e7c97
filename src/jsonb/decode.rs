//! The bytes of a jsonb value (inflated, without its varlena header) to a document, in the stored order of keys, which is
//! the order `jsonb_out` writes.

use crate::error::Fault;
use crate::jsonb::document::{Document, Str, Value};
use crate::jsonb::numeric;

const COUNT_MASK: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const TYPE_MASK: u32 = 0x7000_0000;
const LENGTH_MASK: u32 = 0x0FFF_FFFF;

/// Reads a jsonb into `document`, which begins anew. Bytes that are no jsonb are a fault, never a panic; strings
/// are taken to be UTF-8, as PostgreSQL takes them.
///
/// # Errors
/// `TooDeep`, `TooLarge`, and a fault for bytes that are no jsonb.
pub fn decode(document: &mut Document, bytes: &[u8], max_depth: usize) -> Result<Value, Fault> {
    if !document.begin(bytes) {
        return Err(Fault::TooLarge);
    }
    // Alignment counts from the varlena header, whose 4 bytes are gone: it comes out the same.
    let value = Reader { document, bytes, max_depth, entries_left: bytes.len() / 4 }.container(0, 0)?;
    if document.is_full() { Err(Fault::TooDense) } else { Ok(value) }
}

struct Reader<'a> {
    document: &'a mut Document,
    bytes: &'a [u8],
    max_depth: usize,
    /// Of a jsonb that is whole every entry has 4 bytes of its own. Where containers overlap they would come to more, without end.
    entries_left: usize,
}

const BROKEN: Fault = Fault::Syntax("stored jsonb is corrupt");

/// Walks the entries of one container: where each child's bytes begin and end.
struct Cursor {
    entry: usize,
    base: usize,
    offset: usize,
}

impl Reader<'_> {
    fn word(&self, at: usize) -> Result<u32, Fault> {
        let bytes = self.bytes.get(at..at + 4).ok_or(BROKEN)?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn container(&mut self, at: usize, depth: usize) -> Result<Value, Fault> {
        if depth >= self.max_depth {
            return Err(Fault::TooDeep { limit: self.max_depth });
        }
        let header = self.word(at)?;
        let count = (header & COUNT_MASK) as usize;
        let entries = if header & OBJECT != 0 { 2 * count } else { count };
        let base = at + 4 + 4 * entries;
        self.entries_left = self.entries_left.checked_sub(entries).ok_or(BROKEN)?;
        if base > self.bytes.len() {
            return Err(BROKEN);
        }
        let mark = self.document.open();
        if header & OBJECT != 0 {
            let mut keys = Cursor { entry: at + 4, base, offset: 0 };
            let mut values = Cursor { entry: at + 4 + 4 * count, base, offset: self.end_of_keys(at + 4, count)? };
            for _ in 0..count {
                let key = self.key(&mut keys)?;
                let value = self.child(&mut values, depth)?;
                self.document.push_member(key, value);
            }
            return Ok(self.document.close_object(mark));
        }
        let mut cursor = Cursor { entry: at + 4, base, offset: 0 };
        if header & SCALAR != 0 {
            return self.child(&mut cursor, depth);
        }
        for _ in 0..count {
            let value = self.child(&mut cursor, depth)?;
            self.document.push_element(value);
        }
        Ok(self.document.close_array(mark))
    }

    /// Offset where an object's values begin: behind the last key.
    fn end_of_keys(&self, entries: usize, count: usize) -> Result<usize, Fault> {
        let mut length = 0;
        for index in (0..count).rev() {
            let entry = self.word(entries + 4 * index)?;
            length += (entry & LENGTH_MASK) as usize;
            if entry & HAS_OFFSET != 0 {
                break;
            }
        }
        Ok(length)
    }

    /// The next child: its type, and its bytes' bounds.
    fn next(&self, cursor: &mut Cursor) -> Result<(u32, usize, usize), Fault> {
        let entry = self.word(cursor.entry)?;
        let length = (entry & LENGTH_MASK) as usize;
        let end = if entry & HAS_OFFSET != 0 { length } else { cursor.offset + length };
        let (from, to) = (cursor.base + cursor.offset, cursor.base + end);
        if from > to || to > self.bytes.len() {
            return Err(BROKEN);
        }
        cursor.entry += 4;
        cursor.offset = end;
        Ok((entry & TYPE_MASK, from, to))
    }

    fn key(&mut self, cursor: &mut Cursor) -> Result<Str, Fault> {
        let (_, from, to) = self.next(cursor)?;
        Ok(self.document.slice(from, to))
    }

    fn child(&mut self, cursor: &mut Cursor, depth: usize) -> Result<Value, Fault> {
        let (kind, from, to) = self.next(cursor)?;
        Ok(match kind {
            0x0000_0000 => Value::String(self.document.slice(from, to)),
            0x1000_0000 => self.number(from, to)?,
            0x2000_0000 => Value::Bool(false),
            0x3000_0000 => Value::Bool(true),
            0x4000_0000 => Value::Null,
            0x5000_0000 => self.container(from.next_multiple_of(4), depth + 1)?,
            _ => return Err(BROKEN),
        })
    }

    fn number(&mut self, from: usize, to: usize) -> Result<Value, Fault> {
        let at = from.next_multiple_of(4);
        // A numeric inside a jsonb always has the 4-byte header.
        let bytes = self.bytes.get(at + 4..to).ok_or(BROKEN)?;
        let number = numeric::decode(bytes).ok_or(BROKEN)?;
        if !self.document.reserve(number.text_len()) {
            return Err(Fault::TooLarge);
        }
        let start = self.document.text_len();
        number.write(|c| self.document.append_char(c));
        Ok(Value::Number(self.document.finish_str(start)))
    }
}

#[cfg(test)]
mod tests {
    use crate::jsonb::document::Document;
    use crate::jsonb::{encode, parse, text};

    fn round(json: &str) -> String {
        let mut document = Document::new();
        let value = parse::parse(&mut document, json, 1000).unwrap();
        let mut bytes = Vec::new();
        encode::encode(&mut document, value, &mut bytes).unwrap();
        let value = super::decode(&mut document, &bytes[4..], 1000).unwrap();
        let mut out = Vec::new();
        text::write(&document, value, text::Style::Compact, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_value() {
        for json in ["1.10", "\"x\"", "null", "[]", "{}", "[1,[2,[3,{}]],\"a\",{\"b\":true}]", "{\"a\":{\"b\":[1.5,-2,\"é\"]},\"bb\":null}"]
        {
            assert_eq!(round(json), json);
        }
        assert_eq!(round("{\"bb\":1,\"a\":2,\"bb\":3}"), "{\"a\":2,\"bb\":3}");
        let many = format!("[{}]", (0..1000).map(|i| format!("{{\"k{i:04}\":{i}.50}}")).collect::<Vec<_>>().join(","));
        assert_eq!(round(&many), many);
        let wide = format!("{{{}}}", (0..1000).map(|i| format!("\"k{i:04}\":[{i},\"v\"]")).collect::<Vec<_>>().join(","));
        assert_eq!(round(&wide), wide);
    }

    #[test]
    fn corrupt_bytes_are_a_fault() {
        let mut document = Document::new();
        let value = parse::parse(&mut document, "{\"a\":[1,2,{\"b\":\"c\"}],\"d\":1.5}", 100).unwrap();
        let mut bytes = Vec::new();
        encode::encode(&mut document, value, &mut bytes).unwrap();
        for index in 4..bytes.len() {
            for flip in [1u8, 0x10, 0x80, 0xFF] {
                let mut broken = bytes[4..].to_vec();
                broken[index - 4] ^= flip;
                let _ = super::decode(&mut document, &broken, 100);
            }
            let _ = super::decode(&mut document, &bytes[4..index], 100);
        }
    }
}
