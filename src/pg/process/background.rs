//! Background workers: how they are requested at a transaction's commit, or at once, and how they begin.
//!
//! An ERROR at commit is a PANIC, so what happens then is prepared before and allocates nothing.

use crate::pg::process::{backlog, held_locks};
use crate::pg::sys::padded::Padded;
use crate::pg::sys::{backend, compat, guc, latch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, function_name};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::{Duration, Instant};

/// What a worker is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Number of a job.
    pub job: i64,
    pub database: pg_sys::Oid,
    /// Who was connected when the job was asked for.
    pub session_role: pg_sys::Oid,
    /// Whether that role may log in.
    pub may_login: bool,
}

/// What a transaction does once it has committed.
#[derive(Default)]
struct Pending {
    registered: bool,
    workers: Vec<Wanted<Padded<pg_sys::BackgroundWorker>>>,
    /// Processes that are interrupted.
    sleepers: Vec<Wanted<Sleeper>>,
}

/// What a subtransaction wants, or one that has ended inside it.
struct Wanted<T> {
    by: pg_sys::SubTransactionId,
    what: T,
}

/// A process, distinguished from a later one with the same pid.
struct Sleeper {
    process: c_int,
    entry: *mut pg_sys::PGPROC,
}

/// How long a worker may take to begin.
const BEGINNING: Duration = Duration::from_secs(1);

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::default();
    /// The jobs that this process asked for workers for, the last first.
    static STARTED: RefCell<VecDeque<(i64, Instant)>> = const { RefCell::new(VecDeque::new()) };
}

/// Whether a worker that this process asked for may still be about to begin with a job.
pub fn was_started(job: i64) -> bool {
    STARTED.with_borrow(|started| started.iter().any(|(known, when)| *known == job && when.elapsed() < BEGINNING))
}

fn remember(job: i64) {
    STARTED.with_borrow_mut(|started| {
        started.truncate(63);
        started.push_front((job, Instant::now()));
    });
}

/// Has a worker started when the transaction commits; of more than may be at work, the others wait for these.
pub fn start_at_commit(launch: Launch) {
    let most = guc::max_workers() as usize;
    remember(launch.job);
    pending(|pending, by| {
        if pending.workers.len() < most {
            pending.workers.push(Wanted { by, what: describe(launch) });
        }
    });
}

/// Has processes interrupted, whatever they do or wait for, when the transaction commits.
pub fn interrupt_at_commit(processes: impl Iterator<Item = i32>) {
    pending(|pending, by| {
        pending.sleepers.extend(processes.map(|process| Wanted { by, what: Sleeper { process, entry: latch::entry(process) } }));
    });
}

/// Starts a worker for a job that has been committed. False when the server has no room for it.
pub fn start(launch: Launch) -> bool {
    let mut worker = describe(launch);
    // SAFETY: a whole description, which is copied.
    let started = unsafe { pg_sys::RegisterDynamicBackgroundWorker(worker.as_mut_ptr(), std::ptr::null_mut()) };
    if started {
        remember(launch.job);
    }
    started
}

fn pending(add: impl FnOnce(&mut Pending, pg_sys::SubTransactionId)) {
    PENDING.with_borrow_mut(|pending| {
        if !pending.registered {
            // SAFETY: the callback stays valid, since a library is never unloaded.
            unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
            // SAFETY: the callback stays valid, since a library is never unloaded.
            unsafe { pg_sys::RegisterSubXactCallback(Some(at_end_of_part), std::ptr::null_mut()) };
            pending.registered = true;
        }
        // SAFETY: reads a backend variable.
        add(pending, unsafe { pg_sys::GetCurrentSubTransactionId() });
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => PENDING.with_borrow_mut(|pending| {
            for mut worker in pending.workers.drain(..) {
                // Without room the job waits for the next that looks.
                // SAFETY: a whole description, which is copied.
                if !unsafe { pg_sys::RegisterDynamicBackgroundWorker(worker.what.as_mut_ptr(), std::ptr::null_mut()) } {
                    backlog::add(backend::database());
                }
            }
            pending.sleepers.drain(..).for_each(|sleeper| interrupt(sleeper.what));
        }),
        pg_sys::XactEvent::XACT_EVENT_ABORT => PENDING.with_borrow_mut(|pending| {
            pending.workers.clear();
            pending.sleepers.clear();
        }),
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE
            if PENDING.with_borrow(|pending| !pending.workers.is_empty() || !pending.sleepers.is_empty()) =>
        {
            let message = "cannot PREPARE a transaction that has started or stopped a job of bulk";
            ErrorReport::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, function_name!()).report(PgLogLevel::ERROR);
        }
        _ => {}
    }
}

/// What a subtransaction wants goes to the one around it, or with it.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end_of_part(
    event: pg_sys::SubXactEvent::Type,
    part: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    fn settle<T>(wanted: &mut Vec<Wanted<T>>, part: pg_sys::SubTransactionId, parent: Option<pg_sys::SubTransactionId>) {
        match parent {
            None => wanted.retain(|wanted| wanted.by != part),
            Some(parent) => wanted.iter_mut().filter(|wanted| wanted.by == part).for_each(|wanted| wanted.by = parent),
        }
    }
    let parent = match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => None,
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => Some(parent),
        _ => return,
    };
    PENDING.with_borrow_mut(|pending| {
        settle(&mut pending.workers, part, parent);
        settle(&mut pending.sleepers, part, parent);
    });
}

/// Cancels what a process does, if it is still there.
fn interrupt(sleeper: Sleeper) {
    if !sleeper.entry.is_null() && latch::entry(sleeper.process) == sleeper.entry {
        // It fails only for a process that has just ended.
        let _ = kill(Pid::from_raw(sleeper.process), Signal::SIGINT);
    }
}

fn describe(launch: Launch) -> Padded<pg_sys::BackgroundWorker> {
    let mut worker = process(&format!("bulk worker for job {}", launch.job), "bulk worker", "bulk_worker", pg_sys::BGW_NEVER_RESTART);
    let extra = [
        launch.job.to_le_bytes().as_slice(),
        &launch.database.to_u32().to_le_bytes(),
        &launch.session_role.to_u32().to_le_bytes(),
        &[u8::from(launch.may_login)],
    ]
    .concat();
    write(&mut worker.bgw_extra, &extra);
    worker
}

/// Seconds after which a launcher that failed is there again.
const LAUNCHER_RESTART: c_int = 10;

/// The launcher, as the server starts it.
pub fn describe_launcher() -> Padded<pg_sys::BackgroundWorker> {
    process("bulk launcher", "bulk launcher", "bulk_launcher", LAUNCHER_RESTART)
}

fn process(name: &str, kind: &str, function: &str, restart: c_int) -> Padded<pg_sys::BackgroundWorker> {
    let mut worker = Padded::from(pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: restart,
        ..Default::default()
    });
    write(&mut worker.bgw_name, name.as_bytes());
    write(&mut worker.bgw_type, kind.as_bytes());
    write(&mut worker.bgw_library_name, b"bulk");
    write(&mut worker.bgw_function_name, function.as_bytes());
    worker
}

/// Copies bytes to the start of a field of zeroes, which is longer.
fn write(field: &mut [c_char], bytes: &[u8]) {
    for (place, byte) in field.iter_mut().zip(bytes) {
        *place = *byte as c_char;
    }
}

/// Begins a worker: signals as a session has them, and a connection. A role or database that is gone ends the process.
pub fn enter() -> Launch {
    compat::handle_signals();
    // SAFETY: the handlers are set.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
    // SAFETY: reads a variable of the process.
    let entry = unsafe { pg_sys::MyBgworkerEntry };
    // SAFETY: set for every background worker.
    let extra = unsafe { (*entry).bgw_extra };
    let bytes: [u8; 17] = std::array::from_fn(|index| extra[index] as u8);
    let word = |at: usize| pg_sys::Oid::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let job = i64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
    let launch = Launch { job, database: word(8), session_role: word(12), may_login: bytes[16] != 0 };
    compat::connect(launch.database, launch.session_role, launch.may_login);
    // Those of the role are for its sessions.
    guc::lift_timeouts();
    held_locks::protect();
    launch
}

/// Rereads the configuration after a SIGHUP. Call it between transactions.
pub fn reload_configuration() {
    // SAFETY: reads a flag that a signal handler sets.
    if unsafe { pg_sys::ConfigReloadPending } != 0 {
        // SAFETY: a flag of this process, which its signal handler alone sets beside this thread.
        unsafe { pg_sys::ConfigReloadPending = 0 };
        // SAFETY: outside a transaction.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
}

/// Says in `pg_stat_activity` what the worker does, and shows what it did in the statistics.
pub fn report_activity(what: Option<&CStr>) {
    let (state, what) = match what {
        Some(what) => (pg_sys::BackendState::STATE_RUNNING, what.as_ptr()),
        None => (pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
    };
    // SAFETY: writes to this process's own entry; the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, what) };
    // SAFETY: outside a transaction; not more often than the server wants to.
    unsafe { pg_sys::pgstat_report_stat(false) };
}

/// Tells the server's log of what a job's owner reads in `bulk.job`.
pub fn log(message: String) {
    pgrx::ereport!(PgLogLevel::LOG, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message);
}

/// Forgets a cancel that came too late for the job that it was meant for.
pub fn forget_cancel() {
    // SAFETY: a flag that a signal handler sets.
    unsafe { pg_sys::QueryCancelPending = 0 };
}
