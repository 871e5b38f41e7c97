//! Loads of buckets, the indexes that they take off, and the stores.

mod disabled_indexes;
mod files;
mod stores;
