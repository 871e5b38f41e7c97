//! A worker's life: one job, part by part, then whatever else waits.

use super::plan::{Import, Plan, Work};
use super::{import, validate};
use crate::error::Error;
use crate::pg::attempt::Failure;
use crate::pg::background::{self, Launch};
use crate::pg::jobs::{self, Job, Part};
use crate::pg::lock::Lock;
use crate::pg::{lifecycle, setting, transaction};

/// Times that a step is tried again when what failed may pass.
const TRIES: u32 = 5;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// The part is done.
    Done,
    /// The part is done, and it is written down.
    Ended,
    /// Nobody wants it any more.
    Unwanted,
    /// It ends here: more resources are invalid than was asked to bear.
    TooMany(u64),
}

/// The whole of it. What ends it early goes to the server's log, as an error that ends the process.
pub fn main() {
    match background::enter().map_err(Failure::Ours).and_then(run) {
        Ok(()) | Err(Failure::Ours(Error::Gone)) => {}
        Err(failure) => failure.raise(),
    }
}

/// The job that a worker is started for, then others of the same session's role that wait: the server gives this process's place to no other
/// before it ends. A job that has ended, or is gone, is no error.
fn run(launch: Launch) -> Result<(), Failure> {
    let place = transaction::run(None, || Ok((0..setting::max_workers()).map(Lock::Place).find(|place| place.take())))?;
    let Some(place) = place else { return Ok(()) };
    let mut done = Vec::new();
    let mut next = Some(launch.job);
    while let Some(number) = next {
        if let Some(job) = transaction::run(None, || jobs::open(number))? {
            attend(&job)?;
        }
        done.push(number);
        next = transaction::run(None, || jobs::next(launch.session_role, &done))?;
    }
    transaction::run(None, || {
        place.release();
        jobs::start_waiting()
    })
}

/// Works on a job, whose lock says so.
fn attend(job: &Job) -> Result<(), Failure> {
    if !transaction::run(None, || Ok(Lock::Job(job.number).take()))? {
        return Ok(());
    }
    lifecycle::stop_threads_at_exit();
    work(job)?;
    transaction::run(None, || {
        Lock::Job(job.number).release();
        Ok(())
    })
}

fn work(job: &Job) -> Result<(), Failure> {
    let plan = match Plan::from_json(job.plan.clone()) {
        Ok(plan) => plan,
        Err(error) => return transaction::run(None, || jobs::fail(job, &error.to_string())),
    };
    transaction::run(None, || {
        setting::take_over(&plan.settings);
        Ok(())
    })?;
    if let Work::Import(import) = &plan.work
        && import.transaction
    {
        return all_at_once(job, import);
    }
    while let Some(mut part) = transaction::run(None, || if jobs::is_wanted(job)? { jobs::claim(job) } else { Ok(None) })? {
        background::report_activity(Some(&jobs::activity(job, &part)));
        let done = do_part(job, &plan, &mut part);
        background::report_activity(None);
        let ended = match done {
            Ok(Step::Done | Step::More) => transaction::run(None, || jobs::end_part(&part, None)),
            Ok(Step::TooMany(most)) => {
                transaction::run(None, || jobs::end_part(&part, Some(&format!("more than {most} resources are invalid"))))
            }
            Ok(Step::Ended | Step::Unwanted) => Ok(()),
            Err(Failure::Ours(Error::Gone)) => return Err(Failure::Ours(Error::Gone)),
            Err(failure) => {
                let message = failure.message();
                // Whoever cancels the job interrupts it.
                let failed = transaction::run(None, || {
                    let wanted = jobs::is_wanted(job)?;
                    if wanted { jobs::end_part(&part, Some(&message)).map(|()| true) } else { Ok(false) }
                })?;
                if failed {
                    background::log(format!("job {} of bulk failed on {}", job.id, part.source));
                }
                Ok(())
            }
        };
        transaction::run(None, || {
            Lock::Part(part.number).release();
            Ok(())
        })?;
        ended?;
    }
    transaction::run(None, || jobs::end(job))
}

/// A job that is one transaction: one worker does it, from the beginning.
fn all_at_once(job: &Job, import: &Import) -> Result<(), Failure> {
    let Some(mut parts) = transaction::run(None, || jobs::claim_all(job))? else { return Ok(()) };
    let mut tries = 0;
    let failed = loop {
        match import::run::together(job, import, &mut parts) {
            Ok(_) => break None,
            Err((_, Failure::Ours(Error::Gone))) => return Err(Failure::Ours(Error::Gone)),
            Err((_, failure)) if failure.may_pass() && tries < TRIES => tries += 1,
            Err((at, failure)) => break Some((at, failure)),
        }
        parts.iter_mut().for_each(|part| part.progress = jobs::Progress::default());
    };
    transaction::run(None, || {
        if let Some((at, failure)) = failed
            && jobs::is_wanted(job)?
        {
            for (index, part) in parts.iter().enumerate() {
                let message = if at == Some(index) { failure.message() } else { "rolled back: another input failed".to_owned() };
                jobs::end_part(part, Some(&message))?;
            }
        }
        parts.iter().for_each(|part| Lock::Part(part.number).release());
        jobs::end(job)
    })
}

fn do_part(job: &Job, plan: &Plan, part: &mut Part) -> Result<Step, Failure> {
    if let Work::Import(import) = &plan.work {
        background::reload_configuration();
        return import::run::input(job, import, part);
    }
    let mut tries = 0;
    loop {
        background::reload_configuration();
        let before = part.position;
        let stepped = transaction::run(job.role, || {
            if job.role.is_none() {
                return Err(Error::NoRole);
            }
            if !jobs::is_wanted(job)? {
                return Ok(Step::Unwanted);
            }
            match &plan.work {
                Work::Validate(request) => validate::step(job, *request, part),
                Work::Import(_) => Ok(Step::Done),
            }
        });
        match stepped {
            Ok(Step::More) => tries = 0,
            Err(failure) if failure.may_pass() && tries < TRIES => {
                tries += 1;
                part.position = before;
            }
            ended => return ended,
        }
    }
}
