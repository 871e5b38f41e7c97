//! Background processes: how they start, at commit or at once, what they run in, and one snapshot for several of them. What they work on is stored by `state`.

pub mod background;
pub mod backlog;
pub mod exported_snapshot;
pub mod launcher;
pub mod transaction;
