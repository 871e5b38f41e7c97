//! `bulk.load_from_bucket`, its status, `bulk.restore_indexes` and `bulk.storage_healthcheck`.

use crate::error::Error;
use crate::job::bucket::call;
use crate::job::bucket::status;
use crate::job::storage;
use crate::job::told::{self, Answer};
use crate::op::params::{object, value};
use crate::pg::argument::Json;
use crate::pg::attempt::attempt;
use crate::pg::indexes::{self, Restored};
use crate::pg::jobs::start;
use crate::pg::version::Matched;
use crate::pg::{lifecycle, report};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value, json};

/// Does what a call asks for; what is wrong with it is the answer.
fn answer(params: Option<Json>, act: impl FnOnce(&Map<String, Value>) -> Result<Answer, Error>) -> JsonB {
    let given = params.ok_or(Error::Null("params")).and_then(|params| object(&value(&params.0, "params")?, "params"));
    let answered = match given {
        Ok(given) => act(&given),
        Err(error) => told::refusal(error, None),
    };
    JsonB(report::ok(answered).unwrap_or_else(|error| json!({ "error": error })))
}

#[pg_extern(sql = false)]
fn load_from_bucket(_version: Matched, params: Option<Json>) -> JsonB {
    answer(params, call::start)
}

#[pg_extern(sql = false)]
fn load_from_bucket_status(_version: Matched, params: Option<Json>) -> JsonB {
    answer(params, status::status)
}

#[pg_extern(sql = false)]
fn storage_healthcheck(_version: Matched) -> JsonB {
    JsonB(report::ok(storage::healthcheck()).unwrap_or_else(|error| json!({ "error": error })))
}

#[pg_extern(sql = false)]
fn restore_indexes(_version: Matched, table_name: Option<pg_sys::Oid>) -> SetOfIterator<'static, String> {
    lifecycle::require_writable(c"bulk.restore_indexes");
    SetOfIterator::new(report::ok(restore(table_name)))
}

fn restore(table: Option<pg_sys::Oid>) -> Result<Vec<String>, Error> {
    start::start_waiting()?;
    let mut restored = Vec::new();
    for name in indexes::restorable(table)? {
        // One that cannot be put back does not keep off the others.
        match attempt(|| indexes::restore(&name, None)) {
            Ok(Restored::Done(shown)) => restored.push(shown),
            Ok(Restored::NotNeeded) => {}
            Ok(Restored::Held) => notice!("index {name} is put back by the load that does without it"),
            Err(failure) => {
                let message = failure.whole_message();
                indexes::note(&name, &message)?;
                warning!("index {name} cannot be put back: {message}");
            }
        }
    }
    Ok(restored)
}
