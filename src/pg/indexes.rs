//! Indexes that a load of buckets takes off its tables, and puts back when it is through. What puts one back is written down in the
//! transaction that drops it, so none is ever lost.

use super::parts::Part;
use super::table::Table;
use super::{create, jobs, owner, parts, role, setting, table};
use crate::error::Error;
use pgrx::pg_sys;
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
                a.attstattarget), '; ') from pg_attribute a where a.attrelid = x.oid and a.attstattarget >= 0)], null) \
     from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class c on c.oid = i.indrelid \
     join pg_namespace n on n.oid = c.relnamespace left join pg_tablespace s on s.oid = x.reltablespace \
     left join pg_constraint k on k.conindid = x.oid and k.conrelid = c.oid and k.contype in ('p', 'u') \
     where c.oid = $1 and i.indisvalid and not i.indisexclusion and x.relkind = 'i' and c.relkind = 'r' and not c.relispartition \
       and not exists (select from pg_constraint f where f.contype = 'f' and f.conindid = x.oid) \
       and ($2 or not (i.indisprimary or (i.indisunique and i.indnkeyatts = 1 and i.indpred is null and i.indexprs is null \
            and (select a.attname = 'id' from pg_attribute a where a.attrelid = c.oid and a.attnum = i.indkey[0])))) \
     order by x.relname";

/// Refuses tables whose indexes the current user may not drop, and keys that foreign keys need: before anything is dropped.
pub fn require_droppable(tables: &[Table], with_key: bool) -> Result<(), Error> {
    for table in tables {
        let found = owner::look(
            "select pg_has_role($2, c.relowner, 'usage'), \
               exists (select from pg_constraint f where f.contype = 'f' and f.confrelid = c.oid) from pg_class c where c.oid = $1",
            &[table.oid.into(), role::current().into()],
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

/// Takes the indexes off tables; without `with_key` the key on id stays. Gives their names as SQL spells them, those with it that are off already.
pub fn disable(tables: &[Table], with_key: bool) -> Result<Vec<String>, Error> {
    for table in tables {
        // Nobody makes another meanwhile, and nobody reads by one that goes.
        // SAFETY: a table that exists; the lock is kept to the transaction's end.
        unsafe { pg_sys::LockRelationOid(table.oid, pg_sys::AccessExclusiveLock as i32) };
        let dropped = owner::query(INDEXES, &[table.oid.into(), with_key.into()], |row| {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            Ok((text(1)?, text(2)?, text(3)?, text(4)?, row.get::<String>(5)?, text(6)?, row.get::<Vec<String>>(7)?.unwrap_or_default()))
        })?;
        for (schema, table, index, definition, tablespace, drop, statements) in dropped {
            create::run(&drop);
            owner::run(
                "insert into bulk.disabled_index (schemaname, tablename, indexname, indexdef, tablespace, statements, role) \
                 values ($1, $2, $3, $4, $5, $6, pg_get_userbyid($7)) on conflict (schemaname, tablename, indexname) do update \
                 set indexdef = excluded.indexdef, tablespace = excluded.tablespace, statements = excluded.statements, role = excluded.role, \
                     status = 'disabled', restore = null, message = null",
                &[
                    schema.into(),
                    table.into(),
                    index.into(),
                    definition.into(),
                    tablespace.into(),
                    statements.into(),
                    role::current().into(),
                ],
            )?;
        }
    }
    Ok(tables.iter().map(off).collect::<Result<Vec<_>, Error>>()?.concat())
}

/// The indexes that are off a table. Those of constraints come first: while one is put back nobody else is at the table.
fn off(table: &Table) -> Result<Vec<String>, Error> {
    let found = owner::query(
        "select format('%I.%I', d.schemaname, d.indexname) from bulk.disabled_index d join pg_class c on c.relname = d.tablename \
         join pg_namespace n on n.oid = c.relnamespace and n.nspname = d.schemaname \
         where c.oid = $1 and d.status = 'disabled' order by array_length(d.statements, 1) desc, d.indexname",
        &[table.oid.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// What became of an index that was to be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    Done,
    /// It is there, or nothing is known of it.
    NotNeeded,
    /// A job that is at work does without it, and puts it back.
    Held,
}

/// An index that is off.
struct Off {
    schema: String,
    table: String,
    index: String,
    tablespace: String,
    statements: Vec<String>,
}

/// Puts an index back whose turn has come in a job. The part ends with it, so that of two jobs that wait for each other's index one does it.
pub fn restore_part(part: &Part) -> Result<(), Error> {
    restore(&part.source, Some(part.number))?;
    parts::end(part, None)
}

/// Puts an index back, by its name as SQL spells it, as the owner of its table. `part` is whose work that is.
pub fn restore(name: &str, part: Option<i64>) -> Result<Restored, Error> {
    let found = owner::query(
        "select schemaname, tablename, indexname, tablespace, statements from bulk.disabled_index \
         where format('%I.%I', schemaname, indexname) = $1 and status = 'disabled' for update",
        &[name.into()],
        |row| {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            let statements = row.get::<Vec<String>>(5)?.unwrap_or_default();
            Ok(Off { schema: text(1)?, table: text(2)?, index: text(3)?, tablespace: text(4)?, statements })
        },
    )?;
    let Some(off) = found.into_iter().next() else { return Ok(Restored::NotNeeded) };
    if jobs::is_held(name, part)? {
        return Ok(Restored::Held);
    }
    let began = std::time::Instant::now();
    let found = owner::look(
        "select c.oid, c.relowner, exists (select from pg_class x where x.relnamespace = c.relnamespace and x.relname = $3) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2",
        &[off.schema.as_str().into(), off.table.as_str().into(), off.index.as_str().into()],
        |row| Ok((row.get::<pg_sys::Oid>(1)?.zip(row.get::<pg_sys::Oid>(2)?), row.get::<bool>(3)?.unwrap_or(false))),
    )?;
    let Some((Some((table, owner)), is_there)) = found.into_iter().next() else {
        note(name, &format!("table \"{}.{}\" is gone", off.schema, off.table))?;
        return Ok(Restored::NotNeeded);
    };
    if !is_there {
        let is_constraint = off.statements.iter().any(|statement| statement.starts_with("alter table"));
        // Where a constraint is added the table is locked for its sake: at once, so that nobody waits for one another.
        let lock = if is_constraint { pg_sys::AccessExclusiveLock } else { pg_sys::ShareLock };
        // SAFETY: any oid may be locked.
        unsafe { pg_sys::LockRelationOid(table, lock as i32) };
        let tablespace = CString::new(off.tablespace.as_str()).unwrap_or_default();
        let run = || {
            setting::within(&[(c"search_path", c"pg_catalog, pg_temp"), (c"default_tablespace", tablespace.as_c_str())], || {
                off.statements.iter().try_for_each(|statement| pgrx::Spi::run(statement))
            })
        };
        role::within(owner, run).map_err(|error| Error::Internal(error.to_string()))?;
    }
    owner::run(
        "update bulk.disabled_index set status = 'restored', message = null, restore = jsonb_build_object( \
            'start', clock_timestamp() - make_interval(secs => $2 / 1000.0), 'end', clock_timestamp(), 'duration', $2) \
         where format('%I.%I', schemaname, indexname) = $1 and status = 'disabled'",
        &[name.into(), (began.elapsed().as_millis() as i64).into()],
    )?;
    Ok(Restored::Done)
}

/// Writes down why an index is still off.
pub fn note(name: &str, message: &str) -> Result<(), Error> {
    owner::run(
        "update bulk.disabled_index set message = $2 where format('%I.%I', schemaname, indexname) = $1 and status = 'disabled'",
        &[name.into(), message.into()],
    )
}

/// The indexes that are off a table, or all, which the current user may put back: as owner of the table or as administrator.
pub fn restorable(table: Option<pg_sys::Oid>) -> Result<Vec<String>, Error> {
    if let Some(oid) = table {
        let found = table::describe(oid)?;
        let may = owner::look(
            "select pg_has_role($2, c.relowner, 'usage') or pg_has_role($2, 'bulk_admin', 'usage') from pg_class c where c.oid = $1",
            &[oid.into(), role::current().into()],
            |row| row.get::<bool>(1),
        )?;
        return if may.into_iter().flatten().any(|may| may) { off(&found) } else { Err(Error::NotOwner(found.plain_name)) };
    }
    let found = owner::look(
        "select format('%I.%I', d.schemaname, d.indexname) from bulk.disabled_index d join pg_class c on c.relname = d.tablename \
         join pg_namespace n on n.oid = c.relnamespace and n.nspname = d.schemaname \
         where d.status = 'disabled' and (pg_has_role($1, c.relowner, 'usage') or pg_has_role($1, 'bulk_admin', 'usage')) \
         order by d.schemaname, d.tablename, array_length(d.statements, 1) desc, d.indexname",
        &[role::current().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}
