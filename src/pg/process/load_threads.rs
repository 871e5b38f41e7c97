//! How many threads turn lines into rows during a load. `bulk.max_load_threads` bounds those of the whole server, by advisory locks, which are gone
//! with the process however it ends. A load that finds none left has one all the same.

use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::guc;
use std::cell::OnceCell;

/// Threads that a load in a session has until it gives them back; an ERROR gives them back too.
#[derive(Debug)]
pub struct LoadThreads(Vec<Lock>);

impl LoadThreads {
    /// As many as a load has, and there are.
    pub fn take() -> LoadThreads {
        LoadThreads(slots(Lock::take_for_transaction))
    }

    /// At least one.
    pub fn count(&self) -> usize {
        self.0.len().max(1)
    }

    /// Leaves them to others.
    pub fn give_back(self) {
        self.0.into_iter().for_each(Lock::release_in_transaction);
    }
}

/// Those of a background worker, which has them to its end.
pub fn of_worker() -> usize {
    thread_local! {
        static COUNT: OnceCell<usize> = const { OnceCell::new() };
    }
    COUNT.with(|count| *count.get_or_init(|| slots(Lock::take).len().max(1)))
}

fn slots(take: fn(Lock) -> bool) -> Vec<Lock> {
    (0..guc::max_load_threads()).map(Lock::LoadThread).filter(|slot| take(*slot)).take(guc::encode_threads()).collect()
}
