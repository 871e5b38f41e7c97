//! FHIR itself: what the definitions say, the two JSON formats and the lines of NDJSON. Pure: no server needed.

pub mod change;
pub mod convert;
pub mod definitions;
pub mod elements;
pub mod envelope;
pub mod file_name;
pub mod filter;
pub mod instant;
pub mod keys;
pub mod ndjson;
mod prefix;
pub mod reference;
pub mod search;
pub mod structure;
mod table;
pub mod validate;

/// How a resource is written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aidbox's: references split, choice elements nested. <https://docs.aidbox.app>, "Aidbox & FHIR formats".
    Aidbox,
    /// FHIR's own. <https://hl7.org/fhir/R4/json.html>
    Fhir,
}
