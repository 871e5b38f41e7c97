//! The HTTP status of what went wrong, by our own condition or by SQLSTATE: the one map of the kind.

use crate::error::Error;
use crate::operation::response::{Answer, Refusal};
use crate::pg::process::background;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{backend, sqlstate};

/// The answer to a request that failed. What is nobody's fault but ours is in the server's log too.
pub fn refusal(failure: &Failure) -> Refusal {
    let (status, text) = match failure {
        Failure::Ours(error) => (of_error(error), sqlstate::message_without_content(error)),
        Failure::Server { sqlstate, .. } => (of_sqlstate(&sqlstate::sqlstate(*sqlstate)), failure.masked_message()),
    };
    if status == 500 {
        background::log(format!("bulk.http answers 500: {text}"));
    }
    of_status(status, text)
}

/// The answer to a request that failed with this SQLSTATE, for whoever met it outside of us.
pub fn of_outside(sqlstate: &str, message: &str) -> Answer {
    of_status(of_sqlstate(sqlstate), message.to_owned()).into()
}

fn of_status(status: u16, text: String) -> Refusal {
    let code = match status {
        400 => "invalid",
        403 => "forbidden",
        404 => "not-found",
        422 => "processing",
        502 | 503 => "transient",
        _ => "exception",
    };
    Refusal::new(status, code, text)
}

fn of_error(error: &Error) -> u16 {
    match error {
        Error::UnknownType(_) | Error::NoJob(_) => 404,
        Error::InvalidType(_) | Error::InvalidOption { .. } | Error::UnknownOption { .. } | Error::Null(_) => 400,
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
