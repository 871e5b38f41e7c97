//! Deferred index entries, of a table whose only index is its key. They are kept until there are many and inserted in the key's
//! order, so that one leaf of the index after another is filled and not now this, now that.

use crate::pg::catalog::fast_path_check::Layout;
use crate::pg::sys::unguarded::unguarded;
use crate::pg::sys::{error_context, memory_context};
use crate::pipeline::load::batch::{Batch, Row};
use pgrx::pg_sys;
use std::cell::Cell;
use std::rc::Rc;

// One guard stands around all entries.
unguarded! {
    fn index_insert(
        index: pg_sys::Relation,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
        row: pg_sys::ItemPointer,
        table: pg_sys::Relation,
        check: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
}

/// Bytes of entries that may wait, of all tables of a load together: some 150,000 entries.
const MAX_DEFERRED_BYTES: usize = 8 << 20;

/// Bytes of entries that wait, shared by all tables of a load.
pub type DeferredBytes = Rc<Cell<usize>>;

/// An entry: where its id begins, and where its row lies.
#[derive(Debug, Clone, Copy)]
struct IndexTuple {
    id: usize,
    row: pg_sys::ItemPointerData,
}

/// Entries of one index that wait.
#[derive(Debug)]
pub struct Entries {
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    table: pg_sys::Relation,
    /// Whole varlenas, each at a multiple of 4.
    ids: Vec<u8>,
    entries: Vec<IndexTuple>,
    /// The source, the first and the last line that wait.
    place: Option<(String, u64, u64)>,
    waiting: DeferredBytes,
}

impl Entries {
    /// For a table that is open with its indexes. None when its indexes are more than the key on id.
    pub fn of(target: *mut pg_sys::ResultRelInfo, layout: &Layout, waiting: &DeferredBytes) -> Option<Entries> {
        // SAFETY: an initialized result relation with open indexes.
        let target = unsafe { &*target };
        if target.ri_NumIndices != 1 {
            return None;
        }
        // SAFETY: as many indexes as were counted, as below.
        let index = unsafe { *target.ri_IndexRelationDescs };
        // SAFETY: the relation has one index, which is open, so both arrays have an element.
        let info = unsafe { *target.ri_IndexRelationInfo };
        // SAFETY: an open index's description.
        let description = unsafe { &*info };
        let plain = description.ii_NumIndexAttrs == 1
            && usize::try_from(description.ii_IndexAttrNumbers[0] - 1) == Ok(layout.id)
            && description.ii_Expressions.is_null()
            && description.ii_Predicate.is_null()
            && description.ii_ExclusionOps.is_null()
            && description.ii_Unique
            && description.ii_ReadyForInserts;
        let table = target.ri_RelationDesc;
        plain.then(|| Entries { index, info, table, ids: Vec::new(), entries: Vec::new(), place: None, waiting: waiting.clone() })
    }

    /// Keeps the entries of rows that were just stored, whose slots say where.
    pub fn push(&mut self, batch: &Batch, rows: &[&Row], slots: &[*mut pg_sys::TupleTableSlot], scratch: pg_sys::MemoryContext) {
        if self.place.as_ref().is_some_and(|(source, ..)| *source != batch.source) {
            self.flush(scratch);
        }
        let lines = (rows.first().map_or(0, |row| row.line), rows.last().map_or(0, |row| row.line));
        self.place.get_or_insert_with(|| (batch.source.clone(), lines.0, lines.1)).2 = lines.1;
        let before = self.bytes();
        for (row, &slot) in rows.iter().zip(slots) {
            self.ids.resize(self.ids.len().next_multiple_of(4), 0);
            // SAFETY: a slot of a stored row.
            let row_place = unsafe { (*slot).tts_tid };
            self.entries.push(IndexTuple { id: self.ids.len(), row: row_place });
            self.ids.extend_from_slice(batch.id_varlena(row));
        }
        self.waiting.update(|bytes| bytes + self.bytes() - before);
        if self.waiting.get() > MAX_DEFERRED_BYTES {
            self.flush(scratch);
        }
    }

    /// Bytes that wait here.
    fn bytes(&self) -> usize {
        self.ids.len() + size_of_val(self.entries.as_slice())
    }

    /// Makes the entries that wait. A duplicate key is an ERROR of PostgreSQL's own.
    pub fn flush(&mut self, scratch: pg_sys::MemoryContext) {
        let Some((source, first, last)) = self.place.take() else { return };
        self.waiting.update(|bytes| bytes - self.bytes());
        let ids = &self.ids;
        let id = |entry: &IndexTuple| &ids[entry.id..][..varlena_size(&ids[entry.id..])];
        self.entries.sort_unstable_by(|a, b| id(a)[4..].cmp(&id(b)[4..]));
        let (index, info, table, entries) = (self.index, self.info, self.table, &mut self.entries);
        let insert = || {
            for entry in entries {
                let mut value = pg_sys::Datum::from(ids[entry.id..].as_ptr());
                let mut null = false;
                let check = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES;
                // SAFETY: the key's one column, and a row of the table, both open.
                unsafe { index_insert(index, &mut value, &mut null, &mut entry.row, table, check, false, info) };
            }
        };
        error_context::with_context(Some(&format!("bulk.load of \"{source}\", lines {first} to {last}")), || {
            // SAFETY: turns an ERROR of the calls into an unwinding; the closure holds nothing to drop.
            memory_context::within(scratch, || unsafe { pg_sys::ffi::pg_guard_ffi_boundary(insert) });
        });
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(scratch) };
        self.ids.clear();
        self.entries.clear();
        pgrx::check_for_interrupts!();
    }
}

/// Bytes of the varlena that begins here.
fn varlena_size(bytes: &[u8]) -> usize {
    bytes.first_chunk::<4>().map_or(0, |header| (u32::from_le_bytes(*header) >> 2) as usize)
}
