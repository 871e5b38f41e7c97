//! Actions on an import session and their answers: the table of states of the 2019 page.

use crate::error::Error;
use crate::fhir::definitions;
use crate::job::spec::JobSpec;
use crate::operation::http_status::{self, Door};
use crate::operation::import::request::{Action, ApiVersion, Mode, Request, Start};
use crate::operation::import::spec::Import;
use crate::operation::response::Answer;
use crate::pg::catalog::resource_table;
use crate::pg::state::enums::{JobKind, State, TaskKind};
use crate::pg::state::job::{self, NewJob};
use crate::pg::state::job_control::{self, JobStatus, Stop};
use crate::pg::state::scheduler::{self, WORKERS};
use crate::pg::state::task::NewTask;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::{guc, kept_settings};
use crate::pg::write::assemble;
use crate::pipeline::load::options::LoadOptions;
use crate::store::redact::redact;
use crate::store::source::Source;
use crate::text::percent;
use serde_json::{Value, json};

/// Which of the two interfaces is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

/// Does what a request asks for. Only what no request can be the cause of is an error.
///
/// # Errors
/// Only what no request can be the cause of.
pub fn act(body: &Value, fhir: bool, version: Version) -> Result<Answer, Error> {
    let Request { id, action } = match Request::read(body) {
        Ok(request) => request,
        Err(message) => return Ok(Answer::refuse(400, message)),
    };
    if let Action::Start(wanted) = action {
        return match start(id.as_deref(), &wanted, fhir, version) {
            Ok(answer) => Ok(answer),
            Err(error) => refusal(error),
        };
    }
    let id = id.unwrap_or_default();
    let standing = match job_control::standing(&id) {
        Ok(standing) if standing.kind == JobKind::Import => standing,
        Ok(_) | Err(Error::NoJob(_)) => return Ok(Answer::refuse(404, format!("there is no import \"{id}\""))),
        Err(error) => return refusal(error),
    };
    command(&id, &action, &standing)
}

/// What can be blamed on a request is an answer.
fn refusal(error: Error) -> Result<Answer, Error> {
    http_status::blame_request(error, Door::Import).map(|refusal| Answer::refuse(refusal.status, refusal.text))
}

fn start(id: Option<&str>, wanted: &Start, fhir: bool, version: Version) -> Result<Answer, Error> {
    let base_url = guc::base_url()?;
    let request = |tasks: &[NewTask]| {
        let mut request = json!({"type": if fhir { "fhir" } else { "aidbox" }, "inputs": shown(wanted, tasks)});
        if let Value::Object(request) = &mut request {
            request.extend(wanted.shown.clone());
            if let Some(Value::String(source)) = request.get_mut("inputSource") {
                *source = redact(source);
            }
        }
        request
    };
    let Some(made) = enter(id, wanted, fhir, request)? else {
        return Ok(Answer::refuse(409, format!("there is a job \"{}\" already", id.unwrap_or_default())));
    };
    let (status, path) = match version {
        Version::One => (if id.is_none() { 201 } else { 200 }, "/BulkImportStatus/"),
        Version::Two => (200, "/v2/$import/"),
    };
    Ok(Answer::new(status, json!({"id": made})).with("content-location", format!("{base_url}{path}{}", percent::segment(&made))))
}

/// The tasks of a session, one for each input, and the URLs of their sources.
fn tasks_of(wanted: &Start, options: &LoadOptions) -> Result<(Vec<NewTask>, Vec<String>), Error> {
    let definitions = definitions::r4();
    let (mut tasks, mut urls) = (Vec::new(), Vec::new());
    for input in &wanted.inputs {
        let url = match input.is_resource_file {
            true => guc::resource_file(&input.url)?,
            false => input.url.clone(),
        };
        let source = Source::parse(&url)?;
        Right::to_read(&source).require()?;
        let resource_type = input.resource_type.as_deref().map(|name| resource_table::type_name(definitions, name)).transpose()?;
        if let Some(name) = &resource_type
            && resource_table::lookup(name)?.is_none()
            && (!options.create_tables || definitions.resource(name).is_none())
        {
            return Err(Error::UnknownType(name.clone()));
        }
        tasks.push(NewTask::new(TaskKind::Source, source.name(), resource_type));
        urls.push(url);
    }
    Ok((tasks, urls))
}

/// Enters a session, whose request is shown as it is made of its inputs: its id. None when the id is a job's already.
///
/// # Errors
/// Whatever the request can be blamed for: `InvalidOption`, `UnknownType`, `MissingRole`, `Source` for a URL that no source can be.
pub fn enter(id: Option<&str>, wanted: &Start, fhir: bool, request: impl FnOnce(&[NewTask]) -> Value) -> Result<Option<String>, Error> {
    let text = Value::Object(wanted.options.clone()).to_string();
    let options = LoadOptions::read(&text)?;
    let meta = wanted.meta.as_ref().map(Value::to_string);
    let wrong = |_| Error::InvalidOption { name: "meta", expected: "a JSON object that can be stored" };
    assemble::changes(&options)?.with(meta.as_deref(), wanted.id_prefix.as_deref(), guc::max_depth()).map_err(wrong)?;
    if options.policy.keep_meta {
        Right::Admin.require()?;
    }
    if options.checks.references || options.later != Default::default() {
        return Err(Error::InvalidOption { name: "validation", expected: "checks struct, enabled on or off, for an import" });
    }
    let (tasks, urls) = tasks_of(wanted, &options)?;
    let mut open = wanted.options.clone();
    let headers = open.remove("headers").filter(|headers| !headers.is_null());
    open.remove("merge");
    // What a name leaves out is a secret.
    let is_open = |url: &String, task: &NewTask| task.source == *url || task.source == format!("file://{url}");
    let open_urls: Vec<Option<String>> = urls.iter().zip(&tasks).map(|(url, task)| is_open(url, task).then(|| url.clone())).collect();
    let has_secret = headers.is_some() || options.merge.is_some() || open_urls.iter().any(Option::is_none);
    let import = Import {
        fhir,
        of_2019: wanted.shape == ApiVersion::Of2019,
        transaction: wanted.mode == Mode::Transaction,
        retries: wanted.retries,
        options: Value::Object(open).to_string(),
        has_merge: options.merge.is_some(),
        meta,
        id_prefix: wanted.id_prefix.clone(),
        urls: open_urls,
        has_headers: headers.is_some(),
    };
    let spec = JobSpec::new(kept_settings::settings_to_keep()?, &import)?;
    let workers = if wanted.mode == Mode::Transaction { 1 } else { WORKERS.min(tasks.len()) };
    let new_job = NewJob {
        id,
        kind: JobKind::Import,
        request: request(&tasks),
        spec: spec.to_json()?,
        secret: has_secret.then(|| json!({"urls": urls, "headers": headers, "merge": options.merge})),
        tasks: &tasks,
        workers,
        threads: None,
    };
    Ok(job::enter(new_job)?.map(|(id, _)| id))
}

/// The inputs as the status shows them: without query strings.
fn shown(wanted: &Start, tasks: &[NewTask]) -> Value {
    let inputs = wanted.inputs.iter().zip(tasks).map(|(input, task)| {
        let url = if task.source.starts_with("file://") { input.url.clone() } else { task.source.clone() };
        match wanted.shape {
            ApiVersion::Of2019 => {
                let kind = if input.is_resource_file { "resource-file" } else { "url" };
                json!({"url": url, "type": input.resource_type, "storageDetail": {"type": kind}})
            }
            ApiVersion::Present => json!({"url": url, "resourceType": input.resource_type}),
        }
    });
    inputs.collect()
}

fn command(id: &str, action: &Action, standing: &JobStatus) -> Result<Answer, Error> {
    let state = standing.state;
    let active = state.is_open() || state == State::Interrupted;
    let again = |from: &[State]| {
        let workers = if is_one_transaction(standing)? { 1 } else { WORKERS };
        job_control::resume(standing.number, id, workers, from)
    };
    let not_now = |what: &str| Ok(Answer::refuse(406, format!("import \"{id}\" is {}: it cannot be {what}", word(state))));
    match action {
        Action::Abort if active || state == State::Paused => job_control::stop(standing.number, id, Stop::End).map(drop)?,
        Action::Abort => return not_now("aborted"),
        Action::Pause if active => {
            if is_one_transaction(standing)? {
                return Ok(Answer::refuse(406, format!("import \"{id}\" is one transaction: it cannot be paused")));
            }
            job_control::stop(standing.number, id, Stop::Pause).map(drop)?;
        }
        Action::Pause => return not_now("paused"),
        // Another may have acted since it was looked at.
        Action::Resume if state == State::Paused && again(&[State::Paused])? => {}
        Action::Resume => return not_now("resumed"),
        Action::ForceResume
            if matches!(state, State::Paused | State::Error | State::Interrupted)
                && again(&[State::Paused, State::Error, State::Waiting, State::InProgress])? => {}
        // It is at work, or about to be.
        Action::ForceResume if active => scheduler::start_waiting().map(drop)?,
        Action::ForceResume => return not_now("resumed"),
        Action::Start(_) => {}
    }
    Ok(Answer::new(200, json!({"id": id})))
}

fn is_one_transaction(standing: &JobStatus) -> Result<bool, Error> {
    let Some(spec) = job::spec(standing.number)? else { return Ok(false) };
    Ok(JobSpec::from_json(spec)?.work::<Import>()?.is_some_and(|import| import.transaction))
}

/// The word that the interface has for a job's state.
pub fn word(state: State) -> &'static str {
    match state {
        State::Waiting | State::InProgress | State::Interrupted => "active",
        State::Cancelled => State::Aborted.word(),
        other => other.word(),
    }
}
