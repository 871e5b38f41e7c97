//! Threads and bounded queues, without a database: what runs beside the main thread, in which order results come back, what bounds the memory, and
//! pieces of output, gzipped on demand (`output_block`); a set of rows is made of them, in chunks of 64 KiB, by `pg::sys::srf_result`.

pub mod blocking;
pub mod dump;
pub mod load;
pub mod ordered_queue;
#[cfg(test)]
mod ordered_queue_tests;
pub mod output_block;
pub mod parallel_map;
pub mod thread_group;
pub mod uploader;
pub mod validate_rows;
pub mod wait_control;

/// What `ordered_queue` locks with: its tests take another.
mod sync {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}
