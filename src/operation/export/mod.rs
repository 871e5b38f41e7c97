//! Exports: resources as of one moment, as NDJSON files in a store. The job's first task holds the snapshot (`snapshot_holder`), and
//! begins the export anew where an earlier holder is gone; the others read ranges of tables through it.

pub mod cleanup;
pub mod patients;
pub mod request;
pub mod snapshot_holder;
pub mod spec;
pub mod status;
pub mod submit;
pub mod target;
pub mod work;
