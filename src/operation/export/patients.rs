//! PatientScope resources an export is of: the ids of patients, as a snapshot has them.

use crate::error::Error;
use crate::fhir::format::Format;
use crate::fhir::{definitions, search_parameters};
use crate::jsonb::document::{Document, Value};
use crate::operation::export::spec::PatientScope;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::read::cursor_scan::{self, Filter};
use crate::pg::read::patient_ids;
use crate::pg::sys::guc;
use crate::pipeline::dump::id_hash_set::IdHashSet;
use crate::pipeline::dump::render::{RenderConfig, Writer};
use crate::pipeline::parallel_map::{BlockSize, BlockSource};
use std::sync::Arc;

/// Patients so few that their resources may be found by an index.
pub const FEW: usize = 100;

/// A set of them.
#[derive(Debug, Clone)]
pub struct Patients {
    pub ids: Arc<IdHashSet>,
    /// One by one, if they are few.
    pub few: Option<Vec<String>>,
}

impl Patients {
    fn of(list: Vec<String>) -> Patients {
        let mut ids = IdHashSet::default();
        list.iter().for_each(|id| ids.insert(id));
        Patients { ids: Arc::new(ids), few: (list.len() <= FEW).then_some(list) }
    }
}

/// How a stored resource is read.
pub fn config(table: &Table, resource_type: &str) -> RenderConfig {
    RenderConfig {
        definitions: definitions::r4(),
        resource_type: resource_type.to_owned(),
        table: table.plain_name.clone(),
        stored: guc::resource_format(),
        to: Format::Fhir,
        created_at_url: guc::created_at_url(),
        max_depth: guc::max_depth(),
        has_created_at: table.has_cts,
        has_last_updated: table.has_ts,
    }
}

/// Whose resources are meant; None for everybody's. `patients` is the table of Patients.
///
/// # Errors
/// Those of the queries.
pub fn of(scope: &PatientScope, patients: Option<&Table>) -> Result<Option<Patients>, Error> {
    let list = match scope {
        PatientScope::Everybodys => return Ok(None),
        PatientScope::AllPatients => {
            let mut ids = IdHashSet::default();
            if let Some(table) = patients {
                patient_ids::of_all(table, |id| ids.insert(id))?;
            }
            return Ok(Some(Patients { ids: Arc::new(ids), few: None }));
        }
        PatientScope::Patients(list) => list.clone(),
        PatientScope::Members { group, table, of_them, .. } => {
            let members = match resource_table::find_qualified(table)? {
                Some(oid) => members(&resource_table::describe(oid)?, group)?.unwrap_or_default(),
                None => Vec::new(),
            };
            members.into_iter().filter(|id| of_them.as_ref().is_none_or(|some| some.binary_search(id).is_ok())).collect()
        }
    };
    Ok(Some(Patients::of(list)))
}

/// The patients who are members of a Group, in order, but for those who are not any more; None for no such Group.
///
/// # Errors
/// Those of the query.
pub fn members(table: &Table, group: &str) -> Result<Option<Vec<String>>, Error> {
    let mut filter = Filter::default();
    filter.one_of(vec![group.to_owned()], Vec::new());
    let config = config(table, "Group");
    cursor_scan::with_rows(table, filter, |mut rows| {
        let block = rows.next(BlockSize::LATER)?.block;
        let Some(row) = block.iter().next() else { return Ok(None) };
        let mut writer = Writer::default();
        let (root, _) = writer.read(&config, &row).map_err(|fault| row.error(&config.table, fault))?;
        Ok(Some(listed(writer.document(), root)))
    })
}

fn listed(document: &Document, group: Value) -> Vec<String> {
    let get = |value: Value, key: &str| match value {
        Value::Object(members) => document.get(members, key),
        _ => None,
    };
    let Some(Value::Array(list)) = get(group, "member") else { return Vec::new() };
    let mut found: Vec<String> = Vec::new();
    for &member in document.elements(list) {
        if get(member, "inactive") != Some(Value::Bool(true))
            && let Some(id) = get(member, "entity").and_then(|entity| search_parameters::patient(document, entity))
        {
            found.push(id.to_owned());
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
