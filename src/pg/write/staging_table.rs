//! Staging tables: unlogged tables of the shape of a type's, into which a load goes for inspection, before it is merged into the type's table or
//! dropped. `pg::state::staging_policy` knows of which type each is, and how it is to be merged.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::catalog::{ddl, fast_path_check, txid_sequence};
use crate::pg::state::staging_policy;
use crate::pg::sys::{sql, switch_user};
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
    let stage = open(name, pg_sys::RowExclusiveLock)?;
    if stage.resource_type != resource_type {
        return Err(Error::OtherStage { name: name.to_owned(), resource_type: stage.resource_type });
    }
    if stage.policy != policy {
        staging_policy::set(stage.table.oid, resource_type, policy)?;
    }
    Ok(stage.table)
}

/// A stage that is there, locked to the transaction's end so that it stays what it is looked at for.
///
/// # Errors
/// `NoStage`.
pub fn open(name: &str, mode: u32) -> Result<StagingTable, Error> {
    let missing = || Error::NoStage(name.to_owned());
    // Until the name still means the table that was locked. Nobody may lock what is not theirs, so it is looked at before as well.
    for _ in 0..100 {
        let oid = resource_table::find_qualified(name)?.filter(|oid| is_plain_and_own(*oid)).ok_or_else(missing)?;
        // SAFETY: any oid may be locked.
        unsafe { pg_sys::LockRelationOid(oid, mode as i32) };
        if resource_table::find_qualified(name)? == Some(oid) {
            return open_oid(oid)?.ok_or_else(missing);
        }
    }
    Err(missing())
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
    // Each statement names the stage, which is its own when the one before has waited for whatever it waited for.
    from.require_name()?;
    let both = format!("{} t join {} s on t.id operator(pg_catalog.=) s.id", target.name, from.name);
    let older = "(t.ts is null or t.ts operator(pg_catalog.<) s.ts)";
    let newer = policy.on_conflict == OnConflict::Newer;
    if newer && !target.has_ts {
        return Err(Error::NoUpdateTime(target.plain_name.clone()));
    }
    if policy.on_conflict == OnConflict::Error && sql::run(&format!("select from {both} limit 1"), &[])? > 0 {
        return Err(Error::StageConflict(target.plain_name.clone()));
    }
    from.require_name()?;
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
    from.require_name()?;
    let merged = sql::run(&statement, &[sql::regclass(sequence)])?;
    from.require_name()?;
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
    if !is_of_current_user(oid) && runs_code(oid, &resource_type)? {
        return Ok(None);
    }
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
    // SAFETY: catalog look-ups with roles that exist.
    let is_member = || unsafe { pg_sys::is_member_of_role_nosuper(switch_user::current(), row.relowner) };
    // SAFETY: a catalog look-up with roles that exist. A member may lack what the role may do.
    plain && is_member() && unsafe { pg_sys::has_privs_of_role(switch_user::current(), row.relowner) }
}

fn is_of_current_user(oid: pg_sys::Oid) -> bool {
    // SAFETY: a table that is locked.
    let relation = unsafe { PgRelation::with_lock(oid, pg_sys::NoLock as i32) };
    fast_path_check::class(relation.as_ptr()).relowner == switch_user::current()
}

/// Whether an expression of the table's owner would run when a row gets in: a check, a default, a generated column, an index's or a domain's.
fn runs_code(table: pg_sys::Oid, resource_type: &str) -> Result<bool, Error> {
    let found = sql::value::<bool>(
        "select exists (select from pg_catalog.pg_constraint c where c.conrelid operator(pg_catalog.=) $1 \
            and c.contype operator(pg_catalog.<>) all ('{p,n}'::pg_catalog.\"char\"[])) \
         or exists (select from pg_catalog.pg_index i where i.indrelid operator(pg_catalog.=) $1 and (i.indexprs is not null or i.indpred is not null)) \
         or exists (select from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) a.atttypid \
            where a.attrelid operator(pg_catalog.=) $1 and a.attnum operator(pg_catalog.>) 0 \
            and t.typtype operator(pg_catalog.<>) all ('{b,e}'::pg_catalog.\"char\"[])) \
         or exists (select from pg_catalog.pg_attrdef d where d.adrelid operator(pg_catalog.=) $1 \
            and pg_catalog.pg_get_expr(d.adbin, d.adrelid) operator(pg_catalog.<>) \
                pg_catalog.concat(pg_catalog.quote_literal($2), '::text'))",
        &[table.into(), resource_type.into()],
    )?;
    Ok(found != Some(false))
}
