//! Writes rows by one `insert … select … on conflict` a batch and table, through SPI. It works on any kind of
//! table: with triggers, partitions, foreign keys, row security; and for rows that exist.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::sys::{sql, sqlstate};
use crate::pg::write::destination::LastLineWins;
use crate::pipeline::load::batch::{Batch, Occurrence, Row};
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::pg_sys;
use std::collections::HashSet;

/// What becomes of ids that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    Overwrite,
    DoNothing,
    /// They are an ERROR of the key's.
    Raise,
}

/// Whether rows bring what the server else gives them: version and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaSource {
    Given,
    /// The version alone, of which the highest stays: lines come in any order.
    Ordered(LastLineWins),
    FromLines,
    /// And are missing where a line has none.
    FromLinesAlone,
}

/// How to write to one table.
#[derive(Debug)]
pub struct SqlWriter {
    table: Table,
    statement: String,
    sequence: pg_sys::Oid,
    meta_source: MetaSource,
    /// Whether the statement returns the ids of the rows that it writes.
    returns: bool,
}

impl SqlWriter {
    /// Prepares the statement for a table.
    pub fn new(table: &Table, resource_type: &str, sequence: pg_sys::Oid, existing: OnExisting, meta_source: MetaSource) -> SqlWriter {
        let mut statement = insert_statement(table, resource_type, existing, meta_source, &unnested(meta_source));
        let returns = existing == OnExisting::DoNothing || resource_table::returns_what_triggers_leave(table.oid);
        if returns {
            statement.push_str(" returning id::pg_catalog.text");
        }
        SqlWriter { table: table.clone(), statement, sequence, meta_source, returns }
    }

    /// Writes rows with distinct ids over what is there. Those that a trigger or a rule kept from being stored.
    ///
    /// # Errors
    /// As `sql::query`.
    pub fn write<'a>(&self, batch: &Batch, rows: &[&'a Row]) -> Result<Vec<&'a Row>, Error> {
        let (ids, written) = self.run(batch, rows)?;
        let swallowed = rows.len().saturating_sub(written);
        Ok(match self.returns {
            _ if swallowed == 0 => Vec::new(),
            true => rows.iter().copied().filter(|row| !ids.contains(batch.id(row))).collect(),
            // Of what a rule leaves out only the number is known.
            false => rows[..swallowed].to_vec(),
        })
    }

    /// Inserts rows with distinct ids; true at the index of each that came to be.
    ///
    /// # Errors
    /// As `sql::query`.
    pub fn insert(&self, batch: &Batch, rows: &[&Row]) -> Result<Vec<bool>, Error> {
        let ids = if rows.is_empty() { HashSet::new() } else { self.run(batch, rows)?.0 };
        Ok(rows.iter().map(|row| ids.contains(batch.id(row))).collect())
    }

    /// The ids that the statement returns, and how many rows it wrote. Rows are written in the order of their ids, in which all writers lock them.
    fn run(&self, batch: &Batch, rows: &[&Row]) -> Result<(HashSet<String>, usize), Error> {
        let mut rows = rows.to_vec();
        rows.sort_unstable_by_key(|row| row.rank);
        let rows = rows.as_slice();
        self.table.require_name()?;
        sql::with_client(Some(&batch.extent()), |client| {
            let mut arguments = vec![
                sql::regclass(self.sequence),
                // SAFETY: a datum of this type, in SPI's memory, which lives to the end of the closure.
                unsafe { DatumWithOid::new(ids(batch, rows), pg_sys::TEXTARRAYOID) },
                // SAFETY: an array of jsonb, in SPI's memory too.
                unsafe { DatumWithOid::new(resources(batch, rows), pg_sys::JSONBARRAYOID) },
                // SAFETY: an array of booleans, in SPI's memory too.
                unsafe { DatumWithOid::new(repeats(rows), pg_sys::BOOLARRAYOID) },
            ];
            if self.meta_source != MetaSource::Given {
                let time = |time: Option<i64>| time.and_then(|time| TimestampWithTimeZone::try_from(time).ok());
                arguments.push(rows.iter().map(|row| row.meta.version).collect::<Vec<_>>().into());
                arguments.push(rows.iter().map(|row| time(row.meta.last_updated)).collect::<Vec<_>>().into());
                arguments.push(rows.iter().map(|row| time(row.meta.created_at)).collect::<Vec<_>>().into());
            }
            let mut ids = HashSet::new();
            let returned = client.update(&self.statement, None, &arguments)?;
            let written = returned.len();
            if self.returns {
                for row in returned {
                    ids.extend(row.get::<String>(1)?);
                }
            }
            Ok((ids, written))
        })
    }
}

/// A batch's rows as `statement` reads them: $2 ids, $3 resources, $4 whether the id stood in an earlier line of the batch. Of facts from
/// lines, null where a line has none: $5 versions, $6 and $7 times of the last update and of creation.
fn unnested(meta_source: MetaSource) -> String {
    let meta_source = match meta_source {
        MetaSource::Given => "",
        MetaSource::Ordered(_) | MetaSource::FromLines | MetaSource::FromLinesAlone => {
            ", pg_catalog.unnest($5) as version, pg_catalog.unnest($6) as updated, pg_catalog.unnest($7) as created"
        }
    };
    format!("select pg_catalog.unnest($2) as id, pg_catalog.unnest($3) as resource, pg_catalog.unnest($4) as repeated{meta_source}")
}

/// Inserts what `source` selects: id, resource, repeated, and the facts where they are from lines. $1 is the sequence.
pub fn insert_statement(table: &Table, resource_type: &str, existing: OnExisting, meta_source: MetaSource, source: &str) -> String {
    let status = &table.status_type;
    let created = match resource_table::history(table) {
        Some((_, history)) => format!(
            "when (select {} from {history} h where h.id operator(pg_catalog.=) u.id \
             order by h.txid desc limit 1) then 'recreated'::{status}",
            resource_table::is_deleted("h.status")
        ),
        None => String::new(),
    };
    let or = |fact: &str, default: &str| match meta_source {
        MetaSource::Ordered(_) if fact == "u.version" => fact.to_owned(),
        MetaSource::Given | MetaSource::Ordered(_) => default.to_owned(),
        MetaSource::FromLines => format!("coalesce({fact}, {default})"),
        MetaSource::FromLinesAlone => fact.to_owned(),
    };
    let mut columns = vec!["id", "txid", "status", "resource"];
    let mut values = vec![
        "u.id".to_owned(),
        or("u.version", "pg_catalog.nextval($1)"),
        format!("case when u.repeated then 'updated'::{status} {created} else 'created'::{status} end"),
        "u.resource".to_owned(),
    ];
    if table.has_cts {
        columns.push("cts");
        // Of a row that exists it stays, unless the line says another.
        let before = format!("(select e.cts from {} e where e.id operator(pg_catalog.=) u.id)", table.name);
        values.push(or("u.created", &or(&before, "pg_catalog.now()")));
    }
    if table.has_ts {
        columns.push("ts");
        values.push(or("u.updated", "pg_catalog.now()"));
    }
    if table.has_resource_type {
        columns.push("resource_type");
        values.push(pgrx::spi::quote_literal(resource_type));
    }
    let kept = columns.iter().filter(|name| match **name {
        "id" | "status" => false,
        "cts" => matches!(meta_source, MetaSource::FromLines | MetaSource::FromLinesAlone),
        _ => true,
    });
    let update = |name: &&str| match meta_source {
        MetaSource::Ordered(order) => format!("{name} = case when {} then t.{name} else excluded.{name} end", order.stays("excluded.txid")),
        _ => format!("{name} = excluded.{name}"),
    };
    let updates: Vec<String> = kept.map(update).collect();
    let then = match existing {
        OnExisting::Overwrite => format!("on conflict (id) do update set status = 'updated'::{status}, {}", updates.join(", ")),
        OnExisting::DoNothing => "on conflict (id) do nothing".to_owned(),
        OnExisting::Raise => String::new(),
    };
    format!("insert into {} as t ({}) select {} from ({source}) u {then}", table.name, columns.join(", "), values.join(", "))
}

fn ids(batch: &Batch, rows: &[&Row]) -> pg_sys::Datum {
    // Whole varlenas in the batch's buffers, which outlive the statement and are aligned by their maker; as are the resources.
    let datums = rows.iter().map(|row| pg_sys::Datum::from(batch.id_varlena(row).as_ptr())).collect();
    array(datums, pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT)
}

fn resources(batch: &Batch, rows: &[&Row]) -> pg_sys::Datum {
    let datums = rows.iter().map(|row| pg_sys::Datum::from(batch.resource(row).as_ptr())).collect();
    array(datums, pg_sys::JSONBOID, -1, false, pg_sys::TYPALIGN_INT)
}

fn repeats(rows: &[&Row]) -> pg_sys::Datum {
    let datums = rows.iter().map(|row| pg_sys::Datum::from(row.occurrence == Occurrence::Last)).collect();
    array(datums, pg_sys::BOOLOID, 1, true, pg_sys::TYPALIGN_CHAR)
}

fn array(mut elements: Vec<pg_sys::Datum>, kind: pg_sys::Oid, length: i16, by_value: bool, alignment: u8) -> pg_sys::Datum {
    // SAFETY: the elements are datums of the type that is described; they are copied.
    let made = unsafe {
        pg_sys::construct_array(elements.as_mut_ptr(), elements.len() as i32, kind, length.into(), by_value, alignment as std::ffi::c_char)
    };
    sqlstate::ok(if made.is_null() { Err(Error::Memory) } else { Ok(pg_sys::Datum::from(made)) })
}
