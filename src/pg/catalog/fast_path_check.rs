//! Which tables rows may go straight into: an allow-list of what is known to make no difference to INSERT.

use crate::error::Error;
use crate::pg::catalog::resource_table::Table;
use crate::pg::sys::sql;
use pgrx::{PgRelation, pg_sys};
use std::ffi::c_int;

/// Where each column stands, from 0.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// The table's name, for messages.
    pub table: String,
    pub id: usize,
    pub txid: usize,
    pub status: usize,
    pub resource: usize,
    pub cts: Option<usize>,
    pub ts: Option<usize>,
    pub resource_type: Option<usize>,
    /// Columns in all.
    pub count: usize,
}

/// `Ok` with the table's layout if heap inserts equal INSERT here, `Err` with the reason if they do not. `needs_key`: ids are probed, which takes the key.
///
/// # Errors
/// Why the table is written by INSERT, for a DEBUG1 message.
pub fn layout(table: pg_sys::Oid, needs_key: bool) -> Result<Layout, String> {
    // SAFETY: the oid of a table that was looked up in this statement.
    let relation = unsafe { PgRelation::with_lock(table, pg_sys::RowExclusiveLock as i32) };
    // SAFETY: an open relation.
    let data = unsafe { &*relation.as_ptr() };
    let class = class(relation.as_ptr());
    // SAFETY: returns a constant.
    let heap = unsafe { pg_sys::GetHeapamTableAmRoutine() };
    let refuse = |reason: &str| Err(reason.to_owned());
    if class.relkind as u8 != pg_sys::RELKIND_RELATION {
        return refuse("it is no plain table");
    }
    if !std::ptr::eq(data.rd_tableam, heap) {
        return refuse("its access method is not heap");
    }
    if class.relispartition {
        return refuse("it is a partition");
    }
    if !data.trigdesc.is_null() {
        return refuse("it has triggers or foreign keys");
    }
    if !data.rd_rules.is_null() {
        return refuse("it has rules");
    }
    // SAFETY: an existing table; 0 means the current user.
    let security = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    if security != pg_sys::CheckEnableRlsResult::RLS_NONE as c_int {
        return refuse("it has row security");
    }
    let mut layout = Layout { table: relation.name().to_owned(), count: relation.tuple_desc().len(), ..Layout::default() };
    let mut found = 0;
    for (index, attribute) in relation.tuple_desc().iter().enumerate() {
        if attribute.is_dropped() {
            return refuse("it has a dropped column");
        }
        if attribute.attgenerated != 0 || attribute.attidentity != 0 {
            return refuse("it has a generated or identity column");
        }
        let kind = attribute.type_oid().value();
        match (attribute.name(), kind) {
            ("id", pg_sys::TEXTOID) => layout.id = index,
            ("txid", pg_sys::INT8OID) => layout.txid = index,
            ("resource", pg_sys::JSONBOID) => layout.resource = index,
            ("cts", pg_sys::TIMESTAMPTZOID) => layout.cts = Some(index),
            ("ts", pg_sys::TIMESTAMPTZOID) => layout.ts = Some(index),
            ("resource_type", pg_sys::TEXTOID) => layout.resource_type = Some(index),
            ("status", status) if is_enum(status) => layout.status = index,
            (name, _) => return Err(format!("column \"{name}\" is not one of a resource table's")),
        }
        found += 1;
    }
    if found != layout.count {
        return refuse("its columns are not those of a resource table");
    }
    if needs_key && !has_key(table) {
        return refuse("it has no plain unique key on id");
    }
    Ok(layout)
}

/// Whether ids are unique by themselves: what INSERT … ON CONFLICT (id) infers, so the fast path must accept it too. It also takes an index of
/// another collation or operators than the column's own, by which no row would be found; and where different ids can be equal, they are
/// told apart by their bytes here.
pub fn has_key(table: pg_sys::Oid) -> bool {
    let query = format!(
        "select exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) i.indrelid \
         and a.attnum operator(pg_catalog.=) i.indkey[0] join pg_catalog.pg_opclass o on o.oid operator(pg_catalog.=) i.indclass[0] \
         left join pg_catalog.pg_collation c on c.oid operator(pg_catalog.=) a.attcollation \
         where i.indrelid operator(pg_catalog.=) {} and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null \
         and i.indnkeyatts operator(pg_catalog.=) 1 and a.attname operator(pg_catalog.=) 'id' and o.opcdefault \
         and i.indcollation[0] operator(pg_catalog.=) a.attcollation and coalesce(c.collisdeterministic, true))",
        table.to_u32()
    );
    sql::value::<bool>(&query, &[]).ok().flatten().unwrap_or(false)
}

fn is_enum(kind: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::get_typtype(kind) as u8 == pg_sys::TYPTYPE_ENUM }
}

/// Whether a table has no storage in use: nothing was ever written, or all was truncated.
pub fn is_empty(table: pg_sys::Oid) -> bool {
    // SAFETY: the oid of a table that was looked up in this statement.
    let relation = unsafe { PgRelation::with_lock(table, pg_sys::AccessShareLock as i32) };
    if class(relation.as_ptr()).relkind as u8 != pg_sys::RELKIND_RELATION {
        return false;
    }
    // SAFETY: an open relation with storage.
    unsafe { pg_sys::RelationGetNumberOfBlocksInFork(relation.as_ptr(), pg_sys::ForkNumber::MAIN_FORKNUM) == 0 }
}

/// Oid of the enum value that a new row's status has.
///
/// # Errors
/// `Internal` where the type knows no `created`, as every table that is written to does.
pub fn created_status(table: &Table) -> Result<pg_sys::Oid, Error> {
    // Through text: an enum is stored as the oid of its value.
    let query = format!(
        "select oid from pg_catalog.pg_enum where enumtypid operator(pg_catalog.=) {}::pg_catalog.regtype and enumlabel operator(pg_catalog.=) 'created'",
        pgrx::spi::quote_literal(&table.status_type)
    );
    sql::value::<pg_sys::Oid>(&query, &[])?.ok_or_else(|| Error::Internal(format!("type {} has no value created", table.status_type)))
}

/// The catalog row of an open relation.
pub fn class<'a>(relation: pg_sys::Relation) -> &'a pg_sys::FormData_pg_class {
    // SAFETY: an open relation.
    let row = unsafe { (*relation).rd_rel };
    // SAFETY: lives as long as the relation is open, which the callers see to.
    unsafe { &*row }
}
