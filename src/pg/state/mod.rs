//! The extension's own tables: jobs and their tasks, rejected lines, files of buckets, exports, disabled indexes, accounts. Only it writes them, as their owner.
//!
//! `scheduler` decides whether a worker is due for jobs that wait, `worker_start` only starts it; `load_error` keeps rejected lines; `task_claim` gives it a task, `task_progress` records how
//! far it is. `disabled_index` also drops the indexes and makes them again, as the owner of their table. The state `interrupted` is never stored: SQL
//! shows it (`bulk_internal.seen_state` in `sql/install/20_job.sql`) for what is in progress and whose worker's lock is gone.

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
