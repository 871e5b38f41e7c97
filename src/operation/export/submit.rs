//! The call: what is asked for becomes a job, or is refused.

use crate::error::Error;
use crate::fhir::outcome::outcome;
use crate::fhir::{definitions, search_parameters};
use crate::job::spec::JobSpec;
use crate::operation::export::request::{Handling, Level, Params, short};
use crate::operation::export::spec::{Export, ExportTarget, PatientScope};
use crate::operation::export::{cleanup, patients};
use crate::operation::http_status::{self, Door};
use crate::operation::response::{Answer, Refusal, Wrong};
use crate::operation::storage;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::process::exported_snapshot;
use crate::pg::read::patient_ids;
use crate::pg::state::enums::{JobKind, State, TaskKind};
use crate::pg::state::job::{self, NewJob};
use crate::pg::state::job_control::{self, Stop};
use crate::pg::state::scheduler::{self, WORKERS};
use crate::pg::state::task::NewTask;
use crate::pg::state::{disabled_index, export_run as files};
use crate::pg::sys::privilege::Right;
use crate::pg::sys::{backend, guc, kept_settings, sqlstate};
use crate::text::percent;
use serde_json::{Value, json};
use std::collections::HashSet;

/// `retry-after` of a 429, in seconds.
const COME_BACK: u32 = 10;

/// Types with their tables.
type Tables = Vec<(String, Table)>;

/// Starts an export: 202, or a refusal. Only what no request can be the cause of is an error.
///
/// # Errors
/// Only what no request can be the cause of.
pub fn start(level: &str, params: &Value, group: Option<&str>, handling: Handling) -> Result<Answer, Error> {
    backend::require_utf8()?;
    backend::require_writable(c"bulk.export");
    backend::stop_threads_at_exit();
    scheduler::start_waiting()?;
    match begin(level, params, group, handling) {
        Ok(answer) => Ok(answer),
        Err(Wrong::Refused(refusal)) => Ok(refusal.into()),
        Err(Wrong::Failed(error)) => http_status::blame_request(error, Door::Export).map(Answer::from),
    }
}

fn begin(word: &str, given: &Value, group: Option<&str>, handling: Handling) -> Result<Answer, Wrong> {
    let definitions = definitions::r4();
    let level = Level::read(word).ok_or_else(|| Refusal::new(400, "invalid", "level must be system, patient or group"))?;
    let read = Params::read(definitions, level, given, handling);
    // Before all else, whatever is wrong beside it.
    let overrides = read.as_ref().map(|params| params.storage.clone()).unwrap_or_default();
    let storage = storage::configured(&overrides)?.map_err(|message| Refusal::new(500, "exception", message))?;
    Right::to_write(&storage.bucket).require()?;
    let params = read?;
    let sink = ExportTarget { bucket: storage.bucket, account: storage.account };
    let (tables, warnings) = tables(level, &params)?;
    let patient_table = resource_table::lookup("Patient")?;
    let (scope, members) = scope(level, &params, group, patient_table.as_ref())?;
    let Some(room) = files::take_room(guc::max_exports())? else {
        let refusal = Refusal::new(429, "throttled", "as many exports as bulk.max_exports allows are under way: wait until they end");
        return Ok(Answer::from(refusal).with("retry-after", COME_BACK));
    };
    let asked = Asked { level, group, params, sink, tables, warnings, scope, members, patient_table };
    match enter(asked) {
        Ok((id, begins)) => {
            if !begins {
                room.leave();
            }
            let mut body = outcome("information", "informational", &format!("export {id} has begun"), None);
            body["id"] = json!(id);
            Ok(Answer::new(202, body).with("content-location", format!("{}/fhir/$export-status/{id}", guc::base_url()?)))
        }
        Err(wrong) => {
            room.leave();
            Err(wrong)
        }
    }
}

/// An export that there is room for.
struct Asked<'a> {
    level: Level,
    group: Option<&'a str>,
    params: Params,
    sink: ExportTarget,
    tables: Tables,
    warnings: Vec<String>,
    scope: PatientScope,
    members: Vec<String>,
    patient_table: Option<Table>,
}

/// Enters an export's job: its id, and whether there is anything to do.
fn enter(asked: Asked) -> Result<(String, bool), Wrong> {
    let Asked { level, group, params, sink, tables, warnings, scope, members, patient_table } = asked;
    let (scope, patient_errors) = whose_is_there(scope, &members, &params, patient_table.as_ref())?;
    let nobody = matches!(&scope, PatientScope::Patients(list) if list.is_empty())
        || matches!(&scope, PatientScope::Members { of_them: Some(list), .. } if list.is_empty());
    propose_indexes(&tables, &scope, &members)?;
    let path = path(level, group, &params);
    let mut request = json!({"level": level.word(), "url": format!("{}{path}", guc::base_url()?)});
    for (name, value) in [("params", json!(params.query)), ("patient-errors", json!(patient_errors)), ("warnings", json!(warnings))] {
        if value.as_array().is_some_and(|list| !list.is_empty()) {
            request[name] = value;
        }
    }
    let export = Export {
        sink,
        gzip: params.gzip,
        tables: tables.into_iter().map(|(name, table)| (name, table.name)).collect(),
        since: params.since,
        until: params.until,
        scope,
        filters: params.filters,
        elements: params.elements,
        file_rows: guc::export_file_rows(),
        file_size: guc::export_file_size(),
    };
    let spec = JobSpec::new(kept_settings::settings_to_keep()?, &export)?;
    let holder = [NewTask::new(TaskKind::Snapshot, "snapshot".to_owned(), None)];
    let new_job = NewJob {
        id: None,
        kind: JobKind::Export,
        request,
        spec: spec.to_json()?,
        secret: None,
        tasks: if nobody { &[] } else { &holder },
        workers: usize::from(!nobody),
        // Beside the holder of the snapshot.
        threads: Some(WORKERS + 1),
    };
    let (id, number) = job::enter(new_job)?.ok_or_else(|| Error::Internal("an id was made twice".to_owned()))?;
    if nobody {
        files::complete(number, &id, exported_snapshot::horizon()?)?;
    }
    Ok((id, !nobody))
}

/// The tables of what is asked for, and what is to be said of types that are not exported.
fn tables(level: Level, params: &Params) -> Result<(Tables, Vec<String>), Wrong> {
    let mut names: Vec<String> = match level {
        Level::System => definitions::r4().resource_types().map(str::to_owned).collect(),
        Level::Patient | Level::Group => search_parameters::r4().compartment_types().into_iter().map(str::to_owned).collect(),
    };
    names.sort_unstable();
    let mut warnings = params.ignored.clone();
    if let Some(asked) = &params.types {
        let (within, outside): (Vec<&String>, Vec<&String>) = asked.iter().partition(|name| names.contains(name));
        if within.is_empty() && !outside.is_empty() {
            let text = "_type names no type that is in the compartments of patients";
            return Err(Refusal::new(400, "not-supported", text).at("_type").into());
        }
        warnings.extend(outside.into_iter().map(|name| format!("{name} is not in the compartments of patients: none is exported")));
        names.retain(|name| asked.contains(name));
    }
    let mut tables = Vec::new();
    for name in names {
        let Some(table) = resource_table::lookup(&name)? else { continue };
        resource_table::require_readable(&table)?;
        if (params.since.is_some() || params.until.is_some()) && !table.has_ts {
            return Err(Error::NoUpdateTime(table.plain_name).into());
        }
        tables.push((name, table));
    }
    Ok((tables, warnings))
}

/// Whose resources are asked for, not yet looked at, and the members of the Group.
fn scope(level: Level, params: &Params, group: Option<&str>, patient_table: Option<&Table>) -> Result<(PatientScope, Vec<String>), Wrong> {
    if let Some(table) = patient_table
        && level != Level::System
    {
        resource_table::require_readable(table)?;
    }
    match level {
        Level::System => Ok((PatientScope::Everybodys, Vec::new())),
        Level::Patient if params.patients.is_empty() => Ok((PatientScope::AllPatients, Vec::new())),
        Level::Patient => Ok((PatientScope::Patients(Vec::new()), Vec::new())),
        Level::Group => {
            let group =
                group.filter(|group| !group.is_empty()).ok_or_else(|| Refusal::new(400, "required", "the id of the Group is missing"))?;
            let unknown = || Refusal::new(404, "not-found", format!("there is no Group \"{}\"", short(group)));
            let table = resource_table::lookup("Group")?.ok_or_else(unknown)?;
            resource_table::require_readable(&table)?;
            let with_group = params.types.as_ref().is_some_and(|types| types.iter().any(|name| name == "Group"));
            let members = patients::members(&table, group)?.ok_or_else(unknown)?;
            Ok((PatientScope::Members { group: group.to_owned(), table: table.name, of_them: None, with_group }, members))
        }
    }
}

/// The patients of the request who are there; what is wrong with the others, where that is to be borne.
fn whose_is_there(
    scope: PatientScope,
    members: &[String],
    params: &Params,
    patient_table: Option<&Table>,
) -> Result<(PatientScope, Vec<Value>), Wrong> {
    if params.patients.is_empty() {
        return Ok((scope, Vec::new()));
    }
    let wanted: Vec<String> = params.patients.iter().filter_map(|patient| patient.id.clone()).collect();
    let there: HashSet<String> = match patient_table {
        Some(table) => patient_ids::of_these(table, &wanted)?.into_iter().collect(),
        None => HashSet::new(),
    };
    let (mut kept, mut errors) = (Vec::new(), Vec::new());
    for patient in &params.patients {
        let named = short(&patient.reference);
        let (code, text) = match &patient.id {
            None => ("value", format!("Patient reference ignored: invalid format ({named})")),
            Some(id) if !there.contains(id) => ("not-found", format!("Patient/{} ignored: not found", short(id))),
            Some(id) => match &scope {
                PatientScope::Members { group, .. } if members.binary_search(id).is_err() => {
                    ("business-rule", format!("Patient/{} ignored: not a member of Group/{}", short(id), short(group)))
                }
                _ => {
                    kept.push(id.clone());
                    continue;
                }
            },
        };
        if !params.ignores_patient_errors {
            return Err(Refusal::new(422, code, text.replace(" ignored:", ":")).at(patient.expression.clone()).into());
        }
        errors.push(outcome("warning", code, &text, Some(&patient.expression)));
    }
    kept.sort_unstable();
    kept.dedup();
    let scope = match scope {
        PatientScope::Members { group, table, with_group, .. } => PatientScope::Members { group, table, of_them: Some(kept), with_group },
        _ => PatientScope::Patients(kept),
    };
    Ok((scope, errors))
}

/// Says where an index would save looking through all of a table for a few patients.
fn propose_indexes(tables: &[(String, Table)], scope: &PatientScope, members: &[String]) -> Result<(), Error> {
    let few = match scope {
        PatientScope::Patients(list) => list.len(),
        PatientScope::Members { of_them: None, .. } => members.len(),
        PatientScope::Members { of_them: Some(list), .. } => list.len(),
        PatientScope::Everybodys | PatientScope::AllPatients => return Ok(()),
    };
    if few > patients::FEW {
        return Ok(());
    }
    let mut slow = Vec::new();
    for (_, table) in tables.iter().filter(|(name, _)| name != "Patient") {
        if !disabled_index::serves_patterns(table.oid)? {
            slow.push(format!("CREATE INDEX ON {} USING gin (resource jsonb_path_ops);", table.name));
        }
    }
    if !slow.is_empty() {
        let message = format!("{} tables are looked through whole for the resources of {few} patients", slow.len());
        sqlstate::notice(&message, &slow.join(" "));
    }
    Ok(())
}

/// Path and query of the request as an HTTP layer has them.
fn path(level: Level, group: Option<&str>, params: &Params) -> String {
    let path = match level {
        Level::System => "/fhir/$export".to_owned(),
        Level::Patient => "/fhir/Patient/$export".to_owned(),
        Level::Group => format!("/fhir/Group/{}/$export", percent::query_value(group.unwrap_or_default())),
    };
    let query: Vec<String> = params.query.iter().map(|(name, value)| format!("{name}={}", percent::query_value(value))).collect();
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

/// Ends an export, or gives up its files: 202.
///
/// # Errors
/// Only what no request can be the cause of.
pub fn cancel(id: &str) -> Result<Answer, Error> {
    let unknown = || Answer::from(Refusal::new(404, "not-found", format!("there is no export \"{}\"", short(id))));
    let standing = match job_control::standing(id) {
        Ok(standing) if standing.kind == JobKind::Export && standing.state != State::Cancelled => standing,
        Ok(_) | Err(Error::NoJob(_)) => return Ok(unknown()),
        Err(error) => return http_status::blame_request(error, Door::Export).map(Answer::from),
    };
    if !job_control::stop(standing.number, id, Stop::End)? {
        files::give_up(standing.number, id)?;
    }
    cleanup::order_after(id)?;
    Ok(Answer::new(202, outcome("information", "informational", &format!("export {id} is cancelled"), None)))
}
