//! Bytes that may be no jsonb: decoding and writing them is a fault or a text, never a panic.
#![no_main]

use bulk::jsonb::{decode, text};
use bulk::jsonb::document::Document;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut document = Document::new();
    if let Ok(value) = decode::decode(&mut document, input, 100) {
        let mut written = Vec::new();
        // Children may overlap, so that a few bytes say a text without end.
        if document.written_size() < 1 << 20 {
            text::write(&document, value, text::Style::Compact, &mut written);
        }
    }
});
