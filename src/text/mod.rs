//! Text that is not FHIR: lines of NDJSON, keys of JSON objects, names of files.

pub mod file_name;
pub mod json_members;
pub mod key_map;
pub mod ndjson;
pub mod percent;
