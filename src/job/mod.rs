//! Durable work: jobs that background workers do, part by part, each step with what it leaves behind in one transaction.

pub mod access;
pub mod answer;
pub mod bucket;
pub mod cancel;
mod counting;
pub mod export;
pub mod import;
pub mod plan;
pub mod record;
pub mod retry;
pub mod slot;
pub mod step;
pub mod storage;
pub mod told;
pub mod validate;
pub mod worker;
