//! An input at work: opened at its checkpoint, loaded to its end, begun again when its source fails.

use crate::error::Error;
use crate::fhir::change::Changes;
use crate::job::cancel::{Attentive, Within};
use crate::job::counting::Counting;
use crate::job::import::divide;
use crate::job::plan::Import;
use crate::job::retry;
use crate::job::step::Step;
use crate::op::batch::Recipe;
use crate::op::ledger::Ledger;
use crate::op::load::{self, Plan};
use crate::op::option::LoadOptions;
use crate::op::sink::Sink;
use crate::pg::attempt::{self, Failure};
use crate::pg::committing::Committing;
use crate::pg::destination::{Destination, Order};
use crate::pg::jobs::entry::{self, Job};
use crate::pg::journal::Journal;
use crate::pg::part::Part;
use crate::pg::role::Right;
use crate::pg::sink::{Strict, Tolerant};
use crate::pg::{claim, parts};
use crate::pg::{loading, setting, transaction};
use crate::store::access::Access;
use crate::store::source::Source;

/// What is common to a session's inputs.
struct Session<'a> {
    job: &'a Job,
    import: &'a Import,
    options: LoadOptions,
    changes: Changes,
}

impl<'a> Session<'a> {
    fn new(job: &'a Job, import: &'a Import) -> Result<Session<'a>, Error> {
        let mut options = LoadOptions::read(&import.options)?;
        if import.has_headers {
            let headers = job.secret.as_ref().and_then(|secret| secret.get("headers")).ok_or(Error::NoSecret)?;
            options.headers = LoadOptions::read(&serde_json::json!({"headers": headers}).to_string())?.headers;
        }
        options.merge = import.merge.clone();
        let wrong = |_| Error::Internal("what is laid over resources cannot be stored".to_owned());
        let changes =
            loading::changes(&options)?.with(import.meta.as_deref(), import.id_prefix.as_deref(), setting::max_depth()).map_err(wrong)?;
        Ok(Session { job, import, options, changes })
    }

    /// The source of an input, if the role may still read it, and how it is reached.
    fn source(&self, part: &Part) -> Result<(Source, Access), Error> {
        let secret = || self.job.secret.as_ref().and_then(|secret| secret.get("urls")?.get(part.ordinal)?.as_str());
        let open = self.import.urls.get(part.ordinal).and_then(Option::as_deref);
        let source = Source::parse(open.or_else(secret).ok_or(Error::NoSecret)?)?;
        Right::to_read(&source).require()?;
        let access = loading::access(&self.options, std::slice::from_ref(&source))?;
        Ok((source, access))
    }

    /// How a part is loaded from where it is.
    fn plan(&self, (source, access): (Source, Access), part: &Part, destination: &Destination) -> Plan {
        let (name, resource_type) = (source.name(), part.resource_type.as_deref());
        let recipe = loading::recipe(&name, resource_type, self.import.fhir, &self.options, &self.changes, &destination.compression);
        Plan {
            source,
            access,
            recipe: Recipe { versions: part.range.map(|range| range.versions), ..recipe },
            threads: setting::encode_threads(),
            from: part.progress.checkpoint.clone(),
            span: part.range.map(|range| range.span),
            division: None,
            confirm: false,
        }
    }
}

/// Loads an input from where it is to its end.
pub fn input(job: &Job, import: &Import, part: &mut Part) -> Result<Step, Failure> {
    let role = job.role;
    let resource_type = part.resource_type.clone();
    let (session, mut destination) = transaction::run(role, || {
        if role.is_none() {
            return Err(Error::NoRole);
        }
        let session = Session::new(job, import)?;
        let destination = loading::destination(&session.options);
        // The table is there, and how its rows are compressed is known, before the first is made.
        Box::new(Strict::new(destination.clone(), resource_type.as_deref())?).finish(&mut Ledger::new(0))?;
        Ok((session, destination))
    })?;
    let mut may_divide = true;
    loop {
        let source = transaction::run(role, || session.source(part))?;
        destination.order = part.range.map(|range| Order { last: range.last_version });
        let mut plan = session.plan(source, part, &destination);
        if may_divide {
            plan.division = transaction::run(role, || divide::look_for(part, &session.options))?;
        }
        let division = plan.division.clone();
        let before = part.progress.read;
        let loaded = attempt::outside(|| {
            let mut ledger = Ledger::new(u64::MAX);
            let mut sink = Box::new(Committing::new(job, part, destination.clone(), session.options.max_errors));
            match load::load(plan, &mut *sink, &mut ledger, &mut Attentive(job)) {
                Ok(()) if divide::is_due(&division) => Ok(()),
                Ok(()) => sink.finish(&mut ledger),
                Err(error @ Error::Source { .. }) => sink.keep(&mut ledger).and(Err(error)),
                Err(error) => Err(error),
            }
        });
        let error = match loaded {
            Ok(()) if divide::is_due(&division) => {
                may_divide = transaction::run(role, || divide::divide(job, part, division.as_ref()))?;
                continue;
            }
            Ok(()) => return Ok(Step::Ended),
            Err(Failure::Ours(Error::Stopped)) => return Ok(Step::Unwanted),
            Err(Failure::Ours(Error::Gone)) => return Err(Failure::Ours(Error::Gone)),
            Err(Failure::Ours(error)) => error,
            Err(failure) => return Err(failure),
        };
        if part.progress.read > before {
            // What came since counts as a success.
            part.tries = 0;
        }
        if let Error::Rejected { first, .. } = &error {
            // What an earlier try told of the same lines is told once.
            transaction::run(None, || {
                parts::forget_findings(job, part)?;
                Journal::of_input(&job.id, part.ordinal).reject_behind(claim::lines_before(job, part)?, first)
            })?;
        }
        if !retry::may_pass(&error) || part.tries >= import.retries {
            return Err(Failure::Ours(error));
        }
        transaction::run(None, || parts::try_again(part, &error.to_string()))?;
        if !retry::rest(job, part.tries - 1)? {
            return Ok(Step::Unwanted);
        }
    }
}

/// Loads all inputs in one transaction, in their order.
pub fn together(job: &Job, import: &Import, parts: &mut [Part]) -> Result<Step, (Option<usize>, Failure)> {
    let mut at = None;
    let loaded = transaction::run(job.role, || {
        if job.role.is_none() {
            return Err(Error::NoRole);
        }
        let session = Session::new(job, import)?;
        for (index, part) in parts.iter_mut().enumerate() {
            at = Some(index);
            one_of_them(&session, part)?;
        }
        // With the rows, so that nobody begins anew what is stored.
        entry::end(job)?;
        Ok(Step::Ended)
    });
    match loaded {
        Err(Failure::Ours(Error::Stopped)) => Ok(Step::Unwanted),
        other => other.map_err(|failure| (at, failure)),
    }
}

fn one_of_them(session: &Session, part: &mut Part) -> Result<(), Error> {
    let resource_type = part.resource_type.clone();
    let destination = loading::destination(&session.options);
    let most = session.options.max_errors;
    let journal = Journal::of_input(&session.job.id, part.ordinal);
    let mut ledger = Ledger::new(most);
    let mut sink: Box<dyn Sink> = match most {
        0 => Box::new(Strict::new(destination.clone(), resource_type.as_deref())?),
        _ => Box::new(Tolerant::new(destination.clone(), resource_type.as_deref(), journal)?),
    };
    let plan = session.plan(session.source(part)?, part, &destination);
    let mut counts = Counting { sink: &mut *sink, job: session.job, progress: &mut part.progress };
    load::load(plan, &mut counts, &mut ledger, &mut Within(session.job))?;
    sink.finish(&mut ledger)?;
    part.progress.read = ledger.read;
    part.progress.stored = ledger.all_stored();
    part.progress.skipped = ledger.skipped;
    part.progress.rejected = ledger.rejected;
    parts::advance_input(part, &part.progress)?;
    parts::end(part, None)
}
