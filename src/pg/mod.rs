//! PostgreSQL: the only home of unsafe code. One topic a file; each implements a trait of `op` or answers one question of
//! `api`. Everything here runs on the main thread.

pub mod compat;
pub mod create;
pub mod diagnostics;
pub mod eligible;
pub mod fast;
pub mod general;
pub mod lifecycle;
pub mod memory;
pub mod report;
pub mod role;
pub mod rows;
pub mod setting;
pub mod table;
pub mod upsert;
pub mod wait;
