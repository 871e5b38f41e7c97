//! `bulk.export`: resources as of one moment, as NDJSON files in a store.

pub mod call;
pub mod cleanup;
pub mod keeper;
pub mod manifest;
pub mod params;
pub mod part;
mod patients;
mod target;
