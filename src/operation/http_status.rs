//! The HTTP status of what went wrong, by our own condition or by SQLSTATE: the one map of the kind, for every door that requests come by.

use crate::error::{Error, SourceFault};
use crate::operation::response::{Answer, Refusal};
use crate::pg::process::background;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{backend, sqlstate};

/// Where a request names what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The path of a request.
    Path,
    /// Its body.
    Body,
    /// The body of a request to import.
    Import,
    /// The parameters of an export.
    Export,
}

/// What a door answers that the others do not: the door, which errors, and their status.
type Exception = (Door, fn(&Error) -> bool, u16);
const EXCEPTIONS: [Exception; 3] = [
    // A type in the path is a resource that is not there; in a body or a parameter it is a wrong value.
    (Door::Path, |error| matches!(error, Error::UnknownType(_)), 404),
    // A source that cannot be looked at is named by the request.
    (Door::Import, |error| matches!(error, Error::Source { .. } | Error::NoResourceDirectory), 400),
    // The store of an export, and the account for it, are the server's configuration.
    (
        Door::Export,
        |error| matches!(error, Error::Source { .. } | Error::NoAccount { .. } | Error::NoAccountSecret { .. } | Error::WhichAccount(_)),
        500,
    ),
];

/// The answer to a request that failed. What is nobody's fault but ours is in the server's log too.
pub fn refusal(failure: &Failure, door: Door) -> Refusal {
    let (status, text) = match failure {
        Failure::Ours(error) => (of_error(error, door), sqlstate::message_without_content(error)),
        Failure::Server { sqlstate, .. } => (of_sqlstate(&sqlstate::sqlstate(*sqlstate)), failure.masked_message()),
    };
    if status == 500 {
        background::log(format!("bulk.http answers 500: {text}"));
    }
    Refusal::new(status, code_of(status), text)
}

/// The answer to a request that failed with this SQLSTATE, for an HTTP layer that met the error outside of `bulk.http`.
pub fn of_outside(sqlstate: &str, message: &str) -> Answer {
    let status = of_sqlstate(sqlstate);
    Refusal::new(status, code_of(status), message).into()
}

/// The refusal of a request that is to blame for an error, or a server that is not configured for it.
///
/// # Errors
/// The error itself where no request can be the cause of it.
pub fn blame_request(error: Error, door: Door) -> Result<Refusal, Error> {
    let is_of_row = matches!(&error, Error::Server { sqlstate, .. } if sqlstate::sqlstate(*sqlstate) != "42501");
    match of_error(&error, door) {
        status if (status < 500 || is_exception(&error, door)) && !is_of_row => {
            Ok(Refusal::new(status, code_of(status), error.to_string()))
        }
        _ => Err(error),
    }
}

/// FHIR's code for an issue that is answered with a status. <https://hl7.org/fhir/R4/valueset-issue-type.html>
pub fn code_of(status: u16) -> &'static str {
    match status {
        400 => "invalid",
        403 => "forbidden",
        404 => "not-found",
        409 => "conflict",
        422 => "processing",
        502 | 503 => "transient",
        _ => "exception",
    }
}

fn is_exception(error: &Error, door: Door) -> bool {
    EXCEPTIONS.iter().any(|(of, fits, _)| *of == door && fits(error))
}

fn of_error(error: &Error, door: Door) -> u16 {
    if let Some((.., status)) = EXCEPTIONS.iter().find(|(of, fits, _)| *of == door && fits(error)) {
        return *status;
    }
    match error {
        Error::MissingRole { .. } | Error::ForeignJob | Error::Unreadable(_) => 403,
        Error::NoJob(_) => 404,
        Error::UnknownType(_)
        | Error::InvalidType(_)
        | Error::InvalidOption { .. }
        | Error::UnknownOption { .. }
        | Error::Null(_)
        | Error::Source { fault: SourceFault::Unsupported | SourceFault::NotABucket, .. } => 400,
        Error::WrongShape { .. } | Error::WrongStatusType(_) | Error::NoHistory(_) | Error::NoUpdateTime(_) => 422,
        Error::Server { sqlstate, .. } => of_sqlstate(&sqlstate::sqlstate(*sqlstate)),
        error => of_sqlstate(&sqlstate::state(error)),
    }
}

fn of_sqlstate(state: &str) -> u16 {
    match (state, state.get(..2).unwrap_or_default()) {
        ("42501", _) => 403,
        // What other servers did, from which the source was to come.
        ("08001" | "08006", _) => 502,
        ("08004" | "58P01", _) => 422,
        // Asked of a standby.
        ("25006", _) if backend::is_standby() => 503,
        // Locks, and what may pass by itself.
        ("55006" | "55P03", _) | (_, "08" | "40" | "53" | "57") => 503,
        // The server's files, its configuration, its own faults and ours.
        (_, "" | "58" | "F0" | "XX") => 500,
        // Data, constraints, statements, limits, and what functions raise, with states of their own.
        _ => 422,
    }
}
