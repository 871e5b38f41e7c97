//! Relations that exist for statements of ours alone, as a trigger's transition tables do: rows in memory, or beyond `work_mem` in a
//! temporary file.

use crate::pg::sys::padded::Padded;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// A column: its name and type.
pub type Column = (&'static CStr, pg_sys::Oid);

/// Rows of one shape. They live in the memory that is current when it is made, and are gone with the transaction at the latest.
#[derive(Debug)]
pub struct Ephemeral {
    name: &'static CStr,
    descriptor: pg_sys::TupleDesc,
    store: *mut pg_sys::Tuplestorestate,
    pub rows: u64,
}

impl Ephemeral {
    /// A relation without rows: its name in statements, its columns and their types.
    pub fn new(name: &'static CStr, columns: &[Column]) -> Ephemeral {
        // SAFETY: makes a descriptor in the current memory, as all here.
        let descriptor = unsafe { pg_sys::CreateTemplateTupleDesc(columns.len() as c_int) };
        for (number, (name, kind)) in (1..).zip(columns) {
            // SAFETY: a column of the descriptor; the name is copied.
            unsafe { pg_sys::TupleDescInitEntry(descriptor, number, name.as_ptr(), *kind, -1, 0) };
        }
        // SAFETY: reads a setting.
        let memory = unsafe { pg_sys::work_mem };
        // SAFETY: makes a store, read anew by each statement.
        let store = unsafe { pg_sys::tuplestore_begin_heap(true, false, memory) };
        Ephemeral { name, descriptor, store, rows: 0 }
    }

    /// Adds a copy of a row: as many values as the relation has columns, of their types.
    pub fn put<const N: usize>(&mut self, mut values: [pg_sys::Datum; N], mut nulls: [bool; N]) {
        // SAFETY: a store and a descriptor that this object owns; as many values and nulls as columns, which are copied.
        unsafe { pg_sys::tuplestore_putvalues(self.store, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr()) };
        self.rows += 1;
    }

    /// Makes the relation known to the current SPI connection, at whose end it is forgotten.
    pub fn register(&self) {
        let described = Padded::<pg_sys::EphemeralNamedRelationData>::allocate();
        // SAFETY: just allocated in the current memory context.
        let relation = unsafe { &mut *described };
        relation.md.name = self.name.as_ptr().cast_mut();
        relation.md.tupdesc = self.descriptor;
        relation.md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
        relation.md.enrtuples = self.rows as f64;
        relation.reldata = self.store.cast();
        // SAFETY: all that it points to lives longer than the connection.
        unsafe { pg_sys::SPI_register_relation(described) };
    }

    /// Frees the rows. An ERROR frees them too.
    pub fn close(self) {
        // SAFETY: made by `new`, used no more.
        unsafe { pg_sys::tuplestore_end(self.store) };
    }
}
