//! Rows written with regard for what is there: versions that are overwritten go to the history, or ids that exist are refused or passed
//! over. Every line counts, also one that a later line of the batch replaces: the lines of one id go one after another.

use super::diagnostics;
use super::general::{General, OnExisting};
use super::stage;
use super::table::{self, Table};
use crate::error::{Error, Fault};
use crate::op::batch::{Batch, Occurrence, Row};
use crate::op::policy::{OnConflict, Policy};
use pgrx::pg_sys;

/// How often rows that other sessions insert at the same time are looked for anew.
const TRIES: usize = 20;

/// The way into one table.
#[derive(Debug)]
pub struct Careful {
    policy: Policy,
    /// Locks the rows that exist, each in its newest version.
    lock: String,
    /// Copies them to the history; None where that is not asked for.
    archive: Option<String>,
    overwrite: General,
    insert: General,
}

impl Careful {
    pub fn new(table: &Table, resource_type: &str, sequence: pg_sys::Oid, policy: Policy) -> Result<Careful, Error> {
        let join = format!("from bulk_rows u join {} t on t.id operator(pg_catalog.=) u.id", table.name);
        let archive = match policy {
            Policy { keep_history: true, on_conflict: OnConflict::Overwrite } => {
                let columns = table::history_columns(table)?;
                let read: Vec<String> = columns.names.iter().map(|name| format!("t.{name}")).collect();
                Some(format!(
                    "insert into {} ({}) select {} {join} returning -1::pg_catalog.int8",
                    columns.table,
                    columns.names.join(", "),
                    read.join(", ")
                ))
            }
            _ => None,
        };
        Ok(Careful {
            policy,
            lock: format!("select u.number {join} order by t.id for update of t"),
            archive,
            overwrite: General::new(table, resource_type, sequence, OnExisting::Overwrite),
            insert: General::new(table, resource_type, sequence, OnExisting::PassOver),
        })
    }

    /// Writes a batch's rows of one type. Returns how many lines were stored.
    pub fn write(&self, batch: &Batch, rows: &[&Row]) -> Result<u64, Error> {
        let mut stored = 0;
        for wave in waves(rows) {
            stored += match self.policy.on_conflict {
                OnConflict::Overwrite => self.overwrite(batch, wave)?,
                OnConflict::Skip => self.insert.insert(batch, &wave)?.iter().filter(|&&inserted| inserted).count() as u64,
                OnConflict::Error => self.insert_all(batch, &wave)?,
            };
        }
        Ok(stored)
    }

    /// Ids that exist are overwritten, their versions copied before. What others insert in the meantime exists at the next look.
    fn overwrite(&self, batch: &Batch, wave: Vec<&Row>) -> Result<u64, Error> {
        let count = wave.len() as u64;
        let mut rest = wave;
        for _ in 0..TRIES {
            let (present, absent) = self.split(batch, rest)?;
            if !present.is_empty() {
                if let Some(archive) = &self.archive {
                    stage::mark(batch, &present, archive, &[])?;
                }
                self.overwrite.write(batch, &present)?;
            }
            rest = without(&absent, &self.insert.insert(batch, &absent)?);
            // What a trigger keeps from being stored is no other's row.
            rest = self.split(batch, rest)?.0;
            if rest.is_empty() {
                return Ok(count);
            }
        }
        Err(Error::Internal("rows of a load appear and vanish time and again".to_owned()))
    }

    fn insert_all(&self, batch: &Batch, wave: &[&Row]) -> Result<u64, Error> {
        let inserted = self.insert.insert(batch, wave)?;
        match self.split(batch, without(wave, &inserted))?.0.iter().min_by_key(|row| row.line) {
            Some(row) => Err(Error::Line { place: batch.place(row), fault: Fault::Exists }),
            None => Ok(wave.len() as u64),
        }
    }

    /// Those that exist, locked from now on, and those that do not.
    fn split<'a>(&self, batch: &Batch, rows: Vec<&'a Row>) -> Result<(Vec<&'a Row>, Vec<&'a Row>), Error> {
        if rows.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let exists = diagnostics::keep(Some(&batch.extent()), || stage::mark(batch, &rows, &self.lock, &[]))?;
        let (present, absent): (Vec<_>, Vec<_>) = rows.into_iter().zip(exists).partition(|(_, exists)| *exists);
        let rows = |pairs: Vec<(&'a Row, bool)>| pairs.into_iter().map(|(row, _)| row).collect();
        Ok((rows(present), rows(absent)))
    }
}

fn without<'a>(rows: &[&'a Row], done: &[bool]) -> Vec<&'a Row> {
    rows.iter().zip(done).filter(|(_, done)| !**done).map(|(row, _)| *row).collect()
}

/// Rows of distinct ids, the lines of each id in their order: the first wave holds the first line of every id. Waves are in the order of the
/// ids, in which all writers lock them.
fn waves<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    let mut ordered = rows.to_vec();
    ordered.sort_unstable_by_key(|row| row.rank);
    let mut waves: Vec<Vec<&Row>> = Vec::new();
    let mut wave = 0;
    for row in ordered {
        if waves.len() == wave {
            waves.push(Vec::new());
        }
        waves[wave].push(row);
        wave = if row.occurrence == Occurrence::Replaced { wave + 1 } else { 0 };
    }
    waves
}
