//! Work on the extension's own tables, which only it writes: as their owner, whoever calls.

use super::{diagnostics, table};
use crate::error::Error;
use pgrx::datum::DatumWithOid;
use pgrx::spi::SpiHeapTupleData;
use pgrx::{PgRelation, Spi, pg_sys};
use std::ffi::c_int;

/// A statement's result, row after row.
pub type Row<'a> = SpiHeapTupleData<'a>;

/// Runs a statement; what `read` makes of its rows.
pub fn query<T>(
    statement: &str,
    arguments: &[DatumWithOid],
    mut read: impl FnMut(Row) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    let owner = owner()?;
    let (mut before, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: where the two values go.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut before, &mut context) };
    let changed = (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as c_int;
    // SAFETY: a role that exists; after an ERROR the end of the (sub)transaction sets both back.
    unsafe { pg_sys::SetUserIdAndSecContext(owner, context | changed) };
    let done = diagnostics::keep(None, || {
        Spi::connect_mut(|client| client.update(statement, None, arguments)?.map(&mut read).collect::<Result<Vec<T>, pgrx::spi::Error>>())
    });
    // SAFETY: what was set before.
    unsafe { pg_sys::SetUserIdAndSecContext(before, context) };
    done.map_err(|error| Error::Internal(error.to_string()))
}

/// Runs a statement whose rows are of no interest.
pub fn run(statement: &str, arguments: &[DatumWithOid]) -> Result<(), Error> {
    query(statement, arguments, |_| Ok(())).map(drop)
}

/// Whether the extension is there: a worker may outlive it. Until the transaction's end it stays, whoever drops it waits.
pub fn is_there() -> bool {
    let look = || {
        // SAFETY: a catalog look-up.
        unsafe { pg_sys::get_extension_oid(c"bulk".as_ptr(), true) }
    };
    let found = look();
    if found == pg_sys::InvalidOid {
        return false;
    }
    // SAFETY: any object may be locked; DROP EXTENSION locks it before anything else.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, found, 0, pg_sys::AccessShareLock as i32) };
    look() == found
}

fn find() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up.
    let schema = unsafe { pg_sys::get_namespace_oid(c"bulk".as_ptr(), true) };
    table::relation("job_entry", schema)
}

fn owner() -> Result<pg_sys::Oid, Error> {
    let job = find().ok_or_else(|| Error::Internal("table bulk.job_entry is missing".to_owned()))?;
    // SAFETY: the oid comes from a look-up.
    let relation = unsafe { PgRelation::with_lock(job, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let row = unsafe { *relation.rd_rel };
    Ok(row.relowner)
}
