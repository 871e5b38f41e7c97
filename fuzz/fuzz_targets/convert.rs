//! FHIR to Aidbox format, through jsonb, and back: the same jsonb as without the conversion.
#![no_main]

use bulk::fhir::definitions::r4;
use bulk::fhir::convert;
use bulk::fhir::format::Format;
use bulk::jsonb::{decode, encode, parse};
use bulk::jsonb::document::{Document, Value};
use libfuzzer_sys::fuzz_target;

const TYPES: [&str; 4] = ["Observation", "Patient", "Bundle", "ExplanationOfBenefit"];

fn jsonb(document: &mut Document, value: Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::encode(document, value, &mut bytes).unwrap();
    bytes
}

fuzz_target!(|input: (u8, &str)| {
    let (kind, input) = (TYPES[usize::from(input.0) % TYPES.len()], input.1);
    let mut document = Document::new();
    let Ok(value) = parse::parse(&mut document, input, 100) else { return };
    let plain = jsonb(&mut document, value);
    let value = decode::decode(&mut document, &plain[4..], 300).unwrap();
    let there = convert::resource(r4(), &mut document, value, kind, Format::Aidbox);
    let stored = jsonb(&mut document, there);
    let value = decode::decode(&mut document, &stored[4..], 300).unwrap();
    let back = convert::resource(r4(), &mut document, value, kind, Format::Fhir);
    let back = jsonb(&mut document, back);
    // What is in Aidbox's format already (a reference taken apart, a nested choice) comes back as FHIR: only what the first way changed
    // must be undone by the second.
    if stored != plain {
        let value = decode::decode(&mut document, &back[4..], 300).unwrap();
        let again = convert::resource(r4(), &mut document, value, kind, Format::Aidbox);
        let again = jsonb(&mut document, again);
        let value = decode::decode(&mut document, &again[4..], 300).unwrap();
        let and_back = convert::resource(r4(), &mut document, value, kind, Format::Fhir);
        assert_eq!(jsonb(&mut document, and_back), back);
    }
});
