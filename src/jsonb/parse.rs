//! JSON text to a document, accepting exactly what PostgreSQL's `jsonb_in` accepts. One line at a time, no SIMD needed
//! where strings are short; errors carry the byte.

use crate::error::Fault;
use crate::jsonb::document::{Document, Str, Value};
use crate::jsonb::{numeric, scan};

/// A fault and the byte of the text (from 0) where it lies.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError {
    pub fault: Fault,
    pub byte: usize,
}

type Result<T> = std::result::Result<T, ParseError>;

/// Parses one JSON text into `document`, which begins anew. `max_depth` counts containers inside one another.
///
/// # Errors
/// The fault and the byte where it is: `Syntax`, `TooDeep`, `Nul`, `TooLarge`.
pub fn parse(document: &mut Document, text: &str, max_depth: usize) -> Result<Value> {
    if !document.begin(text.as_bytes()) {
        return Err(ParseError { fault: Fault::TooLarge, byte: 0 });
    }
    let mut parser = Parser { document, text, bytes: text.as_bytes(), at: 0, depth: 0, max_depth, written: 0 };
    parser.space();
    let value = parser.value()?;
    parser.space();
    if parser.at < parser.bytes.len() {
        return Err(parser.error("expected end of input"));
    }
    if parser.document.is_full() {
        return parser.fail(Fault::TooDense);
    }
    Ok(value)
}

struct Parser<'a> {
    document: &'a mut Document,
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    max_depth: usize,
    /// Bytes of the numbers with exponents, written out.
    written: usize,
}

/// Bytes of such numbers at most: text ends at 1 GB, and a few bytes of an exponent become thousands of digits.
const MOST_WRITTEN: usize = 256 << 20;

impl Parser<'_> {
    fn fail<T>(&self, fault: Fault) -> Result<T> {
        Err(ParseError { fault, byte: self.at })
    }

    fn error(&self, what: &'static str) -> ParseError {
        ParseError { fault: Fault::Syntax(what), byte: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Value> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(self.error("expected a value")),
            None => Err(self.error("input ended unexpectedly")),
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        self.end_of_token(value)
    }

    /// A literal must not run into a letter, a digit or anything that would continue it.
    fn end_of_token(&mut self, value: Value) -> Result<Value> {
        match self.peek() {
            Some(byte) if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => Err(self.error("token is invalid")),
            _ => Ok(value),
        }
    }

    fn descend(&mut self) -> Result<()> {
        // What is full stays full: reading on would be for nothing.
        if self.document.is_full() {
            return self.fail(Fault::TooDense);
        }
        self.depth += 1;
        if self.depth > self.max_depth {
            return self.fail(Fault::TooDeep { limit: self.max_depth });
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn array(&mut self) -> Result<Value> {
        let mark = self.document.open();
        self.descend()?;
        if self.peek() != Some(b']') {
            loop {
                let value = self.value()?;
                self.document.push_element(value);
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break,
                    Some(_) => return Err(self.error("expected \",\" or \"]\"")),
                    None => return Err(self.error("input ended unexpectedly")),
                }
                self.space();
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(self.document.close_array(mark))
    }

    fn object(&mut self) -> Result<Value> {
        let mark = self.document.open();
        self.descend()?;
        if self.peek() != Some(b'}') {
            loop {
                match self.peek() {
                    Some(b'"') => {}
                    Some(_) => return Err(self.error("expected a string as key")),
                    None => return Err(self.error("input ended unexpectedly")),
                }
                let key = self.string()?;
                self.space();
                if self.peek() != Some(b':') {
                    return Err(self.error("expected \":\""));
                }
                self.at += 1;
                self.space();
                let value = self.value()?;
                self.document.push_member(key, value);
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break,
                    Some(_) => return Err(self.error("expected \",\" or \"}\"")),
                    None => return Err(self.error("input ended unexpectedly")),
                }
                self.space();
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(self.document.close_object(mark))
    }

    fn digits(&mut self, what: &'static str) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.error(what)) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("token is invalid")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("token is invalid")?;
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits("token is invalid")?;
        }
        let literal = &self.text[start..self.at];
        if let Some(byte) = numeric::check(literal) {
            self.at = start + byte;
            return self.fail(Fault::NumberRange);
        }
        if has_exponent {
            self.written = self.written.saturating_add(numeric::written_size(literal));
            if self.written > MOST_WRITTEN {
                return self.fail(Fault::TooLarge);
            }
        }
        let value = Value::Number(self.document.slice(start, self.at));
        self.end_of_token(value)
    }

    /// Moves to the next quote, backslash or control character.
    fn plain_run(&mut self) -> Result<u8> {
        let rest = &self.bytes[self.at..];
        match scan::special(rest) {
            Some(run) => {
                self.at += run;
                Ok(rest[run])
            }
            None => {
                self.at = self.bytes.len();
                Err(self.error("input ended inside a string"))
            }
        }
    }

    fn string(&mut self) -> Result<Str> {
        self.at += 1;
        let start = self.at;
        match self.plain_run()? {
            b'"' => {
                self.at += 1;
                Ok(self.document.slice(start, self.at - 1))
            }
            stop => self.unescaped(start, stop),
        }
    }

    /// The rest of a string that begins at `start`, holds something at `at` that ends a plain run, and so needs a copy.
    fn unescaped(&mut self, mut start: usize, mut stop: u8) -> Result<Str> {
        // Unescaped it is no longer than what is left of the input.
        if !self.document.reserve(self.bytes.len() - start) {
            return self.fail(Fault::TooLarge);
        }
        let begin = self.document.text_len();
        loop {
            self.document.append(&self.bytes[start..self.at]);
            match stop {
                b'"' => {
                    self.at += 1;
                    return Ok(self.document.finish_str(begin));
                }
                b'\\' => self.escape()?,
                _ => return Err(self.error("control character in a string must be escaped")),
            }
            start = self.at;
            stop = self.plain_run()?;
        }
    }

    fn escape(&mut self) -> Result<()> {
        let c = match self.bytes.get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err(self.error("escape sequence is invalid")),
            None => return Err(self.error("input ended inside a string")),
        };
        self.at += 2;
        self.document.append_char(c);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<()> {
        let first = self.hex()?;
        let code = match first {
            0 => return self.fail(Fault::Nul),
            0xD800..=0xDBFF => {
                let high = self.at;
                self.at += 6;
                let low = if self.bytes[self.at..].starts_with(b"\\u") { self.hex()? } else { 0 };
                if !(0xDC00..=0xDFFF).contains(&low) {
                    self.at = high;
                    return Err(self.error("Unicode high surrogate must be followed by a low surrogate"));
                }
                0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00)
            }
            code => code,
        };
        match char::from_u32(code) {
            Some(c) => self.document.append_char(c),
            None => return Err(self.error("Unicode low surrogate must follow a high surrogate")),
        }
        self.at += 6;
        Ok(())
    }

    /// The value of the four digits of a `\u` escape that begins here.
    fn hex(&self) -> Result<u32> {
        self.bytes
            .get(self.at + 2..self.at + 6)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.error("\"\\u\" must be followed by four hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> std::result::Result<String, (Fault, usize)> {
        let mut document = Document::new();
        let value = parse(&mut document, text, 100).map_err(|e| (e.fault, e.byte))?;
        let mut out = Vec::new();
        crate::jsonb::text::write(&document, value, crate::jsonb::text::Style::Compact, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_keep_their_literals() {
        let text = r#"{"a":1.10,"b":[-0,1e5,true,false,null,""],"":{"é":"\"\\\n\u0001"}}"#;
        assert_eq!(round(text).unwrap(), text);
        assert_eq!(round(" [ 1 , 2 ] \r").unwrap(), "[1,2]");
        assert_eq!(round(r#""\ud83d\ude00\/\u00e9""#).unwrap(), "\"😀/é\"");
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_byte() {
        for (text, byte) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\" 1}", 5),
            ("01", 1),
            ("1.", 2),
            ("-", 1),
            ("1e", 2),
            ("nul", 0),
            ("truex", 4),
            ("\"a", 2),
            ("\"\u{1}\"", 1),
            ("\"\\x\"", 1),
            ("\"\\u12\"", 1),
            ("\"\\ud800\"", 1),
            ("\"\\udc00\"", 1),
            ("[1 2]", 3),
            ("{}{}", 2),
            ("{1:2}", 1),
            ("\"\\ud800\\u0041\"", 1),
            ("+1", 0),
            (".5", 0),
            ("[1,2", 4),
            ("{\"a\":1,}", 7),
        ] {
            let (fault, at) = round(text).unwrap_err();
            assert!(matches!(fault, Fault::Syntax(_)), "{text}: {fault}");
            assert_eq!(at, byte, "{text}: {fault}");
        }
        assert_eq!(round("\"\\u0000\"").unwrap_err(), (Fault::Nul, 1));
        let deep = "[".repeat(100_000);
        assert_eq!(round(&deep).unwrap_err(), (Fault::TooDeep { limit: 100 }, 100));
    }
}
