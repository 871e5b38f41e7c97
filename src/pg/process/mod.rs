//! Background processes: how they start, at commit or at once, what they run in, and one snapshot for several of them. What they work on is stored by `state`.
//! `transaction` runs a worker's transactions, each as the job's role, which nothing that it calls can leave.

pub mod background;
pub mod backlog;
pub mod exported_snapshot;
pub mod held_locks;
pub mod launcher;
pub mod load_threads;
pub mod transaction;
