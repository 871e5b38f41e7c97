//! FHIR itself: what the definitions say, the two JSON formats and the lines of NDJSON. Pure: no server needed.

pub mod change;
pub mod convert;
pub mod definitions;
pub mod elements;
pub mod envelope;
pub mod file_name;
pub mod filter;
pub mod format;
pub mod instant;
pub mod keys;
pub mod ndjson;
pub mod outcome;
mod prefix;
pub mod reference;
pub mod search;
pub mod structure;
mod table;
pub mod validate;
