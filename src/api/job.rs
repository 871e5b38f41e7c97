//! What can be done with any job: cancel it, wait for it, go on with it.

use crate::error::Error;
use crate::operation::export::cleanup;
use crate::pg::state::enums::State;
use crate::pg::state::{job, job_control, scheduler};
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, guc, latch, random, sqlstate};
use pgrx::datum::Interval;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// Between two looks at a job: a fiftieth of the time that it has been waited for, within these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// Between two tries to start what waits.
const KICK: Duration = Duration::from_secs(1);

/// `bulk_internal.database_identity`.
#[pg_extern(sql = false)]
fn database_identity(_version: Matched) -> String {
    job::database_identity()
}

/// `bulk_internal.random_number`.
#[pg_extern(sql = false)]
fn random_number(_version: Matched) -> i64 {
    random::number()
}

/// `bulk_internal.lock_class`; null for an unknown name.
#[pg_extern(sql = false)]
fn lock_class(_version: Matched, what: &str) -> Option<i32> {
    Lock::class(what)
}

/// `bulk_internal.max_workers_per_role`.
#[pg_extern(sql = false)]
fn max_workers_per_role(_version: Matched) -> i32 {
    i32::try_from(guc::max_workers_per_role()).unwrap_or(i32::MAX)
}

/// `bulk_internal.committed_state`; null where there is no such job.
#[pg_extern(sql = false)]
fn committed_state(_version: Matched, number: i64) -> Option<&'static str> {
    sqlstate::ok(job::committed_state(number)).map(State::word)
}

#[pg_extern(sql = false)]
fn cancel(_version: Matched, id: &str) -> bool {
    backend::require_writable(c"bulk.cancel");
    let end = || {
        let cancelled = job_control::cancel(id)?;
        if cancelled {
            cleanup::order_after(id)?;
        }
        Ok(cancelled)
    };
    sqlstate::ok(end())
}

#[pg_extern(sql = false)]
fn purge_jobs(_version: Matched, older_than: Option<Interval>) -> i64 {
    backend::require_writable(c"bulk.purge_jobs");
    sqlstate::ok(job_control::purge(older_than.unwrap_or_else(guc::keep_jobs)))
}

#[pg_extern(sql = false)]
fn resume_interrupted(_version: Matched) -> SetOfIterator<'static, String> {
    backend::require_writable(c"bulk.resume_interrupted");
    let resumed = sqlstate::ok(scheduler::start_waiting().and_then(|_| scheduler::resume_interrupted()));
    SetOfIterator::new(resumed)
}

#[pg_extern(sql = false, name = "wait")]
fn wait_for(_version: Matched, id: Option<&str>, timeout: Option<Interval>) -> &'static str {
    // Of a standby's jobs the workers are elsewhere.
    backend::require_primary(c"bulk.wait");
    let id = sqlstate::ok(id.ok_or(Error::Null("id")));
    let patience = timeout.map(|timeout| {
        let microseconds = timeout.as_micros();
        Duration::from_micros(u64::try_from(microseconds.max(0)).unwrap_or(u64::MAX))
    });
    sqlstate::ok(wait_for_end(id, patience)).word()
}

fn wait_for_end(id: &str, patience: Option<Duration>) -> Result<State, Error> {
    latch::require_fresh_snapshots()?;
    let began = Instant::now();
    let mut kick = began;
    loop {
        let standing = job_control::standing(id)?;
        if !standing.state.is_open() {
            return Ok(standing.state);
        }
        if standing.is_ours {
            return Err(Error::NotCommitted(id.to_owned()));
        }
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(standing.state);
        }
        if standing.state == State::Waiting && kick.elapsed() >= KICK {
            kick = Instant::now();
            scheduler::start_waiting()?;
        }
        let pause = (began.elapsed() / 50).clamp(PAUSE.0, PAUSE.1);
        latch::pause(left.map_or(pause, |left| left.min(pause)));
    }
}
