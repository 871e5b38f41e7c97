//! A document to JSON text, in the two spacings that people meet.

use crate::jsonb::document::{Document, Str, Value};
use crate::jsonb::scan;

/// Where spaces go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// None: `{"a":1}`.
    Compact,
    /// As `jsonb::text` has them: `{"a": 1}`.
    Spaced,
}

/// Makes room for whatever the document's text is, so that writing it cannot fail half-way. False when there is no memory.
#[must_use]
pub fn reserve(document: &Document, out: &mut Vec<u8>) -> bool {
    // The longest escape takes six bytes for one; only large documents are worth a count.
    const SMALL: usize = 1 << 16;
    let size = document.written_size();
    let escapes = if size < SMALL { 0 } else { document.count_bytes(|byte| ESCAPES[byte as usize] != 0) };
    out.try_reserve(size + 5 * escapes).is_ok()
}

/// Appends a value as JSON text.
pub fn write(document: &Document, value: Value, style: Style, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(literal) => out.extend_from_slice(document.bytes(literal)),
        Value::String(s) => write_string(document, s, out),
        Value::Array(span) => {
            out.push(b'[');
            for (index, element) in document.elements(span).iter().enumerate() {
                if index > 0 {
                    separate(b',', style, out);
                }
                write(document, *element, style, out);
            }
            out.push(b']');
        }
        Value::Object(span) => {
            out.push(b'{');
            for (index, member) in document.members(span).iter().enumerate() {
                if index > 0 {
                    separate(b',', style, out);
                }
                write_string(document, member.key, out);
                separate(b':', style, out);
                write(document, member.value, style, out);
            }
            out.push(b'}');
        }
    }
}

fn separate(sign: u8, style: Style, out: &mut Vec<u8>) {
    out.push(sign);
    if style == Style::Spaced {
        out.push(b' ');
    }
}

/// What stands for a byte inside a string: 0 itself, `u` a `\u00xx` escape, else the letter after the backslash.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Escapes as PostgreSQL's `escape_json` does.
fn write_string(document: &Document, s: Str, out: &mut Vec<u8>) {
    let mut rest = document.bytes(s);
    out.push(b'"');
    while let Some(run) = scan::special(rest) {
        out.extend_from_slice(&rest[..run]);
        match ESCAPES[rest[run] as usize] {
            b'u' => out.extend_from_slice(format!("\\u{:04x}", rest[run]).as_bytes()),
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = &rest[run + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
