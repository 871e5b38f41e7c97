//! Object stores: one trait, and S3, Azure, Google and a directory behind it.

pub mod aws_default_credentials;
pub mod azure;
pub mod directory;
pub mod gcs;
pub mod object_store;
pub mod s3;
mod s3_signer;
#[cfg(test)]
pub mod suite;
pub mod upload_parts;
