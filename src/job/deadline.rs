//! The end of the time that `bulk.job_timeout` gives a job.

use crate::error::Error;
use crate::pg::process::background;
use crate::pg::state::enums::JobKind;
use crate::pg::state::job::Job;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{guc, timer};
use std::time::{Duration, Instant};

/// When a job has been at work for as long as it may.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    /// For work that is never given up: what it repairs would stay broken.
    pub const NONE: Deadline = Deadline(None);

    /// That of a job, by the settings of this process.
    pub fn of(job: &Job) -> Deadline {
        match guc::job_timeout() {
            Some(limit) if !matches!(job.kind, JobKind::Cleanup | JobKind::Indexes) => {
                Deadline(Some((Instant::now() + limit.saturating_sub(job.at_work), limit)))
            }
            _ => Deadline::NONE,
        }
    }

    /// Does work that a cancel ends at the deadline.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some((end, _)) = self.0 else { return work() };
        timer::cancel_after(end.saturating_duration_since(Instant::now()));
        let done = work();
        timer::disarm();
        if self.has_passed() {
            background::forget_cancel();
        }
        done
    }

    /// Whether a failure is that cancel.
    pub fn is_met(&self, failure: &Failure) -> bool {
        failure.is_cancel() && self.has_passed()
    }

    /// What is said of the job.
    pub fn error(&self) -> Error {
        Error::JobTimeout(self.0.map_or(0, |(_, limit)| limit.as_secs()))
    }

    fn has_passed(&self) -> bool {
        self.0.is_some_and(|(end, _)| Instant::now() >= end)
    }
}
