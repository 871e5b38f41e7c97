//! The loop of a background worker: one job, task by task, then other waiting jobs of the same role.

use crate::error::Error;
use crate::job::deadline::Deadline;
use crate::job::record::record;
use crate::job::spec::JobSpec;
use crate::job::step::Step;
use crate::job::{retry, slot};
use crate::pg::process::background::{self, Launch};
use crate::pg::process::{launcher, transaction};
use crate::pg::state::enums::TaskKind;
use crate::pg::state::job::{self, Job, ROLLED_BACK};
use crate::pg::state::task::{Progress, Task};
use crate::pg::state::{job_control, scheduler, task_claim, task_progress};
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{backend, guc, kept_settings};
use crate::retry::Backoff;

/// What a verb does with the tasks of a job.
pub trait Operation {
    /// Does a task, or a step of it. After a failure, at whatever point, the task can be claimed and done again from what is recorded of it.
    fn task(&mut self, job: &Job, task: &mut Task) -> Result<Step, Failure>;

    /// Records that a task failed, and ends it.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    fn fail(&self, _job: &Job, task: &Task, failure: &Failure) -> Result<(), Error> {
        task_progress::end(task, Some(&failure.message()))
    }

    /// Of a job whose tasks are one transaction: what does them. One worker does it, from the beginning.
    fn as_one_transaction(&self) -> Option<&dyn OneTransaction> {
        None
    }
}

/// Does all tasks of a job in one transaction.
pub trait OneTransaction {
    /// `alone`: while nobody else writes to the tables. A failure comes with the index of the task whose it is, where it is one's.
    fn all(&self, job: &Job, tasks: &mut [Task], alone: bool) -> Result<Step, (Option<usize>, Failure)>;

    /// Records what is wrong in the task that failed, which was taken back with the rest.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    fn record_failure(&self, job: &Job, task: &Task, failure: &Failure) -> Result<(), Error>;
}

/// Finds the verb that a job is of.
pub type Open = fn(&JobSpec) -> Result<Box<dyn Operation>, Error>;

/// The whole of it. What ends it early goes to the server's log, without what a resource says.
pub fn main(open: Open) {
    let launch = background::enter();
    match run(launch, open) {
        Ok(()) | Err(Failure::Ours(Error::ExtensionDropped)) => {}
        Err(failure) => {
            let what = match failure {
                Failure::Ours(error) => crate::pg::sys::sqlstate::message_without_content(&error),
                Failure::Server { sqlstate, .. } => format!("SQLSTATE {}", crate::pg::sys::sqlstate::sqlstate(sqlstate)),
            };
            background::log(format!("a worker of bulk failed: {what}"));
        }
    }
}

/// Jobs that one process does at most: others' turn comes.
const MOST_JOBS: usize = 20;

/// The job that a worker is started for, then others of the same roles that wait: the server gives this process's place to no other before it
/// ends. A job that has ended, or is gone, is no error.
fn run(launch: Launch, open: Open) -> Result<(), Failure> {
    if matches!(launch.job, launcher::RESUME | launcher::START) {
        if launch.job == launcher::RESUME {
            record(scheduler::resume_all)?;
        }
        return slot::start_others().map(drop);
    }
    let worked = work_on(launch, open);
    slot::leave_place()?;
    worked
}

fn work_on(launch: Launch, open: Open) -> Result<(), Failure> {
    let mut done = Vec::new();
    let settings = record(kept_settings::of_database_and_role)?;
    let mut next = Some(launch.job);
    while let Some(number) = next {
        let job = record(|| job::open(number))?;
        next = None;
        if let Some(job) = job {
            if !slot::has_place() && !slot::take_place(job.role.unwrap_or(launch.session_role))? {
                break;
            }
            let left = run_with_slot(&job, open, LateCancel { may_come: !done.is_empty() })?;
            background::forget_cancel();
            done.push(number);
            if matches!(left, Left::ForOthers) {
                // Where nobody can come, it goes on itself.
                match slot::leave_place()? {
                    0 => next = Some(number),
                    _ => slot::hand_over()?,
                }
            } else if let Some(role) = job.role
                && done.len() < MOST_JOBS
                && slot::has_place()
                && !slot::is_others_turn()?
                && settings == record(kept_settings::of_database_and_role)?
            {
                next = record(|| scheduler::next(launch.session_role, role, &done))?;
            }
        }
    }
    Ok(())
}

/// Works on a job, whose lock says so.
fn run_with_slot(job: &Job, open: Open, late_cancel: LateCancel) -> Result<Left, Failure> {
    // A worker that comes when the job has enough of them leaves again, before it counts as one.
    let seats = job.threads.and_then(|threads| u16::try_from(threads).ok()).unwrap_or(1);
    let seat = match job.threads {
        Some(_) => record(|| Ok((0..seats).map(|seat| Lock::JobSlot(job.number, seat)).find(|seat| seat.take())))?,
        None => None,
    };
    if job.threads.is_some() && seat.is_none() || !record(|| Ok(Lock::Job(job.number).take()))? {
        return Ok(Left::NothingToDo);
    }
    backend::stop_threads_at_exit();
    let worked = work(job, open, late_cancel);
    let leaving = Lock::Leaving(job.number);
    let requeued = match worked {
        // The last of those who leave sees the locks of all.
        Ok(Left::ForOthers) => record(|| Ok(leaving.take())).and_then(|_| record(|| scheduler::requeue(job))).map(|()| true),
        Ok(Left::NothingToDo) => Ok(false),
        Err(failure) => Err(failure),
    };
    record(|| {
        seat.into_iter().for_each(Lock::release);
        Lock::Job(job.number).release();
        if matches!(requeued, Ok(true)) {
            leaving.release();
        }
        Ok(())
    })?;
    requeued.map(|left| if left { Left::ForOthers } else { Left::NothingToDo })
}

/// Why a worker leaves a job.
enum Left {
    NothingToDo,
    /// It is another role's turn.
    ForOthers,
}

fn work(job: &Job, open: Open, mut late_cancel: LateCancel) -> Result<Left, Failure> {
    let opened = JobSpec::from_json(job.spec.clone()).and_then(|spec| Ok((open(&spec)?, spec)));
    let (mut operation, spec) = match opened {
        Ok(opened) => opened,
        Err(error) => return record(|| job::fail(job, &error.to_string())).map(|_| Left::NothingToDo),
    };
    let settings = transaction::run(None, || {
        kept_settings::set_kept(&spec.settings, job.role.into_iter().chain(job.session_role).collect())?;
        guc::lift_timeouts();
        Ok(())
    });
    if let Err(failure) = settings {
        return match failure {
            Failure::Ours(Error::ExtensionDropped) => Err(failure),
            failure => record(|| job::fail(job, &failure.message())).map(|_| Left::NothingToDo),
        };
    }
    let deadline = Deadline::of(job);
    if let Some(operation) = operation.as_one_transaction() {
        return all_at_once(job, operation, late_cancel, &deadline).map(|()| Left::NothingToDo);
    }
    while let Some(mut task) = record(|| if job::is_wanted(job)? { task_claim::claim(job) } else { Ok(None) })? {
        background::report_activity(Some(&job::activity(job, &task)));
        background::reload_configuration();
        let deadline = if task.kind == TaskKind::Index { Deadline::NONE } else { deadline };
        let done = loop {
            match deadline.within(|| operation.task(job, &mut task)) {
                Ok(Step::More) if !slot::is_others_turn()? => {}
                done => break done,
            }
        };
        background::report_activity(None);
        let gives_up = matches!(done, Ok(Step::More));
        let ended = settle(job, &*operation, &task, done, &deadline, &mut late_cancel);
        record(|| {
            Lock::Task(task.number).release();
            Ok(())
        })?;
        ended?;
        if gives_up || (slot::is_others_turn()? && !record(|| job::end(job))?) {
            return Ok(Left::ForOthers);
        }
    }
    record(|| job::end(job)).map(|_| Left::NothingToDo)
}

/// Writes down what came of a task.
fn settle(
    job: &Job,
    operation: &dyn Operation,
    task: &Task,
    done: Result<Step, Failure>,
    deadline: &Deadline,
    late_cancel: &mut LateCancel,
) -> Result<(), Failure> {
    match done {
        Ok(Step::Done) => record(|| task_progress::end(task, None)),
        Ok(Step::More) => record(|| task_progress::give_back(task)),
        Ok(Step::TooMany(most)) => record(|| task_progress::end(task, Some(&format!("more than {most} resources are invalid")))),
        Ok(Step::Ended | Step::Unwanted) => Ok(()),
        Err(Failure::Ours(Error::ExtensionDropped)) => Err(Failure::Ours(Error::ExtensionDropped)),
        Err(failure) if deadline.is_met(&failure) => record(|| {
            let error = deadline.error();
            if job::is_wanted(job)? {
                operation.fail(job, task, &Failure::Ours(error.clone()))?;
                job_control::time_out(job, &error.to_string())?;
            }
            Ok(())
        }),
        Err(failure) if late_cancel.is_met(job, &failure)? => Ok(()),
        Err(failure) => {
            // A cancel of the job interrupts it.
            let failed = record(|| {
                let wanted = job::is_wanted(job)?;
                if wanted { operation.fail(job, task, &failure).map(|()| true) } else { Ok(false) }
            })?;
            if failed {
                background::log(format!("job {} of bulk failed on {}", job.id, task.source));
            }
            Ok(())
        }
    }
}

/// The one rule for a cancel that arrives while its job is wanted: in a process that did another job before, the first may have been meant for
/// that one, and the task is claimed and done again. Any other fails the task.
struct LateCancel {
    may_come: bool,
}

impl LateCancel {
    /// Whether a failure is such a cancel. It is none a second time.
    fn is_met(&mut self, job: &Job, failure: &Failure) -> Result<bool, Failure> {
        let met = self.may_come && failure.is_cancel() && record(|| job::is_wanted(job))?;
        self.may_come &= !met;
        Ok(met)
    }
}

/// A job that is one transaction: one worker does it, from the beginning.
fn all_at_once(job: &Job, operation: &dyn OneTransaction, mut late_cancel: LateCancel, deadline: &Deadline) -> Result<(), Failure> {
    let Some(mut tasks) = record(|| task_claim::claim_all(job))? else { return record(|| job::end(job)).map(drop) };
    if let Some(first) = tasks.first() {
        background::report_activity(Some(&job::activity(job, first)));
    }
    let mut conflicts = 0;
    let failed = loop {
        match deadline.within(|| operation.all(job, &mut tasks, conflicts >= crate::retry::TRIES_BESIDE_OTHERS)) {
            Ok(_) => break None,
            Err((_, Failure::Ours(Error::ExtensionDropped))) => return Err(Failure::Ours(Error::ExtensionDropped)),
            Err((at, failure)) if failure.is_transient_conflict() => {
                conflicts += 1;
                if let Some(task) = at.and_then(|at| tasks.get(at)) {
                    record(|| task_progress::record_wait(task, &failure.whole_message()))?;
                }
                match retry::back_off(job, Backoff::QUICK, conflicts) {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(failure) if late_cancel.is_met(job, &failure)? => {}
                    Err(failure) => break Some((at, failure)),
                }
            }
            Err((_, failure)) if deadline.is_met(&failure) => {
                record(|| job_control::time_out(job, &deadline.error().to_string()))?;
                break None;
            }
            Err((_, failure)) if late_cancel.is_met(job, &failure)? => {}
            Err((at, failure)) => break Some((at, failure)),
        }
        tasks.iter_mut().for_each(|task| task.progress = Progress::default());
    };
    background::report_activity(None);
    let noted = record(|| {
        if let Some((at, failure)) = &failed
            && job::is_wanted(job)?
        {
            for (index, task) in tasks.iter().enumerate() {
                let message = match *at == Some(index) {
                    true => {
                        operation.record_failure(job, task, failure)?;
                        failure.message()
                    }
                    // What failed behind the last, at the commit, is all tasks'.
                    false if at.is_none() => failure.message(),
                    false => format!("{ROLLED_BACK}another input failed"),
                };
                task_progress::end(task, Some(&message))?;
            }
        }
        job::end(job).map(drop)
    });
    record(|| {
        tasks.iter().for_each(|task| Lock::Task(task.number).release());
        Ok(())
    })?;
    noted
}
