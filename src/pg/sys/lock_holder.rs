//! Waits of sessions that end after five seconds, with who stands in the way: no role that may lock a table of the extension, or keeps a transaction
//! open, holds others up for longer. A background worker waits: nobody waits for it, and a cancel of its job ends that.

use crate::pg::sys::unguarded::{errdetail, errhint};
use crate::pg::sys::{backend, guc, memory_context};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// For how long, in milliseconds.
const WAIT_TIMEOUT: i32 = 5000;

/// What is waited for.
#[derive(Debug, Clone)]
pub enum Awaited {
    /// One of these tables, or a row in it, with their names.
    Tables(Vec<(pg_sys::Oid, String)>),
    /// A lock of one's own.
    Lock(pg_sys::LOCKTAG),
}

thread_local! {
    /// What is waited for now.
    static AWAITED: RefCell<Option<Awaited>> = const { RefCell::new(None) };
}

/// Does work whose waits end with 55P03 after five seconds, or sooner by the session's own `lock_timeout`.
pub fn within<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: reads a backend variable.
    let set = unsafe { pg_sys::LockTimeout };
    // SAFETY: reads a variable of the process.
    let is_worker = unsafe { !pg_sys::MyBgworkerEntry.is_null() };
    let ends_sooner = set != 0 && set <= WAIT_TIMEOUT;
    guc::within(if is_worker || ends_sooner { &[] } else { &[(c"lock_timeout", c"5s")] }, work)
}

/// Does work whose error 55P03 names who holds what is awaited.
pub fn naming<T>(awaited: Awaited, work: impl FnOnce() -> T) -> T {
    /// Sets back what was awaited before, also when an ERROR unwinds.
    struct Before(Option<Awaited>);
    impl Drop for Before {
        fn drop(&mut self) {
            AWAITED.set(self.0.take());
        }
    }
    let _before = Before(AWAITED.replace(Some(awaited)));
    work()
}

/// Says in the error that is being reported who holds what is awaited, once. For an error context callback.
pub fn annotate() {
    let Some(awaited) = AWAITED.take() else { return };
    let Some((processes, what)) = memory_context::temporary(c"bulk locks", || holders(&awaited)) else { return };
    let (detail, hint) = match processes.as_slice() {
        [0] => (format!("a prepared transaction holds {what}"), "pg_prepared_xacts lists prepared transactions.".to_owned()),
        [process] => (
            format!("process {process} holds {what}"),
            format!("pg_stat_activity tells what it does; pg_terminate_backend({process}) ends it. Then try again."),
        ),
        several => (
            format!("one of the processes {} holds {what}, and has written what is to be written", list(several)),
            "pg_stat_activity tells what they do. Try again when they have committed.".to_owned(),
        ),
    };
    let texts = CString::new(detail).ok().zip(CString::new(hint).ok());
    if let Some((detail, hint)) = texts {
        // SAFETY: an error is being reported on this stack; the text is an argument, not a format, and is copied.
        unsafe { errdetail(c"%s".as_ptr(), detail.as_ptr()) };
        // SAFETY: an error is being reported on this stack; the text is an argument, not a format, and is copied.
        unsafe { errhint(c"%s".as_ptr(), hint.as_ptr()) };
    }
}

fn list(processes: &[i32]) -> String {
    processes.iter().take(10).map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// The process that has a lock on what is awaited with which no statement of ours agrees, and which lock; else all that may write to the tables: a row
/// is awaited from one of them.
fn holders(awaited: &Awaited) -> Option<(Vec<i32>, String)> {
    // SAFETY: looks at shared memory, under the lock manager's locks; the copy lies in the current memory context.
    let copied = unsafe { pg_sys::GetLockStatusData() };
    // SAFETY: the copy that was made now.
    let found = unsafe { &*copied };
    let count = usize::try_from(found.nelements).unwrap_or_default();
    let locks = match found.locks.is_null() {
        true => &[],
        // SAFETY: an array of so many.
        false => unsafe { std::slice::from_raw_parts(found.locks, count) },
    };
    // SAFETY: reads a backend variable.
    let own = unsafe { pg_sys::MyProcPid };
    let mode = |mask: i32| (31 - mask.leading_zeros()).cast_signed();
    let held: Vec<_> = locks
        .iter()
        .filter(|lock| lock.holdMask != 0 && lock.pid != own)
        .filter_map(|lock| Some((lock, mode(lock.holdMask), name(awaited, &lock.locktag)?)))
        .collect();
    let said = |lock: &pg_sys::LockInstanceData, mode, name| format!("{} on {name}", mode_name(&lock.locktag, mode));
    let strongest = held.iter().filter(|(_, mode, _)| *mode >= pg_sys::ShareLock as i32).max_by_key(|(_, mode, _)| *mode);
    if let Some((lock, mode, name)) = strongest {
        return Some((vec![lock.pid], said(lock, *mode, name)));
    }
    let mut writers: Vec<_> = held.iter().filter(|(lock, ..)| lock.holdMask & (1 << pg_sys::RowExclusiveLock) != 0).collect();
    writers.sort_by_key(|(lock, ..)| lock.pid);
    writers.dedup_by_key(|(lock, ..)| lock.pid);
    let (lock, _, name) = writers.first()?;
    Some((writers.iter().map(|(lock, ..)| lock.pid).collect(), said(lock, pg_sys::RowExclusiveLock as i32, name)))
}

/// The name of what a lock is on, where it is awaited.
fn name(awaited: &Awaited, tag: &pg_sys::LOCKTAG) -> Option<String> {
    let same = |other: &pg_sys::LOCKTAG| {
        (tag.locktag_type, tag.locktag_field1, tag.locktag_field2, tag.locktag_field3, tag.locktag_field4)
            == (other.locktag_type, other.locktag_field1, other.locktag_field2, other.locktag_field3, other.locktag_field4)
    };
    match awaited {
        Awaited::Lock(own) => same(own).then(|| "what this call waits for, to the end of its transaction".to_owned()),
        Awaited::Tables(tables) => {
            let is_relation =
                u32::from(tag.locktag_type) == pg_sys::LockTagType::LOCKTAG_RELATION && tag.locktag_field1 == backend::database().to_u32();
            tables.iter().find(|(oid, _)| is_relation && oid.to_u32() == tag.locktag_field2).map(|(_, name)| name.clone())
        }
    }
}

fn mode_name(tag: &pg_sys::LOCKTAG, mode: i32) -> String {
    // SAFETY: a lock method and a mode that the lock manager has told.
    let name = unsafe { pg_sys::GetLockmodeName(u16::from(tag.locktag_lockmethodid), mode) };
    // SAFETY: a static text.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
