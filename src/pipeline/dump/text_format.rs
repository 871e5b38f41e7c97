//! How a row of any query is written: the formats of `bulk.dump_sql`, field by field.

use memchr::memchr3;

/// What a delimited text is written with.
#[derive(Debug)]
pub struct Delimited {
    delimiter: u8,
    /// What a null is written as.
    null: Vec<u8>,
    quoting: Quoting,
}

#[derive(Debug)]
enum Quoting {
    /// Backslashes, as COPY's text format has them: 0 itself, else what stands behind the backslash.
    Escapes(Box<[u8; 256]>),
    /// RFC 4180.
    Quotes(Box<csv_core::Writer>),
}

impl Delimited {
    /// COPY's text format.
    pub fn text(delimiter: u8, null: &str) -> Delimited {
        let mut escapes = Box::new([0; 256]);
        for (byte, letter) in [(0x08, b'b'), (0x0c, b'f'), (b'\n', b'n'), (b'\r', b'r'), (b'\t', b't'), (0x0b, b'v'), (b'\\', b'\\')] {
            escapes[usize::from(byte)] = letter;
        }
        if escapes[usize::from(delimiter)] == 0 {
            escapes[usize::from(delimiter)] = delimiter;
        }
        Delimited { delimiter, null: null.as_bytes().to_vec(), quoting: Quoting::Escapes(escapes) }
    }

    /// COPY's CSV format, which is RFC 4180 with nulls.
    pub fn csv(delimiter: u8, null: &str) -> Delimited {
        let writer = csv_core::WriterBuilder::new().delimiter(delimiter).build();
        Delimited { delimiter, null: null.as_bytes().to_vec(), quoting: Quoting::Quotes(Box::new(writer)) }
    }

    /// Between two fields.
    pub fn separate(&self, out: &mut Vec<u8>) {
        out.push(self.delimiter);
    }

    /// Bytes of a null.
    pub fn null_len(&self) -> usize {
        self.null.len()
    }

    /// Appends a null.
    pub fn null(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.null);
    }

    /// Appends a value. `alone` says that the row has no other column.
    pub fn value(&self, value: &[u8], alone: bool, out: &mut Vec<u8>) {
        match &self.quoting {
            Quoting::Escapes(escapes) => escape(value, escapes, out),
            // What looks like a null or like the end of the data is no such thing in quotes.
            Quoting::Quotes(writer) if writer.should_quote(value) || value == self.null || (alone && value == b"\\.") => {
                quote(value, b'"', out)
            }
            Quoting::Quotes(_) => out.extend_from_slice(value),
        }
    }
}

fn escape(value: &[u8], escapes: &[u8; 256], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(run) = rest.iter().position(|&byte| escapes[usize::from(byte)] != 0) {
        out.extend_from_slice(&rest[..run]);
        out.extend_from_slice(&[b'\\', escapes[usize::from(rest[run])]]);
        rest = &rest[run + 1..];
    }
    out.extend_from_slice(rest);
}

/// Between signs; the sign itself is doubled.
fn quote(value: &[u8], sign: u8, out: &mut Vec<u8>) {
    out.push(sign);
    let mut rest = value;
    while let Some(run) = memchr::memchr(sign, rest) {
        out.extend_from_slice(&rest[..=run]);
        out.push(sign);
        rest = &rest[run + 1..];
    }
    out.extend_from_slice(rest);
    out.push(sign);
}

/// An SQL string constant, read the same whatever `standard_conforming_strings` is.
pub fn literal(value: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr(b'\\', value).is_none() {
        return quote(value, b'\'', out);
    }
    out.extend_from_slice(b"E'");
    let mut rest = value;
    while let Some(run) = memchr3(b'\\', b'\'', b'\'', rest) {
        out.extend_from_slice(&rest[..=run]);
        out.push(rest[run]);
        rest = &rest[run + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// Whether a number's text is a constant of SQL as it stands: neither NaN nor infinite.
pub fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_escaped_as_copy_does() {
        let tsv = Delimited::text(b'\t', "\\N");
        assert_eq!(written(|out| tsv.value(b"a\tb\nc\\d\x01\x0b", false, out)), "a\\tb\\nc\\\\d\x01\\v");
        assert_eq!(written(|out| tsv.value(b"\\N", true, out)), "\\\\N");
        assert_eq!(written(|out| tsv.null(out)), "\\N");
        assert_eq!(written(|out| Delimited::text(b'|', "").value(b"a|b\t", false, out)), "a\\|b\\t");
    }

    #[test]
    fn csv_quotes_what_would_be_misread() {
        let csv = Delimited::csv(b',', "");
        for (value, text) in
            [("a", "a"), ("a b", "a b"), ("", "\"\""), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("a\nb", "\"a\nb\""), ("\\.", "\\.")]
        {
            assert_eq!(written(|out| csv.value(value.as_bytes(), false, out)), text);
        }
        assert_eq!(written(|out| csv.value(b"\\.", true, out)), "\"\\.\"");
        assert_eq!(written(|out| Delimited::csv(b';', "x").value(b"x", false, out)), "\"x\"");
        assert_eq!(written(|out| Delimited::csv(b';', "x").value(b"a,b", false, out)), "a,b");
    }

    #[test]
    fn literals_are_read_back_whatever_they_hold() {
        assert_eq!(written(|out| literal(b"it's", out)), "'it''s'");
        assert_eq!(written(|out| literal(b"a\\'b", out)), "E'a\\\\''b'");
        assert!(is_number(b"-1.5e+10") && !is_number(b"NaN") && !is_number(b""));
    }
}
