//! Waiting on the main thread: for a thread's event, a signal's latch and the postmaster's death together, without ticks.

use crate::op::Control;
use pgrx::pg_sys;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The backend itself.
#[derive(Debug)]
pub struct Backend;

impl Control for Backend {
    fn wait(&mut self, event: BorrowedFd) {
        let wanted = pg_sys::WL_LATCH_SET | pg_sys::WL_SOCKET_READABLE | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: reads a backend variable, set for the whole life of the backend.
        let latch = unsafe { pg_sys::MyLatch };
        // SAFETY: the latch is this process's own; the descriptor is open for the call; an eventfd can be polled like a socket.
        let happened = unsafe { pg_sys::WaitLatchOrSocket(latch, wanted as i32, event.as_raw_fd(), -1, pg_sys::PG_WAIT_EXTENSION) };
        if happened & pg_sys::WL_LATCH_SET as i32 != 0 {
            // SAFETY: this process's own latch.
            unsafe { pg_sys::ResetLatch(latch) };
        }
        pgrx::check_for_interrupts!();
    }
}
