//! One snapshot for several processes: one keeps it in a transaction that stays open, others look through it in short ones.
//!
//! No table says where it is, since the process that holds it cannot commit: its name is made of that process's transaction, which `pg_locks`
//! shows with the lock that it holds.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Oids};
use crate::pg::process::transaction::{self, Isolation};
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{backend, owner_sql};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// Locks these tables against whatever would take rows from under a snapshot, takes one, and keeps it for the job while `work` goes on.
///
/// # Errors
/// `TableBusy`, and those of `work`.
pub fn hold<T>(role: Option<pg_sys::Oid>, job: i64, tables: &Oids, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    let before = || {
        for &table in tables {
            // SAFETY: any oid may be locked.
            unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessShareLock as i32) };
        }
        Ok(())
    };
    let lock = Lock::Snapshot(job);
    let mut held = false;
    let kept = transaction::isolated(role, Isolation::RepeatableRead, before, || {
        // SAFETY: a transaction of that level has one snapshot, which is set.
        let snapshot = unsafe { pg_sys::GetTransactionSnapshot() };
        // SAFETY: the snapshot of above; the file goes with the transaction.
        let name = unsafe { pg_sys::ExportSnapshot(snapshot) };
        // SAFETY: a NUL-terminated string.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        held = lock.take();
        if !held {
            return Err(Error::Internal("another keeps the snapshot of the job".to_owned()));
        }
        match find(job)? {
            Some(found) if found == name => work(),
            found => Err(Error::Internal(format!("snapshot {name} would be looked for as {found:?}"))),
        }
    });
    if held {
        transaction::run(None, || {
            lock.release();
            Ok(())
        })?;
    }
    kept
}

/// The snapshot that is kept for a job.
///
/// # Errors
/// As `owner_sql::query`.
pub fn find(job: i64) -> Result<Option<String>, Error> {
    let found = owner_sql::select_latest(
        "select virtualtransaction from pg_locks where locktype = 'advisory' and objsubid = bulk_internal.lock_class('snapshot') and granted and database = $1 \
         and classid = ($2 >> 32)::oid and objid = ($2 & 4294967295)::oid",
        &[backend::database().into(), job.into()],
        |row| row.get::<String>(1),
    )?;
    let name = |keeper: String| {
        let (process, transaction) = keeper.split_once('/')?;
        Some(format!("{:08X}-{:08X}-1", process.parse::<u32>().ok()?, transaction.parse::<u32>().ok()?))
    };
    Ok(found.into_iter().flatten().next().and_then(name))
}

/// Locks tables that the holder of the snapshot has locked already. A session that waits to alter one waits for the holder, which waits for this process: so the lock is not waited for.
fn lock_at_once(tables: &Oids) -> Result<(), Error> {
    // SAFETY: any oid may be locked.
    let is_ours = |&table: &pg_sys::Oid| unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::AccessShareLock as i32) };
    match tables.iter().find(|table| !is_ours(table)) {
        None => Ok(()),
        Some(&table) => Err(Error::TableBusy(resource_table::plain_name(table))),
    }
}

/// Does work that sees what a snapshot does, on tables that its keeper has locked. An ERROR where it is not kept any more.
///
/// # Errors
/// Where the snapshot is gone, and those of `work`.
pub fn through<T>(role: Option<pg_sys::Oid>, snapshot: &str, tables: &Oids, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    let name = CString::new(snapshot).map_err(|error| Failure::Ours(Error::Internal(error.to_string())))?;
    let before = || {
        // SAFETY: the first thing that a transaction of the right level does.
        unsafe { pg_sys::ImportSnapshot(name.as_ptr()) };
        lock_at_once(tables)
    };
    transaction::isolated(role, Isolation::RepeatableRead, before, work)
}

/// A moment, in microseconds since 2000-01-01 UTC: whatever is not yet committed now was, or will be, begun after it. A row's `ts` is when its
/// transaction began, so that no snapshot taken from now on misses a row of a `ts` up to that moment. In a transaction that has not looked yet.
///
/// # Errors
/// As `owner_sql::query`.
pub fn horizon() -> Result<i64, Error> {
    let now = "select (extract(epoch from clock_timestamp()) * 1000000)::int8 - 946684800000000";
    let now = owner_sql::select_latest(now, &[], |row| row.get::<i64>(1))?.into_iter().flatten().next().unwrap_or_default();
    // A transaction notes when it began a moment before it shows it.
    crate::pg::sys::latch::pause(std::time::Duration::from_millis(20));
    let oldest = owner_sql::select_latest(
        "select (extract(epoch from min(began)) * 1000000)::int8 - 946684800000000 from ( \
            select coalesce(xact_start, backend_start, '2000-01-01 00:00:00+00') from pg_stat_activity \
            where datname = current_database() and pid <> pg_backend_pid() and backend_type not in ('autovacuum worker', 'walsender') \
                and (xact_start is not null or backend_xid is not null or coalesce(state, 'disabled') = 'disabled' and backend_type = 'client backend')) \
            as t (began)",
        &[],
        |row| row.get::<i64>(1),
    )?;
    Ok(oldest.into_iter().flatten().next().map_or(now, |oldest| oldest.min(now)) - 1)
}

/// Whether a prepared transaction has written to one of these tables: when it began nobody knows any more. Looked for after the horizon.
///
/// # Errors
/// As `owner_sql::query`.
pub fn is_prepared(tables: &Oids) -> Result<bool, Error> {
    let found = owner_sql::select_latest(
        "select from pg_locks where locktype = 'relation' and database = $1 and pid is null and relation = any ($2) \
         and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')",
        &[backend::database().into(), tables.clone().into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}
