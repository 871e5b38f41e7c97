//! A worker's life: one job, part by part, then whatever else waits.

use crate::error::Error;
use crate::job::plan::{Import, Plan, Work};
use crate::job::record::note;
use crate::job::step::Step;
use crate::job::{bucket, export, import, slot, validate};
use crate::pg::attempt::Failure;
use crate::pg::background::{self, Launch};
use crate::pg::jobs::entry::{self, Job};
use crate::pg::jobs::start;
use crate::pg::lock::Lock;
use crate::pg::part::{Part, Progress};
use crate::pg::{claim, parts};
use crate::pg::{launcher, lifecycle, setting, transaction};

/// Times that a step is tried again when what failed may pass.
const TRIES: u32 = 5;

/// The whole of it. What ends it early goes to the server's log, without what a resource says.
pub fn main() {
    let launch = background::enter();
    match run(launch) {
        Ok(()) | Err(Failure::Ours(Error::Gone)) => {}
        Err(failure) => {
            let what = match failure {
                Failure::Ours(error) => crate::pg::report::told(&error),
                Failure::Server { sqlstate, .. } => format!("SQLSTATE {}", crate::pg::report::sqlstate(sqlstate)),
            };
            background::log(format!("a worker of bulk failed: {what}"));
        }
    }
}

/// Jobs that one process does at most: others' turn comes.
const MOST_JOBS: usize = 20;

/// The job that a worker is started for, then others of the same roles that wait: the server gives this process's place to no other before it
/// ends. A job that has ended, or is gone, is no error.
fn run(launch: Launch) -> Result<(), Failure> {
    if matches!(launch.job, launcher::RESUME | launcher::START) {
        if launch.job == launcher::RESUME {
            note(start::resume_all)?;
        }
        return note(start::start_waiting);
    }
    if !slot::take_place()? {
        return Ok(());
    }
    let worked = work_on(launch);
    slot::leave_place()?;
    worked
}

fn work_on(launch: Launch) -> Result<(), Failure> {
    let mut done = Vec::new();
    let mut next = Some(launch.job);
    while let Some(number) = next {
        let job = note(|| entry::open(number))?;
        next = None;
        if let Some(job) = job {
            attend(&job, !done.is_empty())?;
            background::forget_cancel();
            done.push(number);
            if let Some(role) = job.role
                && done.len() < MOST_JOBS
                && slot::has_place()
            {
                next = note(|| start::next(launch.session_role, role, &done))?;
            }
        }
    }
    Ok(())
}

/// Works on a job, whose lock says so.
fn attend(job: &Job, after_another: bool) -> Result<(), Failure> {
    if !note(|| Ok(Lock::Job(job.number).take()))? {
        return Ok(());
    }
    lifecycle::stop_threads_at_exit();
    // Whoever comes when enough are at it leaves again.
    let seats = job.threads.and_then(|threads| u32::try_from(threads).ok()).unwrap_or(1);
    let seat = match job.threads {
        Some(_) => note(|| Ok((0..seats).map(|seat| Lock::Seat(job.number, seat)).find(|seat| seat.take())))?,
        None => None,
    };
    let worked = if seat.is_some() || job.threads.is_none() { work(job, after_another) } else { Ok(()) };
    note(|| {
        seat.into_iter().for_each(Lock::release);
        Lock::Job(job.number).release();
        Ok(())
    })?;
    worked
}

fn work(job: &Job, after_another: bool) -> Result<(), Failure> {
    let plan = match Plan::from_json(job.plan.clone()) {
        Ok(plan) => plan,
        Err(error) => return note(|| entry::fail(job, &error.to_string())),
    };
    let taken_over = transaction::run(None, || {
        setting::take_over(&plan.settings);
        setting::lift_timeouts();
        Ok(())
    });
    if let Err(failure) = taken_over {
        return match failure {
            Failure::Ours(Error::Gone) => Err(failure),
            failure => note(|| entry::fail(job, &failure.message())),
        };
    }
    if let Work::Import(import) = &plan.work
        && import.transaction
    {
        return all_at_once(job, import);
    }
    let mut memory = export::part::Memory::default();
    while let Some(mut part) = note(|| if entry::is_wanted(job)? { claim::claim(job) } else { Ok(None) })? {
        background::report_activity(Some(&entry::activity(job, &part)));
        let done = do_part(job, &plan, &mut part, &mut memory, after_another);
        background::report_activity(None);
        let ended = match done {
            Ok(Step::Done | Step::More) => note(|| parts::end(&part, None)),
            Ok(Step::TooMany(most)) => note(|| parts::end(&part, Some(&format!("more than {most} resources are invalid")))),
            Ok(Step::Ended | Step::Unwanted) => Ok(()),
            Err(Failure::Ours(Error::Gone)) => return Err(Failure::Ours(Error::Gone)),
            Err(failure) => {
                let message = failure.message();
                // Whoever cancels the job interrupts it.
                let failed = note(|| {
                    let wanted = entry::is_wanted(job)?;
                    if wanted { parts::end(&part, Some(&message)).map(|()| true) } else { Ok(false) }
                })?;
                if failed {
                    background::log(format!("job {} of bulk failed on {}", job.id, part.source));
                }
                Ok(())
            }
        };
        note(|| {
            Lock::Part(part.number).release();
            Ok(())
        })?;
        ended?;
    }
    note(|| entry::end(job))
}

/// A job that is one transaction: one worker does it, from the beginning.
fn all_at_once(job: &Job, import: &Import) -> Result<(), Failure> {
    let Some(mut parts) = note(|| claim::claim_all(job))? else { return note(|| entry::end(job)) };
    if let Some(first) = parts.first() {
        background::report_activity(Some(&entry::activity(job, first)));
    }
    let mut tries = 0;
    let failed = loop {
        match import::run::together(job, import, &mut parts) {
            Ok(_) => break None,
            Err((_, Failure::Ours(Error::Gone))) => return Err(Failure::Ours(Error::Gone)),
            Err((_, failure)) if failure.may_pass() && tries < TRIES => tries += 1,
            Err((at, failure)) => break Some((at, failure)),
        }
        parts.iter_mut().for_each(|part| part.progress = Progress::default());
    };
    background::report_activity(None);
    let noted = note(|| {
        if let Some((at, failure)) = &failed
            && entry::is_wanted(job)?
        {
            for (index, part) in parts.iter().enumerate() {
                let message = if *at == Some(index) { failure.message() } else { "rolled back: another input failed".to_owned() };
                parts::end(part, Some(&message))?;
            }
        }
        entry::end(job)
    });
    note(|| {
        parts.iter().for_each(|part| Lock::Part(part.number).release());
        Ok(())
    })?;
    noted
}

fn do_part(job: &Job, plan: &Plan, part: &mut Part, memory: &mut export::part::Memory, after_another: bool) -> Result<Step, Failure> {
    background::reload_configuration();
    match &plan.work {
        _ if part.phase > 0 => return bucket::run::index(job, part),
        Work::Import(import) => return import::run::input(job, import, part),
        Work::Bucket(load) => return bucket::run::file(job, load, part),
        Work::Export(work) if part.task.as_deref() == Some("snapshot") => return export::keeper::keep(job, work, part),
        Work::Export(work) => return export::part::write(job, work, part, memory),
        Work::Cleanup(work) => return export::cleanup::work(job, work),
        Work::Validate(_) => {}
    }
    let (mut tries, mut cancels) = (0, u32::from(after_another));
    loop {
        background::reload_configuration();
        let before = part.clone();
        let stepped = transaction::run(job.role, || {
            if job.role.is_none() {
                return Err(Error::NoRole);
            }
            if !entry::is_wanted(job)? {
                return Ok(Step::Unwanted);
            }
            match &plan.work {
                Work::Validate(request) => validate::step(job, *request, part),
                Work::Import(_) | Work::Bucket(_) | Work::Export(_) | Work::Cleanup(_) => Ok(Step::Done),
            }
        });
        match stepped {
            Ok(Step::More) => tries = 0,
            Err(failure) if failure.may_pass() && tries < TRIES => {
                tries += 1;
                *part = before;
            }
            // It may have been meant for the job before.
            Err(failure) if failure.is_cancel() && cancels > 0 => {
                cancels -= 1;
                *part = before;
            }
            ended => return ended,
        }
    }
}
