//! From blocks of stored rows to text: NDJSON, CSV, the formats of a query, gzip. Where rows come from is a trait of `parallel_map`, which `pg::read` implements.

pub mod csv;
pub mod export;
pub mod gzip;
pub mod id_hash_set;
pub mod ndjson;
pub mod render;
pub mod stored_rows;
pub mod text_format;
