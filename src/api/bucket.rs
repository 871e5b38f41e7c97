//! `bulk.load_from_bucket`, its status, `bulk.forget_file`, `bulk.restore_indexes` and `bulk.storage_healthcheck`.

use crate::error::Error;
use crate::operation::bucket::{forget, status, submit};
use crate::operation::loader_error::{self, Answer};
use crate::operation::storage;
use crate::pg::state::disabled_index::{self, Restored};
use crate::pg::state::scheduler;
use crate::pg::sys::argument::Json;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate, subtransaction};
use crate::text::json_members::{object, value};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value, json};

/// Does what a call asks for; what is wrong with it is the answer.
fn answer(params: Option<Json>, act: impl FnOnce(&Map<String, Value>) -> Result<Answer, Error>) -> JsonB {
    let given = params.ok_or(Error::Null("params")).and_then(|params| object(&value(&params.0, "params")?, "params"));
    let answered = match given {
        Ok(given) => act(&given),
        Err(error) => loader_error::refusal(error, None),
    };
    JsonB(sqlstate::ok(answered).unwrap_or_else(|error| json!({ "error": error })))
}

#[pg_extern(sql = false)]
fn load_from_bucket(_version: Matched, params: Option<Json>) -> JsonB {
    answer(params, submit::start)
}

#[pg_extern(sql = false)]
fn load_from_bucket_status(_version: Matched, params: Option<Json>) -> JsonB {
    answer(params, status::status)
}

#[pg_extern(sql = false)]
fn forget_file(_version: Matched, bucket: &str, file: &str) -> bool {
    backend::require_writable(c"bulk.forget_file");
    sqlstate::ok(forget::file(bucket, file))
}

#[pg_extern(sql = false)]
fn storage_healthcheck(_version: Matched) -> JsonB {
    JsonB(sqlstate::ok(storage::healthcheck()).unwrap_or_else(|error| json!({ "error": error })))
}

#[pg_extern(sql = false)]
fn restore_indexes(_version: Matched, table_name: Option<pg_sys::Oid>) -> SetOfIterator<'static, String> {
    backend::require_writable(c"bulk.restore_indexes");
    SetOfIterator::new(sqlstate::ok(restore(table_name)))
}

fn restore(table: Option<pg_sys::Oid>) -> Result<Vec<String>, Error> {
    scheduler::start_waiting()?;
    let mut restored = Vec::new();
    for name in disabled_index::restorable(table)? {
        // One that cannot be put back does not keep off the others.
        match subtransaction::run(|| disabled_index::restore(&name, None)) {
            Ok(Restored::Done(shown)) => restored.push(shown),
            Ok(Restored::NotNeeded) => {}
            Ok(Restored::Held) => notice!("index {name} is put back by the load that does without it"),
            Err(failure) => {
                let message = failure.whole_message();
                disabled_index::record_failure(&name, &message)?;
                warning!("index {name} cannot be put back: {message}");
            }
        }
    }
    Ok(restored)
}
