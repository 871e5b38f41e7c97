//! What a load's rows go by: into which tables, and what is promised of them.

use crate::fhir::definitions::Definitions;
use crate::pipeline::load::encode::Rules;
use crate::pipeline::load::existing_rows::{Method, Policy};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

/// Where a load's rows go, and how.
#[derive(Debug, Clone)]
pub struct Destination {
    pub definitions: &'static Definitions,
    /// Whether a missing table of an R4 type is created.
    pub create_tables: bool,
    pub policy: Policy,
    pub method: Method,
    /// TOAST rules for the encode threads, of tables that the fast path writes.
    pub compression: Rules,
    /// The table that takes the place of the one type's.
    pub stage: Option<StagingTarget>,
    /// Types for which the NOTICE about an unreadable history has been sent.
    pub said: Rc<RefCell<HashSet<String>>>,
    /// Which line of an id wins, where lines come in any order.
    pub last_line_wins: Option<LastLineWins>,
    /// Whether ids are assumed to be new and not probed: one that exists is an ERROR 23505. For callers that can begin again.
    pub expect_new: bool,
    pub ids: IdGuarantee,
    /// Rows that were looked for, and were there before.
    pub found: Rc<Cell<u64>>,
}

/// What is promised of a source's ids. A line that does not keep it is an ERROR of the key's, or is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdGuarantee {
    /// They may be there, and come again.
    Any,
    /// None comes twice in this transaction; those that are there are written over.
    Once,
    /// None comes twice, and none is there. Unless it is `checked`, the table needs no key that sees to it.
    New { checked: bool },
}

/// The order of lines that come in any: their versions were set apart for them, and of an id the line with the highest stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastLineWins {
    /// The highest that was set apart. A row beyond it is none of theirs, and is written over as always.
    pub last: i64,
}

impl LastLineWins {
    /// The condition under which the row `t` stays as it is before a line of this version.
    pub fn stays(self, version: &str) -> String {
        format!("t.txid operator(pg_catalog.>) {version} and t.txid operator(pg_catalog.<=) {}", self.last)
    }
}

/// A stage that a load is to fill: what it is of is the type of the first line.
#[derive(Debug, Clone)]
pub struct StagingTarget {
    /// As SQL spells it.
    pub name: String,
    /// By which it is to be merged.
    pub policy: Policy,
}
