//! Percent-encoding (RFC 3986): all but letters, digits, `-`, `.`, `_` and `~` is encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &SEGMENT.remove(b'/');
const QUERY: &AsciiSet = &PATH.remove(b':').remove(b',');

/// One segment of a path, or a name or value in a query.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A path, whose slashes stay.
pub fn path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// A value in a query for people to read: slashes, colons and commas stay.
pub fn query_value(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_unreserved_is_encoded() {
        assert_eq!(segment("a-b.c_d~e/f g+ä%"), "a-b.c_d~e%2Ff%20g%2B%C3%A4%25");
        assert_eq!(path("a b/c|d"), "a%20b/c%7Cd");
        assert_eq!(query_value("Patient/1,x=2026-01-01T00:00:00"), "Patient/1,x%3D2026-01-01T00:00:00");
    }
}
