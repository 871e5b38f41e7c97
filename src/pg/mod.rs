//! PostgreSQL: the only home of unsafe code. One topic a file; each implements a trait of `op` or answers one question of
//! `api`. Everything here runs on the main thread.

pub mod argument;
pub mod attempt;
pub mod batch_rows;
pub mod careful;
pub mod checked;
pub mod compat;
pub mod compression;
pub mod create;
pub mod diagnostics;
pub mod eligible;
pub mod entries;
pub mod ephemeral;
pub mod general;
pub mod heap;
pub mod journal;
pub mod lifecycle;
pub mod memory;
pub mod nested;
pub mod printer;
pub mod progress;
pub mod report;
pub mod role;
pub mod rows;
pub mod sequence;
pub mod setting;
pub mod sink;
pub mod spool;
pub mod stage;
pub mod straight;
pub mod table;
pub mod update;
pub mod upsert;
pub mod values;
pub mod wait;
