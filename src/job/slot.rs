//! The place that a worker has while it works: one of `bulk.max_workers`, and one of its role's share of them. Places go by turns: where all are
//! taken, a role that has several makes room for one that has none.

use crate::job::record::record;
use crate::pg::state::scheduler;
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::subtransaction::{self, Failure};
use crate::pg::sys::switch_user::Role;
use crate::pg::sys::{guc, latch};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a worker works, a task at least, before it looks for others whose turn it is.
const TURN: Duration = Duration::from_secs(1);

/// What this process holds of `bulk.max_workers` and of its role's share.
#[derive(Debug, Clone, Copy)]
struct HeldSlots {
    role: Role,
    locks: [Lock; 2],
    /// When it was taken, or others were last looked for.
    looked: Instant,
}

thread_local! {
    static PLACE: Cell<Option<HeldSlots>> = const { Cell::new(None) };
}

/// How long a process that made room sees to it that the other's worker comes, and between two looks.
const HANDOVER: Duration = Duration::from_secs(2);
const HANDOVER_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Gives the process's place to another: what it does from here on is no work, or it ends. How many workers it started for others.
///
/// # Errors
/// As `record`.
pub fn leave_place() -> Result<usize, Failure> {
    record(|| {
        PLACE.take().into_iter().flat_map(|place| place.locks).for_each(Lock::release);
        Ok(())
    })?;
    start_others()
}

/// Starts workers for what waits, and writes down whose turn it was.
///
/// # Errors
/// As `record`.
pub fn start_others() -> Result<usize, Failure> {
    record(|| {
        let started = scheduler::start_waiting()?;
        if !started.is_empty() {
            scheduler::record_turns(&started)?;
        }
        Ok(started.len())
    })
}

/// Stays until the worker for which this process made room had time to come: should it not, another's turn comes.
///
/// # Errors
/// As `record`.
pub fn hand_over() -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < HANDOVER {
        subtransaction::outside(|| {
            latch::pause(HANDOVER_POLL_INTERVAL);
            Ok(())
        })?;
        start_others()?;
    }
    Ok(())
}

/// Takes a free place for a role; false when there is none, or the role has its share.
///
/// # Errors
/// As `record`.
pub fn take_place(role: Role) -> Result<bool, Failure> {
    let locks = record(|| {
        let Some(own) = (0..guc::max_workers_per_role()).map(|slot| Lock::RoleSlot(role, slot)).find(|slot| slot.take()) else {
            return Ok(None);
        };
        match (0..guc::max_workers()).map(Lock::WorkerSlot).find(|slot| slot.take()) {
            Some(slot) => Ok(Some([own, slot])),
            None => {
                own.release();
                Ok(None)
            }
        }
    })?;
    PLACE.set(locks.map(|locks| HeldSlots { role, locks, looked: Instant::now() }));
    Ok(locks.is_some())
}

/// Whether this process has a place.
pub fn has_place() -> bool {
    PLACE.get().is_some()
}

/// Whether this process is to leave its place to another role.
///
/// # Errors
/// As `record`.
pub fn is_others_turn() -> Result<bool, Failure> {
    match PLACE.get() {
        Some(place) if place.looked.elapsed() >= TURN => {
            let is_theirs = record(|| scheduler::is_others_turn(place.role))?;
            if !is_theirs {
                PLACE.set(Some(HeldSlots { looked: Instant::now(), ..place }));
            }
            Ok(is_theirs)
        }
        _ => Ok(false),
    }
}
