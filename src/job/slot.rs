//! The place of `bulk.max_workers` that a worker has while it works.

use crate::job::record::record;
use crate::pg::state::scheduler;
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::guc;
use crate::pg::sys::subtransaction::Failure;
use std::cell::Cell;

thread_local! {
    /// The place of `bulk.max_workers` that this process has.
    static PLACE: Cell<Option<Lock>> = const { Cell::new(None) };
}

/// Gives the process's place to another: what it does from here on is no work, or it ends.
///
/// # Errors
/// As `record`.
pub fn leave_place() -> Result<(), Failure> {
    record(|| {
        PLACE.take().into_iter().for_each(Lock::release);
        scheduler::start_waiting()
    })
}

/// Takes a free place; false when there is none.
///
/// # Errors
/// As `record`.
pub fn take_place() -> Result<bool, Failure> {
    let place = record(|| Ok((0..guc::max_workers()).map(Lock::WorkerSlot).find(|place| place.take())))?;
    PLACE.set(place);
    Ok(place.is_some())
}

/// Whether this process has a place.
pub fn has_place() -> bool {
    PLACE.get().is_some()
}
