//! Statements on the extension's own tables, which only it writes: run as their owner, whichever role calls.

use crate::error::Error;
use crate::pg::sys::lock_holder::{self, Awaited};
use crate::pg::sys::sql::{self, Row};
use crate::pg::sys::{advisory_lock, error_context, guc, switch_user};
use pgrx::datum::DatumWithOid;
use pgrx::{PgRelation, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, c_int};

/// The path of every statement here: nothing that a user made is ever meant by a name or an operator.
/// And names are always quoted in one way: indexes are known by them.
const PATH: [(&CStr, &CStr); 2] = [(c"search_path", c"pg_catalog, pg_temp"), (c"quote_all_identifiers", c"off")];

/// Runs a statement as the extension's owner; what `read` makes of its rows.
///
/// # Errors
/// `Internal` where the extension's tables are not as expected, `OwnerNoSuperuser` where they are no superuser's any more. An ERROR of the statement is raised.
pub fn query<T>(
    statement: &str,
    arguments: &[DatumWithOid],
    read: impl FnMut(Row) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    as_owner(|| sql::query(statement, arguments, read))
}

/// The same of a statement that only reads: it sees what is committed by now, and gives the transaction no number.
///
/// # Errors
/// As `query`.
pub fn select_latest<T>(
    statement: &str,
    arguments: &[DatumWithOid],
    read: impl FnMut(Row) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    as_owner(|| sql::select_latest(statement, arguments, read))
}

/// As the owner of the extension's tables, which are not waited for longer than five seconds.
fn as_owner<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    guc::within(&PATH, || {
        lock_holder::within(|| {
            lock_holder::naming(Awaited::Tables(tables()?), || {
                let owner = error_context::with_context(None, owner)?;
                let restrictions = (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as c_int;
                switch_user::acting_as(owner, restrictions, work)
            })
        })
    })
}

/// The extension's tables with their names, as they were when this process first asked: for what is said of a wait.
fn tables() -> Result<Vec<(pg_sys::Oid, String)>, Error> {
    type Tables = (Option<pg_sys::Oid>, Vec<(pg_sys::Oid, String)>);
    thread_local! {
        static TABLES: RefCell<Tables> = const { RefCell::new((None, Vec::new())) };
    }
    let of = find();
    if TABLES.with_borrow(|(known, _)| *known != of) {
        let found = sql::select_latest(
            "select c.oid, concat('bulk_internal.', c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = 'bulk_internal' and c.relkind = 'r'",
            &[],
            |row| Ok(row.get::<pg_sys::Oid>(1)?.zip(row.get::<String>(2)?)),
        )?;
        TABLES.set((of, found.into_iter().flatten().collect()));
    }
    Ok(TABLES.with_borrow(|(_, tables)| tables.clone()))
}

/// Runs a statement whose rows are of no interest.
///
/// # Errors
/// As `query`.
pub fn run(statement: &str, arguments: &[DatumWithOid]) -> Result<(), Error> {
    query(statement, arguments, |_| Ok(())).map(drop)
}

/// Whether the extension exists and is not being dropped: a worker may outlive it. It stays to the transaction's end; a session that
/// drops it waits. The lock is not waited for: the session that drops it may wait for this one.
pub fn is_there() -> bool {
    let look = || {
        // SAFETY: a catalog look-up.
        unsafe { pg_sys::get_extension_oid(c"bulk".as_ptr(), true) }
    };
    let found = look();
    if found == pg_sys::InvalidOid || !advisory_lock::take_object(pg_sys::ExtensionRelationId, found) {
        return false;
    }
    // SAFETY: takes up what others committed before the lock was ours.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    look() == found
}

fn find() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up.
    let schema = unsafe { pg_sys::get_namespace_oid(c"bulk_internal".as_ptr(), true) };
    sql::relation("job", schema)
}

fn owner() -> Result<pg_sys::Oid, Error> {
    let job = find().ok_or_else(|| Error::Internal("table bulk_internal.job is missing".to_owned()))?;
    // SAFETY: the oid comes from a look-up.
    let relation = unsafe { PgRelation::with_lock(job, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let row = unsafe { *relation.rd_rel };
    // SAFETY: a catalog look-up.
    match unsafe { pg_sys::superuser_arg(row.relowner) } {
        true => Ok(row.relowner),
        // Workers do what stands in the tables, as whoever it says: whose they are could say anything.
        false => Err(Error::OwnerNoSuperuser),
    }
}
