//! Where PostgreSQL's versions differ: one function a difference, the same to its callers in every version.

use crate::pg::sys::unguarded::unguarded;
use nix::sys::signal::Signal;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::ptr;

/// What a load touches of a table: columns by number.
pub struct TableAccess<'a> {
    pub rte: *mut pg_sys::RangeTblEntry,
    pub read: &'a [i16],
    pub inserted: &'a [i16],
    pub updated: &'a [i16],
}

/// Checks the current user's rights for an upsert (SELECT, INSERT and UPDATE of the columns), as the executor would, and gives the
/// range table to the executor's state. An ERROR when a right is missing.
pub fn init_range_table(estate: *mut pg_sys::EState, access: &TableAccess) {
    let wanted = (pg_sys::ACL_SELECT | pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE) as pg_sys::AclMode;
    // SAFETY: a list of one valid range table entry, in the current memory context.
    let range_table = unsafe { pg_sys::lappend(ptr::null_mut(), access.rte.cast()) };
    #[cfg(feature = "pg15")]
    {
        // SAFETY: the entry was just made by the caller.
        let rte = unsafe { &mut *access.rte };
        rte.requiredPerms = wanted;
        rte.selectedCols = columns(access.read);
        rte.insertedCols = columns(access.inserted);
        rte.updatedCols = columns(access.updated);
        // SAFETY: a list of range table entries that lives as long as the executor state.
        unsafe { pg_sys::ExecCheckRTPerms(range_table, true) };
        // SAFETY: a fresh executor state.
        unsafe { pg_sys::ExecInitRangeTable(estate, range_table) };
    }
    #[cfg(not(feature = "pg15"))]
    {
        let mut permissions = ptr::null_mut();
        // SAFETY: a list to append to and an entry of a relation.
        let info = unsafe { pg_sys::addRTEPermissionInfo(&mut permissions, access.rte) };
        // SAFETY: just made.
        let info = unsafe { &mut *info };
        info.requiredPerms = wanted;
        info.selectedCols = columns(access.read);
        info.insertedCols = columns(access.inserted);
        info.updatedCols = columns(access.updated);
        // SAFETY: the two lists belong together.
        unsafe { pg_sys::ExecCheckPermissions(range_table, permissions, true) };
        #[cfg(any(feature = "pg16", feature = "pg17"))]
        // SAFETY: a fresh executor state.
        unsafe {
            pg_sys::ExecInitRangeTable(estate, range_table, permissions)
        };
        #[cfg(feature = "pg18")]
        {
            // SAFETY: makes a set of one member: the only entry is never pruned.
            let unpruned = unsafe { pg_sys::bms_add_member(ptr::null_mut(), 1) };
            // SAFETY: a fresh executor state.
            unsafe { pg_sys::ExecInitRangeTable(estate, range_table, permissions, unpruned) };
        }
    }
}

/// Columns as the privilege checks number them.
fn columns(numbers: &[i16]) -> *mut pg_sys::Bitmapset {
    numbers.iter().fold(ptr::null_mut(), |set, &number| {
        // SAFETY: a set that this function made, or none yet.
        unsafe { pg_sys::bms_add_member(set, i32::from(number) - pg_sys::FirstLowInvalidHeapAttributeNumber) }
    })
}

/// Refuses what cannot be inserted into.
pub fn check_insert(relation: *mut pg_sys::ResultRelInfo) {
    let insert = pg_sys::CmdType::CMD_INSERT;
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: an initialized result relation.
    unsafe {
        pg_sys::CheckValidResultRel(relation, insert)
    };
    #[cfg(feature = "pg17")]
    // SAFETY: a relation that is open and locked by the caller; without row marks or merge actions.
    unsafe {
        pg_sys::CheckValidResultRel(relation, insert, ptr::null_mut())
    };
    #[cfg(feature = "pg18")]
    // SAFETY: a relation that is open and locked by the caller; without row marks or merge actions.
    unsafe {
        pg_sys::CheckValidResultRel(relation, insert, pg_sys::OnConflictAction::ONCONFLICT_NONE, ptr::null_mut())
    };
}

#[cfg(feature = "pg15")]
unguarded! {
    fn ExecInsertIndexTuples(
        relation: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}
#[cfg(not(feature = "pg15"))]
unguarded! {
    fn ExecInsertIndexTuples(
        relation: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
        only_summarizing: bool,
    ) -> *mut pg_sys::List;
}

/// Inserts the index entries of rows that were just inserted, in this order; a duplicate key is an ERROR.
pub fn insert_index_entries(
    relation: *mut pg_sys::ResultRelInfo,
    slots: &[(u32, *mut pg_sys::TupleTableSlot)],
    estate: *mut pg_sys::EState,
) {
    let insert = || {
        for &(_, slot) in slots {
            #[cfg(feature = "pg15")]
            // SAFETY: a row of this relation, whose indexes are open.
            unsafe {
                ExecInsertIndexTuples(relation, slot, estate, false, false, ptr::null_mut(), ptr::null_mut())
            };
            #[cfg(not(feature = "pg15"))]
            // SAFETY: a row that is in the table, a relation whose indexes are open, and its executor state.
            unsafe {
                ExecInsertIndexTuples(relation, slot, estate, false, false, ptr::null_mut(), ptr::null_mut(), false)
            };
        }
    };
    // SAFETY: turns an ERROR of the calls into an unwinding; the closure holds nothing to drop.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(insert) }
}

/// Connects a worker to a database as a role, also one that may not log in.
pub fn connect(database: pg_sys::Oid, role: pg_sys::Oid, may_login: bool) {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        let _ = may_login;
        // SAFETY: once, in a worker that asked for a connection.
        unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role, pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK) };
    }
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        let who = if may_login { role } else { pg_sys::InvalidOid };
        // SAFETY: a background worker that has no connection yet.
        unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, who, 0) };
        if !may_login {
            // These versions have no way around that check but the server's own right. No work is ever done in it: each transaction is
            // the job's role's, within which no one can go back to it.
            // SAFETY: outside a transaction.
            unsafe { pg_sys::StartTransactionCommand() };
            // SAFETY: a catalog look-up.
            let is_superuser = unsafe { pg_sys::superuser_arg(role) };
            // SAFETY: the transaction of above.
            unsafe { pg_sys::CommitTransactionCommand() };
            // SAFETY: allowed to who is connected.
            unsafe { pg_sys::SetSessionAuthorization(role, is_superuser) };
        }
    }
}

unguarded! {
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
}
#[cfg(not(feature = "pg18"))]
use pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pg_sys::pqsignal_be as pqsignal;

/// Has a worker end and read its configuration as a session does.
pub fn handle_signals() {
    // SAFETY: PostgreSQL's own handler.
    unsafe { pqsignal(Signal::SIGTERM as c_int, Some(die)) };
    // SAFETY: a handler of the server's that only sets a flag and a latch.
    unsafe { pqsignal(Signal::SIGHUP as c_int, Some(SignalHandlerForConfigReload)) };
}
