//! Work that may fail without the transaction: in a subtransaction, taken back when it does.

use crate::error::Error;
use crate::pg::sys::{error_context, memory_context, sqlstate};
use crate::retry;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// Why work failed.
#[derive(Debug)]
pub enum Failure {
    Ours(Error),
    Server { sqlstate: i32, message: String, caught: Box<CaughtError> },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Ours(error)
    }
}

/// Classes of SQLSTATE that a row's values can be the cause of: data exceptions, constraints, `with check option`, limits of an index's
/// entries, what a function raises.
const ABOUT_ROWS: [&str; 5] = ["22", "23", "44", "54", "P0"];

impl Failure {
    /// Whether a row is to blame, and not the table, the server or somebody else.
    pub fn is_about_a_row(&self) -> bool {
        match self {
            Failure::Ours(_) => false,
            Failure::Server { sqlstate, .. } => ABOUT_ROWS.contains(&&sqlstate::sqlstate(*sqlstate)[..2]),
        }
    }

    /// The error's message; of a lock that was not to be had, with who has it.
    pub fn message(&self) -> String {
        match self {
            Failure::Ours(error) => error.to_string(),
            Failure::Server { sqlstate, message, .. } => match self.detail().filter(|_| sqlstate::sqlstate(*sqlstate) == "55P03") {
                Some(holder) => format!("{message}. {holder}"),
                None => message.clone(),
            },
        }
    }

    /// The same with what PostgreSQL says in its DETAIL.
    pub fn whole_message(&self) -> String {
        let message = self.message();
        match self.detail() {
            Some(detail) if !message.ends_with(detail) => format!("{message}. {detail}"),
            _ => message,
        }
    }

    /// The same, but that no DETAIL shows a row, or a key other than id.
    pub fn masked_message(&self) -> String {
        let (Failure::Server { sqlstate, message, .. }, Some(detail)) = (self, self.detail()) else { return self.message() };
        let masked = error_context::without_content(*sqlstate, detail.as_bytes()).map(|shown| shown.to_string_lossy());
        format!("{message}. {}", masked.as_deref().unwrap_or(detail))
    }

    fn detail(&self) -> Option<&str> {
        let Failure::Server { caught, .. } = self else { return None };
        let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) | CaughtError::RustPanic { ereport: report, .. }) =
            &**caught;
        report.detail()
    }

    /// The same as an error of ours.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Ours(error) => error,
            Failure::Server { sqlstate, message, .. } => Error::Server { sqlstate, message },
        }
    }

    /// Whether somebody cancelled it.
    pub fn is_cancel(&self) -> bool {
        matches!(self, Failure::Server { sqlstate, .. } | Failure::Ours(Error::Server { sqlstate, .. }) if sqlstate::sqlstate(*sqlstate) == "57014")
    }

    /// Whether a cancel or the server's shutdown is the cause.
    fn is_the_end(&self) -> bool {
        matches!(self, Failure::Server { sqlstate, .. } if sqlstate::sqlstate(*sqlstate).starts_with("57"))
    }

    /// Whether the same may succeed when it is tried again, since another transaction or a source stood in its way.
    pub fn is_transient(&self) -> bool {
        self.is_transient_conflict() || matches!(self, Failure::Ours(Error::Source { fault, .. }) if retry::is_transient_source(fault))
    }

    /// Whether another transaction stood in its way.
    pub fn is_transient_conflict(&self) -> bool {
        match self {
            Failure::Server { sqlstate, .. } | Failure::Ours(Error::Server { sqlstate, .. }) => {
                retry::is_transient_state(&sqlstate::sqlstate(*sqlstate))
            }
            Failure::Ours(_) => false,
        }
    }

    /// Ends the statement with the error.
    pub fn raise(self) -> ! {
        match self {
            Failure::Ours(error) => sqlstate::raise(&error),
            Failure::Server { caught, .. } => caught.rethrow(),
        }
    }
}

/// Does work whose changes stay only if it succeeds, and whose memory of PostgreSQL's goes in any case. What it opens it must have closed by then.
/// An error that no row is to blame for goes on, whole.
///
/// # Errors
/// Those of `work`, and what PostgreSQL raises in it about a row.
pub fn run<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    attempt_but(|failure| !failure.is_about_a_row(), work)
}

/// The same, but that every error comes back, save those by which somebody ends the statement or the server.
///
/// # Errors
/// Those of `work`, and all that PostgreSQL raises in it but cancels and shutdowns.
pub fn run_all<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    attempt_but(Failure::is_the_end, work)
}

fn attempt_but<T>(goes_on: fn(&Failure) -> bool, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    // SAFETY: reads a backend variable.
    let before = unsafe { pg_sys::CurrentMemoryContext };
    let memory = memory_context::child(before, c"bulk subtransaction");
    // SAFETY: reads a variable of this process.
    let owner = unsafe { pg_sys::CurrentResourceOwner };
    // SAFETY: reads a variable of this process.
    let context = unsafe { pg_sys::error_context_stack };
    // SAFETY: a transaction is running; the subtransaction has no name.
    unsafe { pg_sys::BeginInternalSubTransaction(std::ptr::null()) };
    // SAFETY: a valid context.
    unsafe { pg_sys::CurrentMemoryContext = memory };
    let done = PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Failure::Ours))).catch_others(|caught| Err(failure(caught))).execute();
    let done = done.map_err(|failure| with_true_state(failure, context));
    match &done {
        // SAFETY: the subtransaction of above is the innermost.
        Ok(_) => unsafe { pg_sys::ReleaseCurrentSubTransaction() },
        // SAFETY: the subtransaction begun here is the innermost: `work` left none open, or the error ended them; what was opened in it goes with it.
        Err(_) => unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() },
    }
    // SAFETY: as they were before.
    unsafe { pg_sys::CurrentMemoryContext = before };
    // SAFETY: the owner of the transaction around the subtransaction, which lives longer than this call.
    unsafe { pg_sys::CurrentResourceOwner = owner };
    // SAFETY: made above; what is left of the work is Rust's memory.
    unsafe { pg_sys::MemoryContextDelete(memory) };
    match done {
        // What completes the error is still on the stack.
        Err(failure @ Failure::Server { .. }) if goes_on(&failure) => failure.raise(),
        done => {
            error_context::forget_since(context);
            done
        }
    }
}

/// Does work outside a transaction, where a cancel may meet it.
///
/// # Errors
/// Those of `work`, and what PostgreSQL raises in it.
pub fn outside<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Failure::Ours))).catch_others(|caught| Err(failure(caught))).execute()
}

/// What PostgreSQL refused.
pub fn failure(caught: CaughtError) -> Failure {
    let (CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) | CaughtError::RustPanic { ereport: report, .. }) = &caught;
    Failure::Server { sqlstate: report.sql_error_code() as i32, message: report.message().to_owned(), caught: Box::new(caught) }
}

/// With its SQLSTATE: pgrx knows PostgreSQL's own only.
pub fn with_true_state(failure: Failure, since: *mut pg_sys::ErrorContextCallback) -> Failure {
    match failure {
        Failure::Server { sqlstate, message, caught } => {
            Failure::Server { sqlstate: error_context::state_since(since).unwrap_or(sqlstate), message, caught }
        }
        ours => ours,
    }
}
