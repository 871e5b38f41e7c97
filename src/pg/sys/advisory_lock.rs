//! Locks that say who works on what: advisory locks of classes of our own, held by the session, gone with the process however it ends.
//! SQL reads them in `pg_locks` by `bulk_internal.lock_class`.

use crate::pg::sys::backend;
use pgrx::pg_sys;

/// What is locked, in this database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// A job, by its number; its workers share it.
    Job(i64),
    /// A task, by its number; one worker's alone.
    Task(i64),
    /// One of those who may be at a job at a time.
    JobSlot(i64, u16),
    /// One of the places that `bulk.max_workers` gives.
    WorkerSlot(u32),
    /// One of the places that `bulk.max_workers_per_role` gives a role.
    RoleSlot(pg_sys::Oid, u32),
    /// A job, by its number; workers that leave it for others' turn share it.
    Leaving(i64),
    /// One of the places that `bulk.max_exports` gives, until the call's transaction ends.
    ExportPlace(u32),
    /// One of the threads that `bulk.max_load_threads` gives, in the whole server.
    LoadThread(u32),
    /// The snapshot of a job, by its number; the process that holds the snapshot has it.
    Snapshot(i64),
}

impl Lock {
    /// PostgreSQL's own advisory locks have the classes 1 and 2.
    const WORK: u16 = 16962;
    const WORKER_SLOT: u16 = 16963;
    const SNAPSHOT: u16 = 16965;
    const ROLE_SLOT: u16 = 16966;
    const LEAVING: u16 = 16967;
    const LOAD_THREAD: u16 = 16968;
    const EXPORT_PLACE: u16 = 16969;
    /// The first of so many: a job's number fills the rest of the tag.
    const JOB_SLOT: u16 = 17000;
    const JOB_SLOTS: u16 = 1024;

    /// The class of locks of a name, which `pg_locks` shows as `objsubid`; None for an unknown name.
    pub fn class(name: &str) -> Option<i32> {
        let class = match name {
            "work" => Lock::WORK,
            "worker-slot" => Lock::WORKER_SLOT,
            "role-slot" => Lock::ROLE_SLOT,
            "leaving" => Lock::LEAVING,
            "export-place" => Lock::EXPORT_PLACE,
            "load-thread" => Lock::LOAD_THREAD,
            "job-slot" => Lock::JOB_SLOT,
            "snapshot" => Lock::SNAPSHOT,
            _ => return None,
        };
        Some(i32::from(class))
    }

    fn tag(self) -> pg_sys::LOCKTAG {
        let halves = |number: i64| ((number >> 32) as u32, number as u32);
        let (class, (high, low)) = match self {
            Lock::Job(number) | Lock::Task(number) => (Lock::WORK, halves(number)),
            Lock::WorkerSlot(slot) => (Lock::WORKER_SLOT, (0, slot)),
            Lock::RoleSlot(role, slot) => (Lock::ROLE_SLOT, (role.to_u32(), slot)),
            Lock::Leaving(number) => (Lock::LEAVING, halves(number)),
            Lock::ExportPlace(place) => (Lock::EXPORT_PLACE, (0, place)),
            Lock::LoadThread(slot) => (Lock::LOAD_THREAD, (0, slot)),
            Lock::JobSlot(job, slot) => (Lock::JOB_SLOT + slot.min(Lock::JOB_SLOTS - 1), halves(job)),
            Lock::Snapshot(number) => (Lock::SNAPSHOT, halves(number)),
        };
        pg_sys::LOCKTAG {
            locktag_field1: match self {
                Lock::LoadThread(_) => 0,
                _ => backend::database().to_u32(),
            },
            locktag_field2: high,
            locktag_field3: low,
            locktag_field4: class,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        }
    }

    fn mode(self) -> i32 {
        match self {
            Lock::Job(_) | Lock::Leaving(_) => pg_sys::ShareLock as i32,
            Lock::Task(_)
            | Lock::WorkerSlot(_)
            | Lock::RoleSlot(..)
            | Lock::JobSlot(..)
            | Lock::Snapshot(_)
            | Lock::ExportPlace(_)
            | Lock::LoadThread(_) => pg_sys::ExclusiveLock as i32,
        }
    }

    /// Takes it for this session; false when another has it.
    #[must_use]
    pub fn take(self) -> bool {
        self.acquire(true)
    }

    /// Gives it back.
    pub fn release(self) {
        self.give_back(true);
    }

    /// Takes it for this transaction, which an ERROR ends; false when another has it.
    #[must_use]
    pub fn take_for_transaction(self) -> bool {
        self.acquire(false)
    }

    /// Gives back what `take_for_transaction` took.
    pub fn release_in_transaction(self) {
        self.give_back(false);
    }

    fn acquire(self, for_session: bool) -> bool {
        let tag = self.tag();
        // SAFETY: a tag as advisory locks have it; the lock is not waited for.
        let result = unsafe { pg_sys::LockAcquire(&tag, self.mode(), for_session, true) };
        // Locks of a session outlive a transaction that failed: what is tried again has them once all the same.
        if for_session && result == pg_sys::LockAcquireResult::LOCKACQUIRE_ALREADY_HELD {
            self.give_back(true);
        }
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    fn give_back(self, of_session: bool) {
        let tag = self.tag();
        // SAFETY: a lock of this session, else a WARNING.
        unsafe { pg_sys::LockRelease(&tag, self.mode(), of_session) };
    }
}

/// Shares an object of the catalog to the transaction's end, so that it is not dropped; false where another is about to drop it.
#[must_use]
pub fn take_object(catalog: pg_sys::Oid, object: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: backend::database().to_u32(),
        locktag_field2: catalog.to_u32(),
        locktag_field3: object.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: a tag as LockDatabaseObject makes it; the lock is the transaction's, and is not waited for.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::AccessShareLock as i32, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
