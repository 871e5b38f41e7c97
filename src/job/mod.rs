//! The job machine: a worker's loop, its place among `bulk.max_workers` (`slot`), when it tries again, when it stops (`deadline`: `bulk.job_timeout`). It knows no verb: what a task takes is done by `operation`,
//! and how jobs are stored by `pg::state`.

pub mod cancel;
pub mod deadline;
pub mod record;
pub mod retry;
pub mod slot;
pub mod spec;
pub mod step;
pub mod worker;
