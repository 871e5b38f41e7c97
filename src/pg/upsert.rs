//! Where rows of a load go: the straight way where a table allows it, else the general way.

use super::careful::Careful;
use super::create::{self, Key};
use super::eligible;
use super::entries::Waiting;
use super::general::{General, OnExisting};
use super::heap::Given;
use super::progress::{Direction, Progress};
use super::straight::Straight;
use super::{compression, setting, table};
use crate::error::{Error, Fault};
use crate::fhir::definitions::Definitions;
use crate::op::Sink;
use crate::op::batch::{Batch, Occurrence, Row, Rules};
use crate::op::policy::Policy;
use pgrx::pg_sys;
use std::collections::{BTreeMap, HashMap};

/// Writes resources over what is there: an existing id gets a new version, status `updated`, and keeps its time of creation.
/// Earlier versions are not kept.
#[derive(Debug)]
pub struct Upsert {
    definitions: &'static Definitions,
    create_tables: bool,
    policy: Policy,
    /// Told to the encode threads for tables that rows go straight into.
    compression: Rules,
    targets: HashMap<String, Target>,
    waiting: Waiting,
    /// Lines stored, by type.
    stored: BTreeMap<String, u64>,
    progress: Option<Progress>,
}

/// One type's table and how to write to it.
#[derive(Debug)]
struct Target {
    table: pg_sys::Oid,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Straight(Box<Straight>),
    General(General),
    Careful(Box<Careful>),
}

impl Upsert {
    pub fn new(definitions: &'static Definitions, create_tables: bool, policy: Policy, compression: Rules) -> Upsert {
        Upsert {
            definitions,
            create_tables,
            policy,
            compression,
            targets: HashMap::new(),
            waiting: Waiting::default(),
            stored: BTreeMap::new(),
            progress: None,
        }
    }

    /// Finds or creates a type's table. The name must be as FHIR, or whoever made the type, spells it.
    pub fn prepare(&mut self, resource_type: &str) -> Result<(), Error> {
        if self.targets.contains_key(resource_type) {
            return Ok(());
        }
        let unknown = || Error::UnknownType(resource_type.chars().take(100).collect());
        if table::type_name(self.definitions, resource_type).map_err(|_| unknown())? != resource_type {
            return Err(unknown());
        }
        // Where others' code runs in the middle of the load it may write to any table: each must have its key, and no id is surely new.
        let alone = self.targets.values().all(|target| matches!(target.way, Way::Straight(_)));
        let plain = self.policy == Policy::default();
        let key = if alone && plain { Key::Later } else { Key::AtOnce };
        let (found, key) = match table::lookup_for_writing(resource_type)? {
            Some(found) => (found, Key::AtOnce),
            None if self.create_tables && self.definitions.resource(resource_type).is_some() => create::ensure(resource_type, key)?,
            None => return Err(unknown()),
        };
        if self.targets.values().any(|target| target.table == found.oid) {
            return Err(Error::SameTable(resource_type.to_owned()));
        }
        if let Some(history) = table::unreadable_history(&found) {
            pgrx::notice!("no right to read table \"{history}\": resources deleted before become \"created\", not \"recreated\"");
        }
        let sequence = create::ensure_sequence(found.schema);
        if !plain {
            let careful = Careful::new(&found, resource_type, sequence, self.policy)?;
            self.targets.insert(resource_type.to_owned(), Target { table: found.oid, way: Way::Careful(Box::new(careful)) });
            return Ok(());
        }
        let general = General::new(&found, resource_type, sequence, OnExisting::Overwrite);
        let way = match eligible::layout(found.oid, key) {
            Ok(layout) if setting::fast_path() => {
                if let Some(rule) = compression::rule(found.oid, &layout, resource_type) {
                    self.compression.set(resource_type, rule);
                }
                let given = Given::new(&found, layout, sequence, resource_type, &self.waiting)?;
                Way::Straight(Box::new(Straight::open(&found, given, general, key, alone)))
            }
            refused => {
                if let (Err(reason), true) = (refused, setting::fast_path()) {
                    pgrx::debug1!("rows of \"{}\" go the general way: {reason}", found.plain_name);
                }
                if key == Key::Later {
                    create::add_key(&found);
                }
                for target in self.targets.values_mut() {
                    if let Way::Straight(straight) = &mut target.way {
                        straight.expect_others()?;
                    }
                }
                Way::General(general)
            }
        };
        self.targets.insert(resource_type.to_owned(), Target { table: found.oid, way });
        Ok(())
    }

    /// Begins to show how far the load is. Of one type, its table is shown.
    pub fn show_progress(&mut self, resource_type: Option<&str>) {
        let table = resource_type.and_then(|name| self.targets.get(name)).map_or(pg_sys::InvalidOid, |target| target.table);
        self.progress = Some(Progress::start(Direction::Load, table));
    }

    /// Writes what was put off and closes what is open. After an ERROR the transaction's end does it. Returns the lines stored, by type.
    pub fn close(self) -> Result<BTreeMap<String, u64>, Error> {
        for target in self.targets.into_values() {
            if let Way::Straight(straight) = target.way {
                straight.close()?;
            }
        }
        if let Some(progress) = self.progress {
            progress.end();
        }
        Ok(self.stored)
    }
}

impl Sink for Upsert {
    fn store(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut by_type: Vec<Vec<&Row>> = vec![Vec::new(); batch.types.len()];
        for row in &batch.rows {
            let rows = &mut by_type[row.resource_type];
            if rows.is_empty() {
                self.prepare(&batch.types[row.resource_type]).map_err(|error| match error {
                    Error::UnknownType(name) => Error::Line { place: batch.place(row), fault: Fault::UnknownType(name) },
                    error => error,
                })?;
            }
            rows.push(row);
        }
        for (resource_type, rows) in batch.types.iter().zip(&by_type) {
            if let (false, Some(target)) = (rows.is_empty(), self.targets.get_mut(resource_type)) {
                *self.stored.entry(resource_type.clone()).or_default() += target.way.write(batch, rows)?;
            }
        }
        if let Some(progress) = &mut self.progress {
            progress.add(batch.rows.len() as u64, batch.size);
        }
        Ok(())
    }
}

impl Way {
    /// Returns the lines stored.
    fn write(&mut self, batch: &Batch, rows: &[&Row]) -> Result<u64, Error> {
        let last = || rows.iter().copied().filter(|row| row.occurrence != Occurrence::Replaced).collect::<Vec<&Row>>();
        match self {
            Way::Straight(straight) => straight.write(batch, last())?,
            Way::General(general) => general.write(batch, &last())?,
            Way::Careful(careful) => return careful.write(batch, rows),
        }
        Ok(rows.len() as u64)
    }
}
