//! Writes rows where existing rows matter: overwritten versions go to the history, or ids that exist are refused or skipped.
//! Every line counts, also one that a later line of the batch replaces: the lines of one id go one after another.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::catalog::txid_sequence;
use crate::pg::write::batch_relation;
use crate::pg::write::sql_writer::{MetaSource, OnExisting, SqlWriter};
use crate::pipeline::load::batch::{Batch, Occurrence, Row};
use crate::pipeline::load::encode::TakeMeta;
use crate::pipeline::load::existing_rows::{OnConflict, Policy};
use pgrx::pg_sys;

/// How often rows that other sessions insert at the same time are looked for anew.
const MAX_ROUNDS: usize = 20;

/// What became of rows.
#[derive(Debug, Default)]
pub struct WriteOutcome<'a> {
    pub stored: u64,
    pub skipped: u64,
    /// Rows whose ids exist.
    pub refused: Vec<&'a Row>,
}

/// The way into one table.
#[derive(Debug)]
pub struct ConflictWriter {
    table: Table,
    policy: Policy,
    /// Locks the rows that exist, each in its newest version.
    lock: String,
    /// Finds those of them that are older than their lines.
    older: String,
    sequence: pg_sys::Oid,
    schema: pg_sys::Oid,
    is_stage: bool,
    /// Copies them to the history; None where that is not asked for.
    archive: Option<String>,
    overwrite: SqlWriter,
    insert: SqlWriter,
}

impl ConflictWriter {
    /// Prepares the statements for a table.
    ///
    /// # Errors
    /// `NoHistory` and the like where `policy` needs a history table that is missing or of another shape; `NoUpdateTime` where it compares times that the table lacks.
    pub fn new(table: &Table, resource_type: &str, sequence: pg_sys::Oid, policy: Policy, is_stage: bool) -> Result<ConflictWriter, Error> {
        let join = format!("from bulk_rows u join {} t on t.id operator(pg_catalog.=) u.id", table.name);
        let archive = match policy {
            Policy { keep_history: true, on_conflict: OnConflict::Overwrite | OnConflict::Newer, .. } => {
                let columns = resource_table::history_columns(table)?;
                let read: Vec<String> = columns.names.iter().map(|name| format!("t.{name}")).collect();
                Some(format!(
                    // A version that is stored again is no earlier one.
                    "insert into {} ({}) select {} {join} where u.version is null or t.txid operator(pg_catalog.<>) u.version \
                     returning -1::pg_catalog.int8",
                    columns.table,
                    columns.names.join(", "),
                    read.join(", ")
                ))
            }
            _ => None,
        };
        if policy.on_conflict == OnConflict::Newer && !table.has_ts {
            return Err(Error::NoUpdateTime(table.plain_name.clone()));
        }
        let meta_source = match (policy.take_meta(), is_stage) {
            (TakeMeta::Nothing, _) => MetaSource::Given,
            (_, true) => MetaSource::FromLinesAlone,
            (_, false) => MetaSource::FromLines,
        };
        Ok(ConflictWriter {
            table: table.clone(),
            policy,
            lock: format!("select u.number {join} order by t.id collate pg_catalog.\"C\" for update of t"),
            older: format!("select u.number {join} where t.ts is null or t.ts operator(pg_catalog.<) u.updated"),
            archive,
            overwrite: SqlWriter::new(table, resource_type, sequence, OnExisting::Overwrite, meta_source),
            insert: SqlWriter::new(table, resource_type, sequence, OnExisting::DoNothing, meta_source),
            sequence,
            schema: table.schema,
            is_stage,
        })
    }

    /// Writes a batch's rows of one type.
    ///
    /// # Errors
    /// As `sql::query`; `DuplicateId` and the like by `on-conflict`.
    pub fn write<'a>(&self, batch: &Batch, rows: &[&'a Row]) -> Result<WriteOutcome<'a>, Error> {
        let mut written = WriteOutcome::default();
        for round in rounds_of_distinct_ids(rows) {
            let count = round.len() as u64;
            let (skipped, refused) = match self.policy.on_conflict {
                OnConflict::Overwrite | OnConflict::Newer => (self.overwrite(batch, round)?, Vec::new()),
                OnConflict::Skip => (self.insert.insert(batch, &round)?.iter().filter(|&&inserted| !inserted).count() as u64, Vec::new()),
                OnConflict::Error => self.insert_new(batch, &round)?,
            };
            written.stored += count - skipped - refused.len() as u64;
            written.skipped += skipped;
            written.refused.extend(refused);
        }
        if self.policy.keep_meta
            && !self.is_stage
            && let Some(last) = rows.iter().filter_map(|row| row.meta.version).max()
        {
            txid_sequence::move_past(self.sequence, self.schema, last)?;
        }
        Ok(written)
    }

    /// Ids that exist are overwritten, their versions copied before. What others insert in the meantime exists at the next look. Returns how
    /// many lines are skipped.
    fn overwrite(&self, batch: &Batch, round: Vec<&Row>) -> Result<u64, Error> {
        let mut skipped = 0;
        let mut rest = round;
        for _ in 0..MAX_ROUNDS {
            let (mut present, absent) = self.split(batch, rest)?;
            if self.policy.on_conflict == OnConflict::Newer {
                let older = self.marked(batch, &present, &self.older)?;
                skipped += older.iter().filter(|older| !**older).count() as u64;
                present = present.into_iter().zip(older).filter(|(_, older)| *older).map(|(row, _)| row).collect();
            }
            if !present.is_empty() {
                if let Some(archive) = &self.archive {
                    self.marked(batch, &present, archive)?;
                }
                skipped += self.overwrite.write(batch, &present)?.len() as u64;
            }
            rest = without(&absent, &self.insert.insert(batch, &absent)?);
            // What a trigger keeps from being stored is no other's row.
            let (others, swallowed) = self.split(batch, rest)?;
            skipped += swallowed.len() as u64;
            rest = others;
            if rest.is_empty() {
                return Ok(skipped);
            }
        }
        Err(Error::Internal("rows of a load appear and vanish time and again".to_owned()))
    }

    /// Inserts the rows whose ids are new: how many of them a trigger kept from being stored, and the others.
    fn insert_new<'a>(&self, batch: &Batch, round: &[&'a Row]) -> Result<(u64, Vec<&'a Row>), Error> {
        let inserted = self.insert.insert(batch, round)?;
        let (others, swallowed) = self.split(batch, without(round, &inserted))?;
        Ok((swallowed.len() as u64, others))
    }

    /// Those that exist, locked from now on, and those that do not.
    fn split<'a>(&self, batch: &Batch, rows: Vec<&'a Row>) -> Result<(Vec<&'a Row>, Vec<&'a Row>), Error> {
        let exists = self.marked(batch, &rows, &self.lock)?;
        let (present, absent): (Vec<_>, Vec<_>) = rows.into_iter().zip(exists).partition(|(_, exists)| *exists);
        let rows = |pairs: Vec<(&'a Row, bool)>| pairs.into_iter().map(|(row, _)| row).collect();
        Ok((rows(present), rows(absent)))
    }

    fn marked(&self, batch: &Batch, rows: &[&Row], statement: &str) -> Result<Vec<bool>, Error> {
        self.table.require_name()?;
        if rows.is_empty() { Ok(Vec::new()) } else { batch_relation::mark(batch, rows, statement, &[]) }
    }
}

fn without<'a>(rows: &[&'a Row], done: &[bool]) -> Vec<&'a Row> {
    rows.iter().zip(done).filter(|(_, done)| !**done).map(|(row, _)| *row).collect()
}

/// Rows of distinct ids, the lines of each id in their order: the first wave holds the first line of every id. Waves are in the order of the
/// ids, in which all writers lock them.
fn rounds_of_distinct_ids<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    let mut ordered = rows.to_vec();
    ordered.sort_unstable_by_key(|row| row.rank);
    let mut rounds_of_distinct_ids: Vec<Vec<&Row>> = Vec::new();
    let mut round = 0;
    for row in ordered {
        if rounds_of_distinct_ids.len() == round {
            rounds_of_distinct_ids.push(Vec::new());
        }
        rounds_of_distinct_ids[round].push(row);
        round = if row.occurrence == Occurrence::Replaced { round + 1 } else { 0 };
    }
    rounds_of_distinct_ids
}
