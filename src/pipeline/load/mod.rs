//! From bytes of a source to batches of rows: read, inflate, cut into lines, encode. Where batches go is a trait here, which `pg::write` implements.

pub mod batch;
pub mod batch_spill;
pub mod checkpoint;
pub mod counters;
pub mod encode;
pub mod id_bloom;
pub mod options;
pub mod policy;
pub mod sink;
pub mod source_reader;
