//! Runs a worker's transaction as the job's role and returns why it failed.

use crate::error::Error;
use crate::pg::sys::subtransaction::{Failure, failure, with_true_state};
use crate::pg::sys::{owner_sql, switch_user, version};
use pgrx::{PgTryBuilder, pg_sys};
use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

/// What a transaction sees of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    /// What had committed at one moment: when work first looks, or when the snapshot that it takes over was taken.
    RepeatableRead,
}

/// Does work in a transaction of its own, READ COMMITTED, as a role; None is who is connected. Nothing that the work calls can leave the role:
/// it is as in a function of that role's. After a failure nothing is left of the transaction. Where the extension is gone, that is the failure.
///
/// # Errors
/// Those of `work`, what PostgreSQL raises in it or at the commit, `ExtensionDropped`, `VersionMismatch`.
pub fn run<T>(role: Option<pg_sys::Oid>, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    isolated(role, Isolation::ReadCommitted, || Ok(()), work)
}

/// The same at another level; `prepare` runs before anything is seen.
///
/// # Errors
/// As `run`, and those of `prepare`.
pub fn isolated<T>(
    role: Option<pg_sys::Oid>,
    isolation: Isolation,
    prepare: impl FnOnce() -> Result<(), Error>,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Failure> {
    // SAFETY: outside a transaction, as all here.
    unsafe { pg_sys::SetCurrentStatementStartTimestamp() };
    // SAFETY: a worker between transactions.
    unsafe { pg_sys::StartTransactionCommand() };
    let level = match isolation {
        Isolation::ReadCommitted => pg_sys::XACT_READ_COMMITTED,
        Isolation::RepeatableRead => pg_sys::XACT_REPEATABLE_READ,
    };
    // SAFETY: a transaction without work yet.
    unsafe { pg_sys::XactIsoLevel = level as c_int };
    // SAFETY: a variable of this process, set for the transaction that has just begun.
    unsafe { pg_sys::XactReadOnly = false };
    // The transaction's end by an ERROR sets both back.
    let before = role.map(|role| switch_user::enter(role, pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int));
    // SAFETY: reads a backend variable.
    let stack = unsafe { pg_sys::error_context_stack };
    let body = AssertUnwindSafe(|| {
        prepare().map_err(Failure::Ours)?;
        // SAFETY: a transaction is running.
        let snapshot = unsafe { pg_sys::GetTransactionSnapshot() };
        // SAFETY: a snapshot that has just been taken; the push copies it, and the transaction's end drops the copy.
        unsafe { pg_sys::PushActiveSnapshot(snapshot) };
        if !owner_sql::is_there() {
            return Err(Failure::Ours(Error::ExtensionDropped));
        }
        version::matches().map_err(Failure::Ours)?;
        let value = work().map_err(Failure::Ours)?;
        // SAFETY: pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
        // Deferred triggers fire in it, still as the role.
        // SAFETY: the transaction of above.
        unsafe { pg_sys::CommitTransactionCommand() };
        Ok(value)
    });
    let done = PgTryBuilder::new(body).catch_others(|caught| Err(failure(caught))).execute();
    match done {
        Ok(value) => {
            if let Some((user, context)) = before {
                switch_user::leave(user, context);
            }
            Ok(value)
        }
        Err(failed) => {
            let failed = with_true_state(failed, stack);
            // SAFETY: what was there before; ours lie in the transaction's memory.
            unsafe { pg_sys::error_context_stack = stack };
            // SAFETY: the transaction of above.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(failed)
        }
    }
}
