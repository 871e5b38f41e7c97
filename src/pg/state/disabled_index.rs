//! Indexes that a load of buckets drops from its tables and creates again at its end. The statements for that are stored in the
//! transaction that drops one, so none is ever lost.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::state::task::Task;
use crate::pg::state::{job_report, task_progress};
use crate::pg::sys::{guc, owner_sql, sql, switch_user};
use pgrx::{JsonB, pg_sys};
use serde_json::Value;
use std::ffi::CString;

/// The indexes of table $1 that can be dropped and put back; $2 is whether the key on id is one of them. Those of partitions and of partitioned
/// tables, exclusion constraints and what a foreign key needs stay.
const INDEXES: &str = "select n.nspname::text, c.relname::text, x.relname::text, pg_get_indexdef(x.oid), s.spcname::text, \
       case when k.oid is null then format('drop index %I.%I', n.nspname, x.relname) \
            else format('alter table %I.%I drop constraint %I', n.nspname, c.relname, k.conname) end, \
       array_remove(array[pg_get_indexdef(x.oid), \
            case when k.oid is not null then format('alter table %I.%I add constraint %I %s using index %I%s%s', n.nspname, c.relname, \
                k.conname, case k.contype when 'p' then 'primary key' else 'unique' end, x.relname, \
                case when k.condeferrable then ' deferrable' end, case when k.condeferred then ' initially deferred' end) end, \
            format('comment on index %I.%I is ', n.nspname, x.relname) || quote_literal(obj_description(x.oid, 'pg_class')), \
            case when k.oid is not null then format('comment on constraint %I on %I.%I is ', k.conname, n.nspname, c.relname) end \
                || quote_literal(obj_description(k.oid, 'pg_constraint')), \
            case when i.indisclustered then format('alter table %I.%I cluster on %I', n.nspname, c.relname, x.relname) end, \
            case when i.indisreplident then \
                format('alter table %I.%I replica identity using index %I', n.nspname, c.relname, x.relname) end, \
            (select string_agg(format('alter index %I.%I alter column %s set statistics %s', n.nspname, x.relname, a.attnum, \
                a.attstattarget), '; ') from pg_attribute a where a.attrelid = x.oid and a.attstattarget >= 0)], null), \
       bulk_internal.index_entry(x.oid), case k.contype when 'p' then 'primary key' when 'u' then 'unique' end \
     from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class c on c.oid = i.indrelid \
     join pg_namespace n on n.oid = c.relnamespace left join pg_tablespace s on s.oid = x.reltablespace \
     left join pg_constraint k on k.conindid = x.oid and k.conrelid = c.oid and k.contype in ('p', 'u') \
     where c.oid = $1 and i.indisvalid and not i.indisexclusion and x.relkind = 'i' and c.relkind = 'r' and not c.relispartition \
       and not exists (select from pg_constraint f where f.contype = 'f' and f.conindid = x.oid) \
       and ($2 or not (i.indisprimary or (i.indisunique and i.indnkeyatts = 1 and i.indpred is null and i.indexprs is null \
            and (select a.attname = 'id' from pg_attribute a where a.attrelid = c.oid and a.attnum = i.indkey[0])))) \
     order by x.relname";

/// Refuses tables whose indexes the current user may not drop, and keys that foreign keys need: before anything is dropped.
///
/// # Errors
/// `NotOwner`, `KeyNeeded`.
pub fn require_droppable(tables: &[Table], with_key: bool) -> Result<(), Error> {
    for table in tables {
        let found = owner_sql::select_latest(
            "select pg_has_role($2, c.relowner, 'usage'), \
               exists (select from pg_constraint f where f.contype = 'f' and f.confrelid = c.oid) from pg_class c where c.oid = $1",
            &[table.oid.into(), switch_user::current().into()],
            |row| Ok((row.get::<bool>(1)?.unwrap_or(false), row.get::<bool>(2)?.unwrap_or(false))),
        )?;
        let (owns, is_referenced) = found.into_iter().next().unwrap_or_default();
        if !owns {
            return Err(Error::NotOwner(table.plain_name.clone()));
        }
        if with_key && is_referenced {
            return Err(Error::KeyNeeded(table.plain_name.clone()));
        }
    }
    Ok(())
}

/// Whether an index finds the resources of a table that contain a JSON object.
///
/// # Errors
/// As `owner_sql::query`.
pub fn serves_patterns(table: pg_sys::Oid) -> Result<bool, Error> {
    let found = owner_sql::select_latest(
        "select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam \
         join pg_attribute a on a.attrelid = i.indrelid and a.attname = 'resource' and a.attnum = any (i.indkey) \
         where i.indrelid = $1 and m.amname = 'gin' and i.indisvalid and i.indpred is null",
        &[table.into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// By which an index that is off is named here: with its table, since another may have a name of its.
const NAME: &str = "format('%I.%I.%I', d.schemaname, d.tablename, d.indexname)";

/// Takes the indexes off tables; without `with_key` the key on id stays. Gives their names, those with it that are off already.
///
/// # Errors
/// As `owner_sql::query`.
pub fn disable(tables: &[Table], with_key: bool) -> Result<Vec<String>, Error> {
    let path = guc::search_path();
    for table in tables {
        // Nobody makes another meanwhile, and nobody reads by one that goes.
        // SAFETY: a table that exists; the lock is kept to the transaction's end.
        unsafe { pg_sys::LockRelationOid(table.oid, pg_sys::AccessExclusiveLock as i32) };
        let dropped = owner_sql::query(INDEXES, &[table.oid.into(), with_key.into()], |row| {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            let names = (text(1)?, text(2)?, text(3)?);
            let statements = row.get::<Vec<String>>(7)?.unwrap_or_default();
            Ok((names, text(4)?, row.get::<String>(5)?, text(6)?, statements, row.get::<JsonB>(8)?, row.get::<String>(9)?))
        })?;
        for ((schema, name, index), definition, tablespace, drop, statements, entry, constraint_type) in dropped {
            ddl::run(&drop);
            owner_sql::run(
                "insert into bulk_internal.disabled_index (schemaname, tablename, indexname, indexdef, tablespace, statements, role, \
                    search_path, owner, entry, constraint_type) \
                 select $1, $2, $3, $4, $5, $6, pg_get_userbyid($7), $8, pg_get_userbyid(c.relowner), $10, $11 from pg_class c where c.oid = $9 \
                 on conflict (schemaname, tablename, indexname) do update \
                 set indexdef = excluded.indexdef, tablespace = excluded.tablespace, statements = excluded.statements, role = excluded.role, \
                     search_path = excluded.search_path, owner = excluded.owner, entry = excluded.entry, \
                     constraint_type = excluded.constraint_type, status = 'disabled', restore = null, message = null",
                &[
                    schema.into(),
                    name.into(),
                    index.into(),
                    definition.into(),
                    tablespace.into(),
                    statements.into(),
                    switch_user::current().into(),
                    path.as_str().into(),
                    table.oid.into(),
                    entry.into(),
                    constraint_type.into(),
                ],
            )?;
        }
    }
    Ok(tables.iter().map(off).collect::<Result<Vec<_>, Error>>()?.concat())
}

/// The indexes that are off a table. Those of constraints come first: while one is put back nobody else is at the table.
fn off(table: &Table) -> Result<Vec<String>, Error> {
    let found = owner_sql::query(
        &format!(
            "select {NAME} from bulk_internal.disabled_index d join pg_class c on c.relname = d.tablename \
             join pg_namespace n on n.oid = c.relnamespace and n.nspname = d.schemaname \
             where c.oid = $1 and d.status = 'disabled' order by d.constraint_type is null, d.indexname"
        ),
        &[table.oid.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// What became of an index that was to be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// Its name as SQL spells it.
    Done(String),
    /// It is there, or nothing is known of it, or why it cannot be is written down.
    NotNeeded,
    /// A job that is at work does without it, and puts it back.
    Held,
}

/// An index that is off.
struct Off {
    schema: String,
    table: String,
    index: String,
    /// As the catalog had it: `bulk_internal.index_entry`.
    entry: JsonB,
    /// Whether it is that of a constraint: the table is locked for its sake.
    is_constraint: bool,
    tablespace: String,
    statements: Vec<String>,
    path: String,
    owner: String,
}

/// Puts an index back whose turn has come in a job. The task ends with it, so that of two jobs that wait for each other's index one does it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn restore_task(task: &Task) -> Result<(), Error> {
    restore(&task.source, Some(task.number))?;
    task_progress::end(task, None)
}

/// Puts an index back, as the owner of its table, if that is who it was. `task` is whose work that is.
///
/// # Errors
/// As `owner_sql::query`.
pub fn restore(name: &str, task: Option<i64>) -> Result<Restored, Error> {
    // Checked before the row is waited for: the session that holds it may wait for this one.
    if task.is_none() && job_report::is_held(name, None)? {
        return Ok(Restored::Held);
    }
    let Some(off) = lock_disabled(name, task.is_some())? else {
        return Ok(if task.is_none() && is_disabled(name)? { Restored::Held } else { Restored::NotNeeded });
    };
    if job_report::is_held(name, task)? {
        return Ok(Restored::Held);
    }
    let began = std::time::Instant::now();
    let (table, owner, is_taken, is_there) = match look_at_table(&off)? {
        Some((Some((table, owner)), true, is_taken, is_there)) => (table, owner, is_taken, is_there),
        Some((Some(_), false, ..)) => {
            // What it calls would run with another's rights.
            record_failure(name, &format!("table \"{}.{}\" is no longer of \"{}\"", off.schema, off.table, off.owner))?;
            return Ok(Restored::NotNeeded);
        }
        _ => {
            record_failure(name, &format!("table \"{}.{}\" is gone", off.schema, off.table))?;
            return Ok(Restored::NotNeeded);
        }
    };
    if is_taken && !is_there {
        record_failure(name, &format!("another relation has the name \"{}\"", off.index))?;
        return Ok(Restored::NotNeeded);
    }
    if !is_there {
        remake_as_owner(&off, table, owner)?;
    }
    owner_sql::run(
        &format!(
            "update bulk_internal.disabled_index d set status = 'restored', message = null, restore = jsonb_build_object( \
                'start', clock_timestamp() - make_interval(secs => $2 / 1000.0), 'end', clock_timestamp(), 'duration', $2) \
             where {NAME} = $1 and d.status = 'disabled'"
        ),
        &[name.into(), (began.elapsed().as_millis() as i64).into()],
    )?;
    Ok(Restored::Done(pgrx::spi::quote_qualified_identifier(off.schema, off.index)))
}

/// Whether an index is off by now.
fn is_disabled(name: &str) -> Result<bool, Error> {
    let found = owner_sql::select_latest(
        &format!("select from bulk_internal.disabled_index d where {NAME} = $1 and d.status = 'disabled'"),
        &[name.into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// What is written down of an index that is off, whose row is locked from then on; None for one that is not off, or, without `waits`, that another
/// session is putting back.
fn lock_disabled(name: &str, waits: bool) -> Result<Option<Off>, Error> {
    let skip = if waits { "" } else { "skip locked" };
    let found = owner_sql::query(
        &format!(
            "select d.schemaname, d.tablename, d.indexname, d.tablespace, d.statements, d.entry, d.search_path, d.owner, \
                d.constraint_type is not null \
             from bulk_internal.disabled_index d where {NAME} = $1 and d.status = 'disabled' for update {skip}"
        ),
        &[name.into()],
        |row| {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            let statements = row.get::<Vec<String>>(5)?.unwrap_or_default();
            let entry = row.get::<JsonB>(6)?.unwrap_or(JsonB(Value::Null));
            let (path, owner, is_constraint) = (text(7)?, text(8)?, row.get::<bool>(9)?.unwrap_or(false));
            Ok(Off {
                schema: text(1)?,
                table: text(2)?,
                index: text(3)?,
                tablespace: text(4)?,
                entry,
                is_constraint,
                statements,
                path,
                owner,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// The table of an index that is off: itself and its owner, whether that is who it was, whether the index's name is taken, and by the index itself.
type TableOfIndex = (Option<(pg_sys::Oid, pg_sys::Oid)>, bool, bool, bool);

fn look_at_table(off: &Off) -> Result<Option<TableOfIndex>, Error> {
    let found = owner_sql::select_latest(
        "select c.oid, c.relowner, pg_get_userbyid(c.relowner)::text = $6, \
            exists (select from pg_class x where x.relnamespace = c.relnamespace and x.relname = $3), \
            exists (select from pg_class x join pg_index i on i.indexrelid = x.oid where x.relnamespace = c.relnamespace and x.relname = $3 \
                and i.indrelid = c.oid and i.indisvalid and bulk_internal.index_entry(x.oid) = $4 \
                and (not $5 or exists (select from pg_constraint k where k.conindid = x.oid and k.conrelid = c.oid))) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2 and c.relkind = 'r'",
        &[
            off.schema.as_str().into(),
            off.table.as_str().into(),
            off.index.as_str().into(),
            JsonB(off.entry.0.clone()).into(),
            off.is_constraint.into(),
            off.owner.as_str().into(),
        ],
        |row| {
            let is = |column| row.get::<bool>(column).map(Option::unwrap_or_default);
            Ok((row.get::<pg_sys::Oid>(1)?.zip(row.get::<pg_sys::Oid>(2)?), is(3)?, is(4)?, is(5)?))
        },
    )?;
    Ok(found.into_iter().next())
}

/// Makes an index again, as the owner of its table, under the settings that it was made under.
fn remake_as_owner(off: &Off, table: pg_sys::Oid, owner: pg_sys::Oid) -> Result<(), Error> {
    // At once, so that nobody waits for one another.
    let lock = if off.is_constraint { pg_sys::AccessExclusiveLock } else { pg_sys::ShareLock };
    // SAFETY: any oid may be locked.
    unsafe { pg_sys::LockRelationOid(table, lock as i32) };
    let tablespace = CString::new(off.tablespace.as_str()).unwrap_or_default();
    let path = CString::new(format!("pg_catalog{}{}", if off.path.is_empty() { "" } else { ", " }, off.path)).unwrap_or_default();
    let run = || {
        guc::within(&[(c"search_path", path.as_c_str()), (c"default_tablespace", tablespace.as_c_str())], || {
            off.statements.iter().try_for_each(|statement| sql::run(statement, &[]).map(drop))
        })
    };
    switch_user::within(owner, run)
}

/// Writes down why an index is still off.
///
/// # Errors
/// As `owner_sql::query`.
pub fn record_failure(name: &str, message: &str) -> Result<(), Error> {
    owner_sql::run(
        &format!("update bulk_internal.disabled_index d set message = $2 where {NAME} = $1 and d.status = 'disabled'"),
        &[name.into(), message.into()],
    )
}

/// The indexes that are off a table, or all, which the current user may put back: as owner of the table or as administrator.
///
/// # Errors
/// As `owner_sql::query`.
pub fn restorable(table: Option<pg_sys::Oid>) -> Result<Vec<String>, Error> {
    let may = "bulk_internal.may_act(pg_get_userbyid($1), pg_get_userbyid(c.relowner))";
    if let Some(oid) = table {
        let found = resource_table::describe(oid)?;
        let query = format!("select {may} from pg_class c where c.oid = $2");
        let may = owner_sql::select_latest(&query, &[switch_user::current().into(), oid.into()], |row| row.get::<bool>(1))?;
        return if may.into_iter().flatten().any(|may| may) { off(&found) } else { Err(Error::NotOwner(found.plain_name)) };
    }
    let found = owner_sql::select_latest(
        &format!(
            "select {NAME} from bulk_internal.disabled_index d join pg_class c on c.relname = d.tablename \
             join pg_namespace n on n.oid = c.relnamespace and n.nspname = d.schemaname where d.status = 'disabled' and {may} \
             order by d.schemaname, d.tablename, d.constraint_type is null, d.indexname"
        ),
        &[switch_user::current().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}
