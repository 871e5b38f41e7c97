//! Durable work: jobs that background workers do, part by part, each step with what it leaves behind in one transaction.

pub mod answer;
pub mod bucket;
mod counting;
pub mod export;
pub mod import;
pub mod patience;
pub mod plan;
pub mod record;
pub mod slot;
pub mod step;
pub mod storage;
pub mod validate;
pub mod worker;
