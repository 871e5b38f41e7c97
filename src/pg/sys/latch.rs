//! Waits on the main thread for a thread's event, the process's latch and the postmaster's death together, without polling.

use crate::error::Error;
use crate::pipeline::wait_control::WaitControl;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// The backend itself.
#[derive(Debug)]
pub struct Backend;

impl WaitControl for Backend {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        for_event(event, None);
        Ok(())
    }
}

/// Waits until `event` can be read, or for some time: whether it may be read now. A cancel or a shutdown ends the statement from inside.
pub fn for_event(event: BorrowedFd, patience: Option<Duration>) -> bool {
    let always = pg_sys::WL_LATCH_SET | pg_sys::WL_SOCKET_READABLE | pg_sys::WL_EXIT_ON_PM_DEATH;
    let (wanted, milliseconds) = match patience {
        Some(patience) => (always | pg_sys::WL_TIMEOUT, std::ffi::c_long::try_from(patience.as_millis()).unwrap_or(1000)),
        None => (always, -1),
    };
    // SAFETY: reads a backend variable, set for the whole life of the backend.
    let latch = unsafe { pg_sys::MyLatch };
    // SAFETY: the latch is this process's own; the descriptor is open for the call; an eventfd can be polled like a socket.
    let happened = unsafe { pg_sys::WaitLatchOrSocket(latch, wanted as i32, event.as_raw_fd(), milliseconds, pg_sys::PG_WAIT_EXTENSION) };
    if happened & pg_sys::WL_LATCH_SET as i32 != 0 {
        // SAFETY: this process's own latch, which lives as long as the process.
        unsafe { pg_sys::ResetLatch(latch) };
    }
    pgrx::check_for_interrupts!();
    happened & pg_sys::WL_TIMEOUT as i32 == 0
}

/// Lets time pass. A cancel or a shutdown ends the statement from inside.
pub fn pause(time: Duration) {
    pause_or_wake(Some(time));
}

/// The same, without a time for ever, until somebody wakes this process.
pub fn pause_or_wake(time: Option<Duration>) {
    let always = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
    let (wanted, milliseconds) = match time {
        Some(time) => (always | pg_sys::WL_TIMEOUT, std::ffi::c_long::try_from(time.as_millis().max(1)).unwrap_or(1000)),
        None => (always, -1),
    };
    // SAFETY: reads a backend variable, set for the whole life of the backend.
    let latch = unsafe { pg_sys::MyLatch };
    // SAFETY: the latch is this process's own.
    let happened = unsafe { pg_sys::WaitLatch(latch, wanted as i32, milliseconds, pg_sys::PG_WAIT_EXTENSION) };
    if happened & pg_sys::WL_LATCH_SET as i32 != 0 {
        // SAFETY: this process's own latch, which lives as long as the process.
        unsafe { pg_sys::ResetLatch(latch) };
    }
    pgrx::check_for_interrupts!();
}

/// Refuses a transaction that sees nothing of what others commit while it waits.
///
/// # Errors
/// `FixedSnapshot` (25000).
pub fn require_fresh_snapshots() -> Result<(), Error> {
    // SAFETY: reads a backend variable.
    let level = unsafe { pg_sys::XactIsoLevel };
    if level >= pg_sys::XACT_REPEATABLE_READ as i32 { Err(Error::FixedSnapshot) } else { Ok(()) }
}

/// The entry of a process in shared memory; null when there is none of this number.
pub fn entry(process: c_int) -> *mut pg_sys::PGPROC {
    // SAFETY: any number may be asked for.
    unsafe { pg_sys::BackendPidGetProc(process) }
}

/// Has a process look at what changed, if it is there; another that has its number looks in vain.
pub fn wake(process: c_int) {
    let entry = entry(process);
    if !entry.is_null() {
        // SAFETY: an entry of the shared array, which never goes.
        let latch = unsafe { &raw mut (*entry).procLatch };
        // SAFETY: a latch in shared memory, which is never freed.
        unsafe { pg_sys::SetLatch(latch) };
    }
}
