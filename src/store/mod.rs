//! Where bytes live outside the database, and how they come in. Runs on threads of its own; knows nothing of PostgreSQL.

pub mod access;
pub mod account;
pub mod address;
pub mod azure;
pub mod bucket;
mod client;
mod connector;
pub mod directory;
pub mod file;
pub mod gcs;
pub mod http;
pub mod inflate;
pub mod interrupt;
mod machine;
pub mod network;
pub mod opened;
mod parts;
pub mod redact;
pub mod s3;
pub mod source;
pub mod stores;
#[cfg(test)]
mod suite;
