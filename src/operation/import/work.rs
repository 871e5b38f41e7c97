//! An input at work: opened at its checkpoint, loaded to its end, begun again when its source fails.

use crate::error::Error;
use crate::fhir::overlay::Changes;
use crate::job::cancel::{CancelPoll, CancelPollInTransaction};
use crate::job::retry;
use crate::job::step::Step;
use crate::job::worker::{OneTransaction, Operation};
use crate::operation::import::divide;
use crate::operation::import::spec::Import;
use crate::pg::catalog::resource_table;
use crate::pg::process::{load_threads, transaction};
use crate::pg::state::job::{self, Job};
use crate::pg::state::load_error::LoadErrors;
use crate::pg::state::task::Task;
use crate::pg::state::{task_claim, task_progress};
use crate::pg::sys::guc;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::subtransaction::{self, Failure};
use crate::pg::write::assemble;
use crate::pg::write::checkpoint_sink::CheckpointSink;
use crate::pg::write::counting_sink::CountingSink;
use crate::pg::write::destination::{Destination, LastLineWins};
use crate::pg::write::group_sink;
use crate::pg::write::group_sink::StrictSink;
use crate::pipeline::load::counters::LoadCounters;
use crate::pipeline::load::encode::EncodeConfig;
use crate::pipeline::load::options::LoadOptions;
use crate::pipeline::load::sink::BatchSink;
use crate::pipeline::load::source_reader::{self, LoadInput};
use crate::retry::Backoff;
use crate::store::net::client_config::ClientConfig;
use crate::store::source::Source;

/// What is common to a session's inputs.
struct Session<'a> {
    job: &'a Job,
    import: &'a Import,
    options: LoadOptions,
    changes: Changes,
    threads: usize,
}

impl<'a> Session<'a> {
    fn new(job: &'a Job, import: &'a Import) -> Result<Session<'a>, Error> {
        let mut options = LoadOptions::read(&import.options)?;
        let secret = |name: &str| job.secret.as_ref().and_then(|secret| secret.get(name)).ok_or(Error::NoSecret);
        if import.has_headers {
            let headers = secret("headers")?;
            options.headers = LoadOptions::read(&serde_json::json!({"headers": headers}).to_string())?.headers;
        }
        if import.has_merge {
            options.merge = secret("merge")?.as_str().map(str::to_owned);
        }
        let wrong = |_| Error::Internal("what is laid over resources cannot be stored".to_owned());
        let changes =
            assemble::changes(&options)?.with(import.meta.as_deref(), import.id_prefix.as_deref(), guc::max_depth()).map_err(wrong)?;
        Ok(Session { job, import, options, changes, threads: load_threads::of_worker() })
    }

    /// The source of an input, if the role may still read it, and how it is reached.
    fn source(&self, task: &Task) -> Result<(Source, ClientConfig), Error> {
        let secret = || self.job.secret.as_ref().and_then(|secret| secret.get("urls")?.get(task.ordinal)?.as_str());
        let open = self.import.urls.get(task.ordinal).and_then(Option::as_deref);
        let source = Source::parse(open.or_else(secret).ok_or(Error::NoSecret)?)?;
        Right::to_read(&source).require()?;
        let access = assemble::access(&self.options, std::slice::from_ref(&source))?;
        Ok((source, access))
    }

    /// How a task is loaded from where it is.
    fn spec(&self, (source, access): (Source, ClientConfig), task: &Task, destination: &Destination) -> LoadInput {
        let (name, resource_type) = (source.name(), task.resource_type.as_deref());
        let config = assemble::config(&name, resource_type, self.import.fhir, &self.options, &self.changes, &destination.compression);
        LoadInput {
            source,
            access,
            config: EncodeConfig { versions: task.range.map(|range| range.versions), ..config },
            threads: self.threads,
            from: task.progress.checkpoint.clone(),
            span: task.range.map(|range| range.span),
            division: None,
        }
    }
}

impl Operation for Import {
    fn task(&mut self, job: &Job, task: &mut Task) -> Result<Step, Failure> {
        input(job, self, task)
    }

    fn as_one_transaction(&self) -> Option<&dyn OneTransaction> {
        self.transaction.then_some(self)
    }
}

impl OneTransaction for Import {
    fn all(&self, job: &Job, tasks: &mut [Task], alone: bool) -> Result<Step, (Option<usize>, Failure)> {
        together(job, self, tasks, alone)
    }

    fn record_failure(&self, job: &Job, task: &Task, failure: &Failure) -> Result<(), Error> {
        let Failure::Ours(Error::Rejected { first, .. }) = failure else { return Ok(()) };
        task_progress::forget_findings(job, task)?;
        LoadErrors::of_input(&job.id, task.ordinal).reject(first)
    }
}

/// Loads an input from where it is to its end.
fn input(job: &Job, import: &Import, task: &mut Task) -> Result<Step, Failure> {
    let role = job.role;
    let resource_type = task.resource_type.clone();
    let (session, mut destination) = transaction::run(role, || {
        if role.is_none() {
            return Err(Error::NoRole);
        }
        let session = Session::new(job, import)?;
        let destination = assemble::destination(&session.options);
        // The table is there, and how its rows are compressed is known, before the first is made.
        Box::new(StrictSink::new(destination.clone(), resource_type.as_deref())?).finish(&mut LoadCounters::new(0))?;
        Ok((session, destination))
    })?;
    let mut may_divide = true;
    loop {
        let source = transaction::run(role, || session.source(task))?;
        destination.last_line_wins = task.range.map(|range| LastLineWins { last: range.last_version });
        let mut spec = session.spec(source, task, &destination);
        if may_divide {
            spec.division = transaction::run(role, || divide::look_for(task, &session.options))?;
        }
        let division = spec.division.clone();
        let before = task.progress.read;
        let loaded = subtransaction::outside(|| {
            let mut counters = LoadCounters::new(u64::MAX);
            let mut sink = Box::new(CheckpointSink::new(job, task, destination.clone(), session.options.max_errors));
            match source_reader::load(spec, &mut *sink, &mut counters, &mut CancelPoll(job)) {
                Ok(()) if divide::is_due(&division) => Ok(()),
                Ok(()) => sink.finish(&mut counters),
                Err(error @ Error::Source { .. }) => sink.commit_rest(&mut counters).and(Err(error)),
                Err(error) => Err(error),
            }
        });
        let error = match loaded {
            Ok(()) if divide::is_due(&division) => {
                may_divide = transaction::run(role, || divide::divide(job, task, division.as_ref()))?;
                continue;
            }
            Ok(()) => return Ok(Step::Ended),
            Err(Failure::Ours(Error::Stopped)) => return Ok(Step::Unwanted),
            Err(Failure::Ours(Error::ExtensionDropped)) => return Err(Failure::Ours(Error::ExtensionDropped)),
            Err(Failure::Ours(error)) => error,
            Err(failure) => return Err(failure),
        };
        if task.progress.read > before {
            // What came since counts as a success.
            task.tries = 0;
        }
        if let Error::Rejected { first, .. } = &error {
            // Lines that an earlier try recorded are recorded once.
            transaction::run(None, || {
                task_progress::forget_findings(job, task)?;
                LoadErrors::of_input(&job.id, task.ordinal).reject_behind(task_claim::lines_before(job, task)?, first)
            })?;
        }
        let failure = Failure::Ours(error);
        if !failure.is_transient() || task.tries >= import.retries {
            return Err(failure);
        }
        transaction::run(None, || task_progress::try_again(task, &failure.message()))?;
        if !retry::back_off(job, Backoff::PATIENT, task.tries)? {
            return Ok(Step::Unwanted);
        }
    }
}

/// Loads all inputs in one transaction, in their order.
fn together(job: &Job, import: &Import, tasks: &mut [Task], alone: bool) -> Result<Step, (Option<usize>, Failure)> {
    let mut at = None;
    let loaded = transaction::run(job.role, || {
        if job.role.is_none() {
            return Err(Error::NoRole);
        }
        let session = Session::new(job, import)?;
        if alone {
            resource_table::keep_others_off(tasks.iter().filter_map(|task| task.resource_type.as_deref()))?;
        }
        for (index, task) in tasks.iter_mut().enumerate() {
            at = Some(index);
            one_of_them(&session, task)?;
        }
        at = None;
        // With the rows, so that nobody begins anew what is stored.
        if job::end(job)? { Ok(Step::Ended) } else { Err(Error::Stopped) }
    });
    match loaded {
        Err(Failure::Ours(Error::Stopped)) => Ok(Step::Unwanted),
        other => other.map_err(|failure| (at, failure)),
    }
}

fn one_of_them(session: &Session, task: &mut Task) -> Result<(), Error> {
    let resource_type = task.resource_type.clone();
    let destination = assemble::destination(&session.options);
    let most = session.options.max_errors;
    let journal = LoadErrors::of_input(&session.job.id, task.ordinal);
    let mut counters = LoadCounters::new(most);
    let mut sink = group_sink::open(destination.clone(), resource_type.as_deref(), most, journal)?;
    let spec = session.spec(session.source(task)?, task, &destination);
    let mut counts = CountingSink { sink: &mut *sink, job: session.job, progress: &mut task.progress };
    source_reader::load(spec, &mut counts, &mut counters, &mut CancelPollInTransaction(session.job))?;
    sink.finish(&mut counters)?;
    task.progress.read = counters.read;
    task.progress.stored = counters.all_stored();
    task.progress.skipped = counters.skipped;
    task.progress.rejected = counters.rejected;
    task_progress::advance_input(task, &task.progress)?;
    task_progress::end(task, None)
}
