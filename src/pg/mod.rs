//! PostgreSQL: the only home of unsafe code and, with `lib` and `api`, of pgrx. Everything here runs on the main thread of a backend. Rooms from the ground up:
//! `sys`, `catalog`, `process`, `state`, then `read` and `write`.

pub mod catalog;
pub mod process;
pub mod read;
pub mod state;
pub mod sys;
pub mod write;
