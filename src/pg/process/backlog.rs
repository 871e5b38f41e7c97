//! Databases that have jobs for which the server had no room: in shared memory, for the launcher to look after. Only where the library is preloaded.

use crate::pg::sys::latch;
use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::shmem::PGRXSharedMemory;
use pgrx::{pg_shmem_init, pg_sys};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

/// Databases that are remembered.
const MAX_DATABASES: usize = 64;
/// Shared by all processes.
#[derive(Clone, Copy)]
pub struct Backlog {
    /// The launcher's process; 0 before there is one.
    launcher: c_int,
    /// Databases with jobs that wait for room.
    databases: [u32; MAX_DATABASES],
    count: usize,
}

impl Default for Backlog {
    fn default() -> Backlog {
        Backlog { launcher: 0, databases: [0; MAX_DATABASES], count: 0 }
    }
}

// SAFETY: plain numbers.
unsafe impl PGRXSharedMemory for Backlog {}

// SAFETY: nothing else has this name.
static WAITING: PgLwLock<Backlog> = unsafe { PgLwLock::new(c"bulk waiting") };
static IS_THERE: AtomicBool = AtomicBool::new(false);

/// While the server loads its libraries: asks for the memory.
pub fn register() {
    pg_shmem_init!(WAITING);
    IS_THERE.store(true, Ordering::Relaxed);
}

/// Remembers the launcher's process, which is this one.
pub fn begin() {
    // SAFETY: reads a variable of the process.
    WAITING.exclusive().launcher = unsafe { pg_sys::MyProcPid };
}

/// The databases that are remembered.
pub fn databases() -> Vec<pg_sys::Oid> {
    let waiting = *WAITING.share();
    waiting.databases[..waiting.count].iter().map(|&database| pg_sys::Oid::from(database)).collect()
}

/// Remembers that this database has jobs for which the server had no room, and has the launcher look. Allocates nothing.
pub fn add(database: pg_sys::Oid) {
    if !IS_THERE.load(Ordering::Relaxed) {
        return;
    }
    let mut waiting = WAITING.exclusive();
    let (count, number) = (waiting.count, database.to_u32());
    if !waiting.databases[..count].contains(&number) && count < MAX_DATABASES {
        waiting.databases[count] = number;
        waiting.count += 1;
    }
    let launcher = waiting.launcher;
    drop(waiting);
    latch::wake(launcher);
}

/// The opposite of `add`.
pub fn forget(database: pg_sys::Oid) {
    if !IS_THERE.load(Ordering::Relaxed) {
        return;
    }
    let mut waiting = WAITING.exclusive();
    let count = waiting.count;
    if let Some(place) = waiting.databases[..count].iter().position(|&known| known == database.to_u32()) {
        waiting.databases.copy_within(place + 1..count, place);
        waiting.count -= 1;
    }
}
