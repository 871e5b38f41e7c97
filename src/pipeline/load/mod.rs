//! From bytes of a source to batches of rows: read, inflate, cut into lines, encode. Where batches go is a trait here, which `pg::write` implements.
//! `counters` fails a load that rejects too many lines; `existing_rows` is the policy for ids that are there already; `batch` ranks its rows in
//! the order in which they are locked.

pub mod batch;
pub mod batch_spill;
pub mod checkpoint;
pub mod counters;
pub mod encode;
pub mod existing_rows;
pub mod id_bloom;
pub mod options;
pub mod sink;
pub mod source_reader;
