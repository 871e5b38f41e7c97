//! The extension's own tables: jobs and their tasks, rejected lines, files of buckets, exports, disabled indexes, accounts. Only it writes them, as their owner.

pub mod disabled_index;
pub mod enums;
pub mod export_run;
pub mod job;
pub mod job_control;
pub mod job_report;
pub mod load_error;
pub mod loader_file;
pub mod scheduler;
pub mod staging_policy;
pub mod storage_account;
pub mod task;
pub mod task_claim;
pub mod task_progress;
pub mod worker_start;
