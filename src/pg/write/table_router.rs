//! Routes a load's rows: by the fast path where a table allows it, else by INSERT … ON CONFLICT; by the conflict writer where existing rows matter.

use crate::error::{Error, Fault, Reason};
use crate::pg::catalog::ddl::{self, Key};
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::catalog::{fast_path_check, toast_rule};
use crate::pg::sys::guc;
use crate::pg::write::conflict_writer::{ConflictWriter, WriteOutcome};
use crate::pg::write::deferred_entries::DeferredBytes;
use crate::pg::write::destination::{Destination, IdGuarantee, StagingTarget};
use crate::pg::write::fast_writer::{FastPathAssumptions, FastWriter};
use crate::pg::write::heap_insert::HeapTarget;
use crate::pg::write::sql_writer::{MetaSource, OnExisting, SqlWriter};
use crate::pg::write::{batch_relation, bulk_update, staging_table};
use crate::pipeline::load::batch::{Batch, Occurrence, Row};
use crate::pipeline::load::counters::BatchOutcome;
use crate::pipeline::load::existing_rows::{Method, Policy};
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Writes resources over what is there, unless the policy says otherwise: an existing id gets a new version, status `updated`, and keeps
/// its time of creation.
#[derive(Debug)]
pub struct TableRouter {
    destination: Destination,
    targets: HashMap<String, Target>,
    waiting: DeferredBytes,
}

/// One type's table and how to write to it.
#[derive(Debug)]
struct Target {
    table: pg_sys::Oid,
    writer: TableWriter,
}

#[derive(Debug)]
enum TableWriter {
    Fast(Box<FastWriter>),
    Sql(SqlWriter),
    /// For ids that come once: finds those of rows of this transaction.
    Once(SqlWriter, String),
    Conflict(Box<ConflictWriter>),
}

impl TableRouter {
    /// A router that knows no table yet.
    pub fn new(destination: Destination) -> TableRouter {
        TableRouter { destination, targets: HashMap::new(), waiting: DeferredBytes::default() }
    }

    /// Finds or creates a type's table. The name must be spelled as FHIR, or the type's creator, spells it.
    ///
    /// # Errors
    /// `UnknownType`, `WrongShape`, `NoHistory` and the like.
    pub fn prepare(&mut self, resource_type: &str) -> Result<(), Error> {
        if self.targets.contains_key(resource_type) {
            return Ok(());
        }
        let unknown = || Error::UnknownType(resource_type.chars().take(100).collect());
        let Destination { definitions, create_tables, policy, ids, .. } = self.destination;
        if resource_table::type_name(definitions, resource_type).map_err(|_| unknown())? != resource_type {
            return Err(unknown());
        }
        // Where others' code runs in the middle of the load it may write to any table: each must have its key, and no id is surely new.
        let no_user_code = self.targets.values().all(|target| matches!(target.writer, TableWriter::Fast(_)));
        let plain = policy == Policy::default();
        let key = if no_user_code && plain && ids == IdGuarantee::Any { Key::Later } else { Key::AtOnce };
        let found = match &self.destination.stage {
            Some(StagingTarget { name, policy }) => Some(staging_table::ensure(name, resource_type, *policy)?),
            None => resource_table::lookup_for_writing(resource_type)?,
        };
        let (found, key) = match found {
            Some(found) => (found, Key::AtOnce),
            None if create_tables && definitions.resource(resource_type).is_some() => ddl::ensure(resource_type, key)?,
            None => return Err(unknown()),
        };
        if self.targets.values().any(|target| target.table == found.oid) {
            return Err(Error::SameTable(resource_type.to_owned()));
        }
        if let Some(history) = resource_table::unreadable_history(&found)
            && self.destination.said.borrow_mut().insert(resource_type.to_owned())
        {
            pgrx::notice!("no right to read table \"{history}\": resources deleted before become \"created\", not \"recreated\"");
        }
        let sequence = ddl::ensure_sequence(found.schema);
        if !plain {
            let conflict = ConflictWriter::new(&found, resource_type, sequence, policy, self.destination.stage.is_some())?;
            self.targets.insert(resource_type.to_owned(), Target { table: found.oid, writer: TableWriter::Conflict(Box::new(conflict)) });
            return Ok(());
        }
        let writer = self.choose_writer(&found, resource_type, sequence, key, no_user_code)?;
        self.targets.insert(resource_type.to_owned(), Target { table: found.oid, writer });
        Ok(())
    }

    /// The way into a table for rows that are written over what is there: past the executor where that makes no difference.
    fn choose_writer(
        &mut self,
        found: &Table,
        resource_type: &str,
        sequence: pg_sys::Oid,
        key: Key,
        no_user_code: bool,
    ) -> Result<TableWriter, Error> {
        let Destination { method, expect_new, last_line_wins, ids, .. } = self.destination;
        let meta_source = last_line_wins.map_or(MetaSource::Given, MetaSource::Ordered);
        let general = |existing| SqlWriter::new(found, resource_type, sequence, existing, meta_source);
        let raising = if ids == IdGuarantee::Any { OnExisting::Overwrite } else { OnExisting::Raise };
        let fast = method == Method::Copy && guc::fast_path();
        let is_checked = ids != IdGuarantee::New { checked: false };
        if ids != IdGuarantee::Any && is_checked && !fast_path_check::has_key(found.oid) {
            return Err(Error::WrongShape { table: found.plain_name.clone(), reason: "it has no plain unique key on id".to_owned() });
        }
        Ok(match fast_path_check::layout(found.oid, key == Key::AtOnce && is_checked) {
            Ok(layout) if fast => {
                if let Some(rule) = toast_rule::rule(found.oid, &layout, resource_type) {
                    self.destination.compression.set(resource_type, rule);
                }
                let given = HeapTarget::new(found, layout, sequence, resource_type, &self.waiting)?;
                let expect = FastPathAssumptions {
                    no_user_code,
                    new: expect_new || given.fresh,
                    last_line_wins,
                    ids,
                    found: Rc::clone(&self.destination.found),
                };
                TableWriter::Fast(Box::new(FastWriter::open(found, given, general(raising), key, expect)))
            }
            refused => {
                if let (Err(reason), true) = (refused, fast) {
                    pgrx::debug1!("rows of \"{}\" go the general way: {reason}", found.plain_name);
                }
                if key == Key::Later {
                    ddl::add_key(found);
                }
                for target in self.targets.values_mut() {
                    if let TableWriter::Fast(fast) = &mut target.writer {
                        fast.on_user_code()?;
                    }
                }
                match ids {
                    IdGuarantee::Once => TableWriter::Once(general(OnExisting::Overwrite), own_rows(found)),
                    _ => TableWriter::Sql(general(raising)),
                }
            }
        })
    }

    /// The table of a type that is prepared.
    pub fn table(&self, resource_type: &str) -> Option<pg_sys::Oid> {
        self.targets.get(resource_type).map(|target| target.table)
    }

    /// Stores a batch's rows.
    ///
    /// # Errors
    /// As `prepare`; the first line that cannot be stored, as `Row` or an ERROR.
    pub fn store(&mut self, batch: &Batch) -> Result<BatchOutcome, Error> {
        let mut by_type: Vec<Vec<&Row>> = vec![Vec::new(); batch.types.len()];
        for row in &batch.rows {
            by_type[row.resource_type].push(row);
        }
        let mut outcome = BatchOutcome::default();
        let mut prepared: Vec<(&String, Vec<&Row>)> = Vec::new();
        // Tables are made in the order in which lines first need them.
        for (resource_type, rows) in batch.types.iter().zip(by_type).filter(|(_, rows)| !rows.is_empty()) {
            match self.prepare(resource_type) {
                Ok(()) => prepared.push((resource_type, rows)),
                // What a line says its type is is the line's fault.
                Err(error @ (Error::UnknownType(_) | Error::WrongShape { .. } | Error::SameTable(_) | Error::OtherStage { .. })) => {
                    let reason = match error {
                        Error::UnknownType(name) => Reason::Fault(Fault::UnknownType(name)),
                        error => Reason::Fault(Fault::WrongTable(Box::new(error))),
                    };
                    outcome.rejects.extend(rows.iter().map(|row| batch.reject(row, reason.clone())));
                }
                Err(error) => return Err(error),
            }
        }
        // All writers lock rows in the order of their types and ids.
        prepared.sort_unstable_by_key(|(resource_type, _)| *resource_type);
        for (resource_type, rows) in prepared {
            let Some(target) = self.targets.get_mut(resource_type) else { continue };
            let written = target.writer.write(batch, &rows, self.destination.ids)?;
            outcome.store(resource_type, written.stored);
            outcome.skipped += written.skipped;
            outcome.rejects.extend(written.refused.into_iter().map(|row| batch.reject(row, Reason::Fault(Fault::DuplicateId))));
        }
        outcome.rejects.sort_by_key(|reject| reject.place.line);
        Ok(outcome)
    }

    /// Writes what was put off and closes what is open. After an ERROR the transaction's end does it.
    ///
    /// # Errors
    /// Those of the index entries that are written then.
    pub fn close(self) -> Result<(), Error> {
        for target in self.targets.into_values() {
            if let TableWriter::Fast(fast) = target.writer {
                fast.close()?;
            }
        }
        Ok(())
    }
}

/// Of rows of a batch those whose ids this transaction has stored.
fn own_rows(table: &Table) -> String {
    format!(
        "select u.number from bulk_rows u join {} t on t.id operator(pg_catalog.=) u.id where t.xmin operator(pg_catalog.=) {}",
        table.name,
        bulk_update::CURRENT
    )
}

impl TableWriter {
    fn write<'a>(&mut self, batch: &Batch, rows: &[&'a Row], ids: IdGuarantee) -> Result<WriteOutcome<'a>, Error> {
        let is_written = |row: &&Row| ids != IdGuarantee::Any || row.occurrence != Occurrence::Replaced;
        let last = || rows.iter().copied().filter(is_written).collect::<Vec<&Row>>();
        let swallowed = match self {
            TableWriter::Fast(fast) => fast.write(batch, last()).map(|()| Vec::new())?,
            TableWriter::Sql(general) => general.write(batch, &last())?,
            TableWriter::Once(general, own) => {
                let (once, mut refused): (Vec<&Row>, Vec<&Row>) = rows.iter().copied().partition(|row| row.occurrence == Occurrence::Only);
                let stored = batch_relation::mark(batch, &once, own, &[])?;
                refused.extend(once.iter().zip(stored).filter(|(_, stored)| *stored).map(|(row, _)| *row));
                let skipped = if refused.is_empty() { general.write(batch, &once)?.len() } else { 0 };
                return Ok(WriteOutcome { stored: (rows.len() - refused.len() - skipped) as u64, skipped: skipped as u64, refused });
            }
            TableWriter::Conflict(conflict) => return conflict.write(batch, rows),
        };
        // With all the lines of their ids: the last of each was to be stored.
        let ids: HashSet<&str> = swallowed.iter().map(|row| batch.id(row)).collect();
        let skipped = if ids.is_empty() { 0 } else { rows.iter().filter(|row| ids.contains(batch.id(row))).count() };
        Ok(WriteOutcome { stored: (rows.len() - skipped) as u64, skipped: skipped as u64, ..WriteOutcome::default() })
    }
}
