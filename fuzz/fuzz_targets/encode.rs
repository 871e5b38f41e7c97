//! JSON text to jsonb and back: what parses encodes, decodes to the same text, and encodes to the same bytes again.
#![no_main]

use bulk::jsonb::{decode, encode, parse, text};
use bulk::jsonb::document::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut document = Document::new();
    let Ok(value) = parse::parse(&mut document, input, 100) else { return };
    let mut first = Vec::new();
    encode::encode(&mut document, value, &mut first).unwrap();
    let value = decode::decode(&mut document, &first[4..], 101).unwrap();
    let mut written = Vec::new();
    text::write(&document, value, text::Style::Spaced, &mut written);
    let written = String::from_utf8(written).unwrap();
    let value = parse::parse(&mut document, &written, 100).unwrap();
    let mut second = Vec::new();
    encode::encode(&mut document, value, &mut second).unwrap();
    assert_eq!(first, second);
});
