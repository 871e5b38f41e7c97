//! Compression gives back what went in; inflating bytes that nobody compressed is None or a text, never a panic.
#![no_main]

use bulk::jsonb::pglz::{self, Pglz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (size, bytes) = input;
    let (mut packed, mut out) = (Vec::new(), Vec::new());
    if Pglz::default().compress(bytes, &mut packed) {
        pglz::decompress(&packed, bytes.len(), &mut out).unwrap();
        assert_eq!(out, bytes);
    }
    out.clear();
    if pglz::decompress(bytes, usize::from(size), &mut out).is_some() {
        assert_eq!(out.len(), usize::from(size));
    }
});
