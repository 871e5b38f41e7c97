//! What can be done with any job: cancel it, wait for it, go on with it.

use crate::error::Error;
use crate::operation::export::cleanup;
use crate::pg::state::{job, job_control, scheduler};
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, latch, sqlstate};
use pgrx::datum::Interval;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// Between two looks at a job: a fiftieth of the time that it has been waited for, within these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// Between two tries to start what waits.
const KICK: Duration = Duration::from_secs(1);

/// What the view of jobs compares.
#[pg_extern(sql = false)]
fn database_identity(_version: Matched) -> String {
    job::database_identity()
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
fn resume_interrupted(_version: Matched) -> SetOfIterator<'static, String> {
    backend::require_writable(c"bulk.resume_interrupted");
    let resumed = sqlstate::ok(scheduler::start_waiting().and_then(|()| scheduler::resume_interrupted()));
    SetOfIterator::new(resumed)
}

#[pg_extern(sql = false, name = "wait")]
fn wait_for(_version: Matched, id: Option<&str>, timeout: Option<Interval>) -> String {
    // Of a standby's jobs the workers are elsewhere.
    backend::require_primary(c"bulk.wait");
    let id = sqlstate::ok(id.ok_or(Error::Null("id")));
    let patience = timeout.map(|timeout| {
        let microseconds = timeout.as_micros();
        Duration::from_micros(u64::try_from(microseconds.max(0)).unwrap_or(u64::MAX))
    });
    sqlstate::ok(wait_for_end(id, patience))
}

fn wait_for_end(id: &str, patience: Option<Duration>) -> Result<String, Error> {
    latch::require_fresh_snapshots()?;
    let began = Instant::now();
    let mut kick = began;
    loop {
        let standing = job_control::standing(id)?;
        if !matches!(standing.state.as_str(), "waiting" | "in-progress") {
            return Ok(standing.state);
        }
        if standing.is_ours {
            return Err(Error::NotCommitted(id.to_owned()));
        }
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(standing.state);
        }
        if standing.state == "waiting" && kick.elapsed() >= KICK {
            kick = Instant::now();
            scheduler::start_waiting()?;
        }
        let pause = (began.elapsed() / 50).clamp(PAUSE.0, PAUSE.1);
        latch::pause(left.map_or(pause, |left| left.min(pause)));
    }
}
