//! How a table compresses its resources: what the encode threads must know to do it for the server.

use crate::jsonb::toast::{Column, Method, Rule};
use crate::pg::catalog::fast_path_check::Layout;
use pgrx::{PgRelation, pg_sys};
use std::ffi::CStr;

/// The rule of a table whose layout was found good; None when it does not compress.
pub fn rule(table: pg_sys::Oid, layout: &Layout, resource_type: &str) -> Option<Rule> {
    // SAFETY: the oid of a table that was looked up in this statement.
    let relation = unsafe { PgRelation::with_lock(table, pg_sys::RowExclusiveLock as i32) };
    let descriptor = relation.tuple_desc();
    let attribute = descriptor.get(layout.resource)?;
    if !matches!(attribute.attstorage as u8, pg_sys::TYPSTORAGE_EXTENDED | pg_sys::TYPSTORAGE_MAIN) {
        return None;
    }
    let lz4 = match attribute.attcompression as u8 {
        0 => default_is_lz4(),
        method => method == b'l',
    };
    let fixed = |length| Column::Fixed { length, align: length };
    let columns = (0..layout.count).map(|index| match index {
        _ if index == layout.id => Column::Id,
        _ if index == layout.resource => Column::Resource,
        _ if index == layout.status => fixed(4),
        _ if Some(index) == layout.resource_type => Column::Text(resource_type.len()),
        _ => fixed(8),
    });
    let method = if lz4 { Method::Lz4 } else { Method::Pglz };
    Some(Rule { columns: columns.collect(), target: toast_target(relation.as_ptr()), method })
}

/// A table's `toast_tuple_target`, in bytes.
fn toast_target(relation: pg_sys::Relation) -> usize {
    const DEFAULT: usize = 2032;
    // SAFETY: an open relation.
    let options = unsafe { (*relation).rd_options }.cast::<pg_sys::StdRdOptions>();
    if options.is_null() {
        return DEFAULT;
    }
    // SAFETY: the options of a heap are of this kind.
    let target = unsafe { (*options).toast_tuple_target };
    usize::try_from(target).unwrap_or(DEFAULT)
}

fn default_is_lz4() -> bool {
    // SAFETY: a setting that exists in every version supported.
    let value = unsafe { pg_sys::GetConfigOption(c"default_toast_compression".as_ptr(), true, false) };
    // SAFETY: null or a NUL-terminated string.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == c"lz4"
}
