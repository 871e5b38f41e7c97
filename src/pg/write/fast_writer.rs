//! The fast path into a table: new rows by heap inserts, existing rows by one UPDATE a batch. A table that the load itself creates
//! gets its key last: building an index costs half of what filling it row by row does.

use crate::error::Error;
use crate::pg::catalog::ddl::{self, Key};
use crate::pg::catalog::fast_path_check;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::write::batch_relation;
use crate::pg::write::bulk_update::BulkUpdate;
use crate::pg::write::destination::{IdGuarantee, LastLineWins};
use crate::pg::write::heap_insert::{HeapTarget, HeapWriter};
use crate::pg::write::sql_writer::SqlWriter;
use crate::pipeline::load::batch::{Batch, Occurrence, Row};
use crate::pipeline::load::id_bloom::IdBloomFilter;
use pgrx::pg_sys;
use std::cell::Cell;
use std::rc::Rc;

/// Bytes of rows that are put off until the table has its key.
const MOST_PUT_OFF: usize = 1 << 20;

/// What is known of a table before the first row.
#[derive(Debug)]
pub struct FastPathAssumptions {
    /// Whether no other code runs during the load.
    pub no_user_code: bool,
    /// Whether ids that this load has not stored itself are new.
    pub new: bool,
    /// Which line of an id wins, where lines come in any order.
    pub last_line_wins: Option<LastLineWins>,
    pub ids: IdGuarantee,
    /// Counts rows that were there.
    pub found: Rc<Cell<u64>>,
}

/// The way into one table.
#[derive(Debug)]
pub struct FastWriter {
    target: HeapTarget,
    ids: IdGuarantee,
    /// None when it was closed for a change of the table.
    writer: Option<HeapWriter>,
    /// What this load stored, while all else is new and nobody else's code runs; then only these ids can exist.
    inserted_bloom: Option<IdBloomFilter>,
    /// What was stored since index entries were last made: as long as nobody else's code runs, they wait until one of these ids comes again.
    unindexed_bloom: Option<IdBloomFilter>,
    update: BulkUpdate,
    found: Rc<Cell<u64>>,
    /// For rows that are neither: an id that has a history, or stood in an earlier line of the batch, is not stored as a new one.
    general: SqlWriter,
    /// The history table, and the look-up of a batch's rows in it.
    history: Option<(pg_sys::Oid, String)>,
    /// The table, while it has no key yet: this load made it, so nobody else sees it.
    index_pending: Option<Table>,
    /// Rows whose ids may have occurred before, which cannot be probed without the key. In the order of their lines.
    deferred: Vec<Batch>,
}

impl FastWriter {
    /// Opens the way into a table. `key` says whether it has its key already.
    pub fn open(table: &Table, target: HeapTarget, general: SqlWriter, key: Key, expect: FastPathAssumptions) -> FastWriter {
        let FastPathAssumptions { no_user_code, new, last_line_wins, ids, found } = expect;
        let among = |name: String| {
            format!("select u.number from bulk_rows u where exists (select from {name} h where h.id operator(pg_catalog.=) u.id)")
        };
        FastWriter {
            writer: Some(HeapWriter::open(&target)),
            update: BulkUpdate::new(table, &target.resource_type, target.sequence, last_line_wins, ids),
            ids,
            inserted_bloom: (new && no_user_code).then(IdBloomFilter::default),
            found,
            unindexed_bloom: no_user_code.then(IdBloomFilter::default),
            general,
            history: resource_table::history(table).map(|(oid, name)| (oid, among(name))),
            index_pending: (key == Key::Later).then(|| table.clone()),
            deferred: Vec::new(),
            target,
        }
    }

    /// From here on others' code may write to the table.
    ///
    /// # Errors
    /// Those of the index entries that are written then.
    pub fn on_user_code(&mut self) -> Result<(), Error> {
        self.inserted_bloom = None;
        self.unindexed_bloom = None;
        self.give_key()?;
        self.flush();
        Ok(())
    }

    /// Gives the table its key, if it has none yet, and writes what was put off.
    fn give_key(&mut self) -> Result<(), Error> {
        let Some(table) = self.index_pending.take() else { return Ok(()) };
        self.writer.take().into_iter().for_each(HeapWriter::close);
        ddl::add_key(&table);
        for batch in std::mem::take(&mut self.deferred) {
            self.write_keyed(&batch, Vec::new(), batch.rows.iter().collect())?;
        }
        Ok(())
    }

    /// Closes the table; one that the load made gets its key.
    ///
    /// # Errors
    /// As `write`.
    pub fn close(mut self) -> Result<(), Error> {
        self.give_key()?;
        self.writer.take().into_iter().for_each(HeapWriter::close);
        Ok(())
    }

    /// Writes rows over what is there: of distinct ids, unless it is promised that they are.
    ///
    /// # Errors
    /// `Row` for an id that is there; an ERROR of an index or a check is raised.
    pub fn write(&mut self, batch: &Batch, rows: Vec<&Row>) -> Result<(), Error> {
        match self.ids {
            IdGuarantee::Any => {}
            IdGuarantee::New { .. } => return self.write_new(batch, rows),
            // In a table that was empty none is there.
            IdGuarantee::Once if self.inserted_bloom.is_some() => return self.write_new(batch, rows),
            IdGuarantee::Once => {
                let mut absent = self.absent(batch, rows)?;
                absent.sort_unstable_by_key(|row| row.line);
                return self.write_new(batch, absent);
            }
        }
        let (doubtful, new) = match &mut self.inserted_bloom {
            Some(inserted_bloom) => rows.into_iter().partition(|row| inserted_bloom.insert(row.hash) || row.occurrence == Occurrence::Last),
            None => (rows, Vec::new()),
        };
        if self.index_pending.is_none() {
            self.write_keyed(batch, new, doubtful)?;
            // Others may look for the rows.
            if self.unindexed_bloom.is_none() {
                self.flush();
            }
            return Ok(());
        }
        let (new, deferred) = self.without_history(batch, new, doubtful)?;
        self.insert(batch, &new)?;
        if !deferred.is_empty() {
            self.deferred.push(batch.pick(&deferred)?);
            if self.deferred.iter().map(Batch::memory).sum::<usize>() > MOST_PUT_OFF {
                self.give_key()?;
            }
        }
        Ok(())
    }

    /// Writes rows whose ids are taken for new: one that is not is an ERROR of the key's.
    fn write_new(&mut self, batch: &Batch, rows: Vec<&Row>) -> Result<(), Error> {
        let (new, rest) = self.without_history(batch, rows, Vec::new())?;
        self.insert(batch, &new)?;
        if !rest.is_empty() {
            self.general.write(batch, &rest).map(drop)?;
        }
        // Others may look for the rows.
        if self.unindexed_bloom.is_none() {
            self.flush();
        }
        Ok(())
    }

    fn write_keyed<'a>(&mut self, batch: &Batch, mut new: Vec<&'a Row>, doubtful: Vec<&'a Row>) -> Result<(), Error> {
        if !doubtful.is_empty() {
            new.extend(self.absent(batch, doubtful)?);
            new.sort_unstable_by_key(|row| row.line);
        }
        let (new, rest) = new.into_iter().partition(|row| row.occurrence == Occurrence::Only);
        let (new, rest) = self.without_history(batch, new, rest)?;
        self.insert(batch, &new)?;
        if rest.is_empty() {
            return Ok(());
        }
        self.flush();
        self.general.write(batch, &rest).map(drop)
    }

    /// Makes the index entries that wait: before rows are looked for.
    fn flush(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.flush();
        }
        if let Some(unindexed_bloom) = &mut self.unindexed_bloom {
            unindexed_bloom.clear();
        }
    }

    fn insert(&mut self, batch: &Batch, rows: &[&Row]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        if let (Some(unindexed_bloom), None, IdGuarantee::Any) = (&mut self.unindexed_bloom, &self.inserted_bloom, self.ids) {
            for row in rows {
                unindexed_bloom.insert(row.hash);
            }
        }
        self.writer.get_or_insert_with(|| HeapWriter::open(&self.target)).insert(batch, rows)
    }

    /// Writes over those of the rows that exist, in the order of their ids: it is the index's, and two loads of the same ids lock them alike.
    /// Gives back the others.
    fn absent<'a>(&mut self, batch: &Batch, mut rows: Vec<&'a Row>) -> Result<Vec<&'a Row>, Error> {
        // What this load stored itself is known while its table was empty before, else by what is not flushed.
        let known = match (&self.inserted_bloom, &self.unindexed_bloom) {
            (None, Some(unindexed_bloom)) => rows.iter().any(|row| unindexed_bloom.contains(row.hash)),
            _ => true,
        };
        if known {
            self.flush();
        }
        rows.sort_unstable_by_key(|row| row.rank);
        let written = self.update.write(batch, &rows)?;
        self.found.update(|found| found + written.iter().filter(|written| **written).count() as u64);
        Ok(rows.into_iter().zip(written).filter(|(_, written)| !written).map(|(row, _)| row).collect())
    }

    /// Moves the rows that have a history from `new` to `rest`.
    fn without_history<'a>(&self, batch: &Batch, new: Vec<&'a Row>, mut rest: Vec<&'a Row>) -> Result<(Vec<&'a Row>, Vec<&'a Row>), Error> {
        let Some((_, probe)) = self.history.as_ref().filter(|(oid, _)| !new.is_empty() && !fast_path_check::is_empty(*oid)) else {
            return Ok((new, rest));
        };
        let known = batch_relation::mark(batch, &new, probe, &[])?;
        let (with, without): (Vec<_>, Vec<_>) = new.into_iter().zip(known).partition(|(_, known)| *known);
        rest.extend(with.into_iter().map(|(row, _)| row));
        Ok((without.into_iter().map(|(row, _)| row).collect(), rest))
    }
}
