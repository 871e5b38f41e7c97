//! A document to the bytes of a jsonb varlena, byte-equal to `jsonb_in` (src/backend/utils/adt/jsonb_util.c): keys sorted,
//! the last of equal keys kept, an offset instead of a length in every 32nd entry, numbers and containers aligned to 4.

use crate::error::Fault;
use crate::jsonb::document::{Document, Span, Value};
use crate::jsonb::{numeric, varlena};

/// Flags of a container's header word, beside its count of children.
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
/// Every this many entries holds an offset, so that a child is found without adding up all lengths.
const OFFSET_STRIDE: usize = 32;
const HAS_OFFSET: u32 = 0x8000_0000;
const IS_STRING: u32 = 0x0000_0000;
const IS_NUMERIC: u32 = 0x1000_0000;
const IS_FALSE: u32 = 0x2000_0000;
const IS_TRUE: u32 = 0x3000_0000;
const IS_NULL: u32 = 0x4000_0000;
const IS_CONTAINER: u32 = 0x5000_0000;
const TYPE_MASK: u32 = 0x7000_0000;
/// Largest length, offset and count: 28 bits.
const LENGTH_MASK: usize = 0x0FFF_FFFF;

/// Appends the varlena, header included, to `out`. The start of `out` must be where alignment counts from: its length
/// is a multiple of 4. Objects of the document end up sorted.
///
/// # Errors
/// `TooLarge` beyond 256 MB, or without memory; `NumberRange` for a number that numeric cannot hold.
pub fn encode(document: &mut Document, value: Value, out: &mut Vec<u8>) -> Result<(), Fault> {
    debug_assert!(out.len().is_multiple_of(4));
    if document.is_full() {
        return Err(Fault::TooDense);
    }
    // All growth happens here, where it can fail.
    out.try_reserve(document.written_size()).map_err(|_| Fault::TooLarge)?;
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut writer = Writer { document, out, start };
    match value {
        Value::Array(_) | Value::Object(_) => {
            writer.container(value)?;
        }
        // A scalar is an array of one that says so.
        scalar => {
            writer.word(1 | SCALAR | ARRAY);
            let entry = writer.out.len();
            writer.word(0);
            let made = writer.value(scalar)?;
            writer.entry(entry, made);
        }
    }
    let size = out.len() - start;
    if size > LENGTH_MASK {
        return Err(Fault::TooLarge);
    }
    out[start..start + 4].copy_from_slice(&varlena::header_of(size as u32));
    Ok(())
}

struct Writer<'a> {
    document: &'a mut Document,
    out: &'a mut Vec<u8>,
    start: usize,
}

impl Writer<'_> {
    fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_ne_bytes());
    }

    fn entry(&mut self, at: usize, entry: u32) {
        self.out[at..at + 4].copy_from_slice(&entry.to_ne_bytes());
    }

    fn align(&mut self) {
        let over = (self.out.len() - self.start) % 4;
        if over > 0 {
            self.out.extend_from_slice(&[0; 3][..4 - over]);
        }
    }

    /// Writes a value's bytes and returns its entry: type and length.
    fn value(&mut self, value: Value) -> Result<u32, Fault> {
        let before = self.out.len();
        let kind = match value {
            Value::Null => return Ok(IS_NULL),
            Value::Bool(true) => return Ok(IS_TRUE),
            Value::Bool(false) => return Ok(IS_FALSE),
            Value::String(s) => {
                self.out.extend_from_slice(self.document.bytes(s));
                IS_STRING
            }
            Value::Number(literal) => {
                self.align();
                numeric::encode(self.document.str(literal), self.out);
                IS_NUMERIC
            }
            Value::Array(_) | Value::Object(_) => {
                self.container(value)?;
                IS_CONTAINER
            }
        };
        let length = self.out.len() - before;
        if length > LENGTH_MASK {
            return Err(Fault::TooLarge);
        }
        Ok(kind | length as u32)
    }

    fn container(&mut self, value: Value) -> Result<(), Fault> {
        self.align();
        match value {
            Value::Array(span) => self.array(span),
            Value::Object(span) => self.object(span),
            _ => Ok(()),
        }
    }

    fn array(&mut self, span: Span) -> Result<(), Fault> {
        let mut entries = Entries::begin(self, ARRAY | span.len, span.len as usize);
        for index in span.indices() {
            let made = self.value(self.document.element(index))?;
            entries.add(self, made)?;
        }
        Ok(())
    }

    fn object(&mut self, span: Span) -> Result<(), Fault> {
        let span = self.document.sort_members(span);
        let mut entries = Entries::begin(self, OBJECT | span.len, 2 * span.len as usize);
        for index in span.indices() {
            let made = self.value(Value::String(self.document.member(index).key))?;
            entries.add(self, made)?;
        }
        for index in span.indices() {
            let made = self.value(self.document.member(index).value)?;
            entries.add(self, made)?;
        }
        Ok(())
    }
}

/// The entries of one container, filled in as its children are written behind them.
struct Entries {
    at: usize,
    count: usize,
    total: usize,
}

impl Entries {
    fn begin(writer: &mut Writer, header: u32, entries: usize) -> Entries {
        writer.word(header);
        let at = writer.out.len();
        writer.out.resize(at + 4 * entries, 0);
        Entries { at, count: 0, total: 0 }
    }

    fn add(&mut self, writer: &mut Writer, mut entry: u32) -> Result<(), Fault> {
        self.total += entry as usize & LENGTH_MASK;
        if self.total > LENGTH_MASK {
            return Err(Fault::TooLarge);
        }
        if self.count.is_multiple_of(OFFSET_STRIDE) {
            entry = (entry & TYPE_MASK) | self.total as u32 | HAS_OFFSET;
        }
        writer.entry(self.at, entry);
        self.at += 4;
        self.count += 1;
        Ok(())
    }
}
