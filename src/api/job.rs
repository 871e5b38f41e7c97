//! What can be done with any job: cancel it, wait for it, go on with it.

use crate::error::Error;
use crate::job::export::cleanup;
use crate::pg::jobs::{act, entry, start};
use crate::pg::version::Matched;
use crate::pg::{lifecycle, report, wait};
use pgrx::datum::Interval;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// Between two looks at a job: a fiftieth of the time that it has been waited for, within these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// Between two tries to start what waits.
const KICK: Duration = Duration::from_secs(1);

/// What the view of jobs compares.
#[pg_extern(sql = false)]
fn origin(_version: Matched) -> String {
    entry::origin()
}

#[pg_extern(sql = false)]
fn cancel(_version: Matched, id: &str) -> bool {
    lifecycle::require_writable(c"bulk.cancel");
    let end = || {
        let cancelled = act::cancel(id)?;
        if cancelled {
            cleanup::order_after(id)?;
        }
        Ok(cancelled)
    };
    report::ok(end())
}

#[pg_extern(sql = false)]
fn resume_interrupted(_version: Matched) -> SetOfIterator<'static, String> {
    lifecycle::require_writable(c"bulk.resume_interrupted");
    let resumed = report::ok(start::start_waiting().and_then(|()| start::resume_interrupted()));
    SetOfIterator::new(resumed)
}

#[pg_extern(sql = false, name = "wait")]
fn wait_for(_version: Matched, id: Option<&str>, timeout: Option<Interval>) -> String {
    // Of a standby's jobs the workers are elsewhere.
    lifecycle::require_primary(c"bulk.wait");
    let id = report::ok(id.ok_or(Error::Null("id")));
    let patience = timeout.map(|timeout| {
        let microseconds = timeout.as_micros();
        Duration::from_micros(u64::try_from(microseconds.max(0)).unwrap_or(u64::MAX))
    });
    report::ok(stand_by(id, patience))
}

fn stand_by(id: &str, patience: Option<Duration>) -> Result<String, Error> {
    wait::require_fresh_snapshots()?;
    let began = Instant::now();
    let mut kick = began;
    loop {
        let standing = act::standing(id)?;
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
            start::start_waiting()?;
        }
        let pause = (began.elapsed() / 50).clamp(PAUSE.0, PAUSE.1);
        wait::pause(left.map_or(pause, |left| left.min(pause)));
    }
}
