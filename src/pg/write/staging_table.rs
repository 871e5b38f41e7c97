//! Staging tables: unlogged tables of the shape of a type's, into which a load goes for inspection, before it is merged into the type's table or
//! dropped. `pg::state::staging_policy` knows of which type each is, and how it is to be merged.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::catalog::{ddl, txid_sequence};
use crate::pg::state::staging_policy;
use crate::pg::sys::sql;
use crate::pg::write::sql_writer::{self, MetaSource, OnExisting};
use crate::pipeline::load::encode::TakeMeta;
use crate::pipeline::load::existing_rows::{OnConflict, Policy};
use pgrx::{PgRelation, pg_sys};

/// A table that is a stage.
#[derive(Debug)]
pub struct StagingTable {
    pub table: Table,
    /// As FHIR spells it, or as the type was created.
    pub resource_type: String,
    pub policy: Policy,
}

/// The stage of this name for a type, made where it is missing.
///
/// # Errors
/// `NoStage` for another table of this name, `OtherStage` for one of another type.
pub fn ensure(name: &str, resource_type: &str, policy: Policy) -> Result<Table, Error> {
    let plain = resource_type.to_ascii_lowercase();
    if resource_table::parts(name)?.last().is_some_and(|name| *name == plain || *name == format!("{plain}_history")) {
        return Err(Error::NoStage(name.to_owned()));
    }
    let (oid, made) = match resource_table::find_qualified(name)? {
        Some(oid) => (oid, false),
        None => ddl::create_staging_table(&resource_table::parts(name)?, resource_type)?,
    };
    if made {
        let table = resource_table::describe(oid)?;
        staging_policy::set(oid, resource_type, policy)?;
        return Ok(table);
    }
    let stage = open_oid(oid)?.ok_or_else(|| Error::NoStage(name.to_owned()))?;
    if stage.resource_type != resource_type {
        return Err(Error::OtherStage { name: name.to_owned(), resource_type: stage.resource_type });
    }
    if stage.policy != policy {
        staging_policy::set(oid, resource_type, policy)?;
    }
    Ok(stage.table)
}

/// A stage that is there.
///
/// # Errors
/// `NoStage`.
pub fn open(name: &str) -> Result<StagingTable, Error> {
    let missing = || Error::NoStage(name.to_owned());
    open_oid(resource_table::find_qualified(name)?.ok_or_else(missing)?)?.ok_or_else(missing)
}

/// Puts a stage's rows into its type's table. Returns how many came to be there. Other writers of that table wait to the transaction's end.
///
/// # Errors
/// `StageConflict` (23505), `NoUpdateTime`, and those of the statements.
pub fn merge(stage: &StagingTable, target: &Table) -> Result<u64, Error> {
    let StagingTable { table: from, resource_type, policy } = stage;
    if from.oid == target.oid {
        return Err(Error::NoStage(from.plain_name.clone()));
    }
    sql::run(&format!("lock table {} in share row exclusive mode", target.name), &[])?;
    let both = format!("{} t join {} s on t.id operator(pg_catalog.=) s.id", target.name, from.name);
    let older = "(t.ts is null or t.ts operator(pg_catalog.<) s.ts)";
    let newer = policy.on_conflict == OnConflict::Newer;
    if newer && !target.has_ts {
        return Err(Error::NoUpdateTime(target.plain_name.clone()));
    }
    if policy.on_conflict == OnConflict::Error && sql::run(&format!("select from {both} limit 1"), &[])? > 0 {
        return Err(Error::StageConflict(target.plain_name.clone()));
    }
    if policy.keep_history && matches!(policy.on_conflict, OnConflict::Overwrite | OnConflict::Newer) {
        let history = resource_table::history_columns(target)?;
        let read: Vec<String> = history.names.iter().map(|name| format!("t.{name}")).collect();
        // A version that is stored again is no earlier one.
        let other = if policy.keep_meta { "(s.txid is null or t.txid operator(pg_catalog.<>) s.txid)" } else { "true" };
        let only = if newer { format!("where {older} and {other}") } else { format!("where {other}") };
        sql::run(
            &format!("insert into {} ({}) select {} from {both} {only}", history.table, history.names.join(", "), read.join(", ")),
            &[],
        )?;
    }
    let (meta_source, existing) =
        (meta_source(*policy), if policy.on_conflict == OnConflict::Skip { OnExisting::DoNothing } else { OnExisting::Overwrite });
    let version = if policy.keep_meta { "s.txid" } else { "null::pg_catalog.int8" };
    let created = if policy.keep_meta { "s.cts" } else { "null::pg_catalog.timestamptz" };
    let facts_of = match meta_source {
        MetaSource::Given | MetaSource::Ordered(_) => String::new(),
        MetaSource::FromLines | MetaSource::FromLinesAlone => format!(", {version} as version, s.ts as updated, {created} as created"),
    };
    let only = match newer {
        true => format!(
            "where not exists (select from {} t where t.id operator(pg_catalog.=) s.id and t.ts operator(pg_catalog.>=) s.ts)",
            target.name
        ),
        false => String::new(),
    };
    let source = format!("select s.id, s.resource, false as repeated{facts_of} from {} s {only}", from.name);
    let statement = sql_writer::insert_statement(target, resource_type, existing, meta_source, &source);
    let sequence = ddl::ensure_sequence(target.schema);
    let merged = sql::run(&statement, &[sql::regclass(sequence)])?;
    if policy.keep_meta
        && let Some(last) = sql::value::<i64>(&format!("select pg_catalog.max(txid) from {}", from.name), &[])?
    {
        txid_sequence::move_past(sequence, target.schema, last)?;
    }
    Ok(merged)
}

/// Drops a stage.
///
/// # Errors
/// Those of the statement.
pub fn drop(stage: &StagingTable) -> Result<(), Error> {
    sql::run(&format!("drop table {}", stage.table.name), &[])?;
    staging_policy::forget(stage.table.oid)
}

fn meta_source(policy: Policy) -> MetaSource {
    if policy.take_meta() == TakeMeta::Nothing { MetaSource::Given } else { MetaSource::FromLines }
}

fn open_oid(oid: pg_sys::Oid) -> Result<Option<StagingTable>, Error> {
    if !is_plain_and_own(oid) {
        return Ok(None);
    }
    let Some((resource_type, policy)) = staging_policy::find(oid)? else { return Ok(None) };
    Ok(Some(StagingTable { table: resource_table::describe(oid)?, resource_type, policy }))
}

/// Whether a table is of the current user, or of a role that it is a member of, and no code of a user runs when it is read or written. A role that may create tables
/// could else lay one where another looks for a stage; what a superuser may do with others' tables does not count.
fn is_plain_and_own(oid: pg_sys::Oid) -> bool {
    // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
    let relation = unsafe { PgRelation::with_lock(oid, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let row = unsafe { *relation.rd_rel };
    let plain = row.relkind == pg_sys::RELKIND_RELATION as i8
        && row.relpersistence == pg_sys::RELPERSISTENCE_UNLOGGED as i8
        && !(row.relhastriggers || row.relhasrules || row.relrowsecurity || row.relhassubclass || row.relispartition);
    // SAFETY: reads a backend variable.
    let user = unsafe { pg_sys::GetUserId() };
    // SAFETY: catalog look-ups with roles that exist.
    plain && (user == row.relowner || unsafe { pg_sys::is_member_of_role_nosuper(user, row.relowner) })
}
