//! The launcher, a process that is there where the library is preloaded: after a start of the server it goes on with jobs that were
//! interrupted, in every database, and it starts workers that the server had no room for as soon as there is some. It has no database itself.

use crate::pg::process::background::{self, Launch};
use crate::pg::process::backlog;
use crate::pg::sys::{compat, latch};
use pgrx::pg_sys;
use std::time::Duration;

/// Between two tries to start what waits.
const RETRY: Duration = Duration::from_secs(1);

/// What a worker without a job of its own does: goes on with interrupted jobs, or only starts those that wait.
pub const RESUME: i64 = -1;
/// Only starts the jobs that wait.
pub const START: i64 = 0;

/// While the server loads its libraries: has the launcher started.
pub fn register() {
    // SAFETY: reads variables of the server.
    let preloading = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    // SAFETY: reads a variable that the postmaster sets before it loads libraries.
    if !preloading || unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    backlog::register();
    let mut worker = background::describe_launcher();
    // SAFETY: a whole description, which is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(worker.as_mut_ptr()) };
}

/// The whole of it.
pub fn main() {
    compat::handle_signals();
    // SAFETY: the handlers are set.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
    // SAFETY: no database: the catalogs that all share.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    backlog::begin();
    let mut resume = databases();
    loop {
        resume.retain(|&database| !background::start(launch(RESUME, database)));
        let waiting = backlog::databases();
        for &database in &waiting {
            // Should there still be no room, its worker notes it again.
            if background::start(launch(START, database)) {
                backlog::forget(database);
            }
        }
        background::reload_configuration();
        latch::pause_or_wake((!resume.is_empty() || !waiting.is_empty()).then_some(RETRY));
    }
}

fn launch(job: i64, database: pg_sys::Oid) -> Launch {
    Launch { job, database, session_role: pg_sys::InvalidOid, may_login: true }
}

/// Those that can be connected to.
fn databases() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: outside a transaction.
    unsafe { pg_sys::StartTransactionCommand() };
    // SAFETY: a catalog that all databases share.
    let relation = unsafe { pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation.
    let scan = unsafe { pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut()) };
    loop {
        // SAFETY: a scan that is open.
        let row = unsafe { pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection) };
        if row.is_null() {
            break;
        }
        // SAFETY: a row of the scan.
        let header = unsafe { (*row).t_data };
        // SAFETY: a tuple that the scan has pinned begins with its header.
        let start = usize::from(unsafe { (*header).t_hoff });
        // SAFETY: its columns begin behind its header.
        let columns = unsafe { header.cast::<u8>().add(start) };
        // SAFETY: a row of pg_database begins as this struct does.
        let database = unsafe { &*columns.cast::<pg_sys::FormData_pg_database>() };
        // -2 is a database that was half dropped.
        if database.datallowconn && database.datconnlimit != -2 {
            found.push(database.oid);
        }
    }
    // SAFETY: the scan of above.
    unsafe { pg_sys::heap_endscan(scan) };
    // SAFETY: the relation of above.
    unsafe { pg_sys::table_close(relation, pg_sys::AccessShareLock as i32) };
    // SAFETY: the transaction of above.
    unsafe { pg_sys::CommitTransactionCommand() };
    found
}
