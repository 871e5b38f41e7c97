//! FHIR itself: what the definitions say, the two JSON formats, references, searches, validation. `convert` goes
//! from one format to the other and back. Pure: no server, no threads.

pub mod convert;
pub mod definition_table;
pub mod definitions;
pub mod elements;
pub mod format;
pub mod id_prefix;
pub mod instant;
pub mod outcome;
pub mod overlay;
pub mod reference;
pub mod resource_meta;
pub mod search_filter;
pub mod search_parameters;
pub mod structure;
pub mod validate;
