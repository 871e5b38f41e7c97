//! `bulk.set_account` and `bulk.drop_account`: who the database is at stores.

use crate::error::Error;
use crate::pg::state::storage_account::{self, StoredAccount};
use crate::pg::sys::argument::Json;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use crate::text::json_members::{object, value};
use pgrx::prelude::*;
use serde_json::{Map, Value};

/// A shape: the resource type, its keys, and how many of them must be: the first ones.
type Shape = (&'static str, &'static [&'static str], usize);

const SHAPES: [Shape; 4] = [
    (
        "AwsAccount",
        &["resourceType", "id", "region", "access-key-id", "secret-access-key", "session-token", "host", "path-style", "use-ssl", "meta"],
        5,
    ),
    ("GcpServiceAccount", &["resourceType", "id", "service-account-email", "private-key", "private-key-id", "host", "meta"], 4),
    ("AzureAccount", &["resourceType", "id", "key", "meta"], 3),
    ("AzureContainer", &["resourceType", "id", "storage", "container", "account", "host", "meta"], 5),
];
/// Keys of every shape, which are kept apart or not at all.
const COMMON: [&str; 3] = ["resourceType", "id", "meta"];
const SECRETS: [&str; 4] = ["secret-access-key", "session-token", "private-key", "key"];
/// Keys of a reference to another account.
const REFERENCE: [&str; 4] = ["id", "resourceType", "reference", "display"];
const FLAGS: [&str; 2] = ["path-style", "use-ssl"];

#[pg_extern(sql = false)]
fn set_account(_version: Matched, account: Json) {
    backend::require_writable(c"bulk.set_account");
    sqlstate::ok(Right::Accounts.require().and_then(|()| set(&account.0)));
}

fn set(text: &str) -> Result<(), Error> {
    let account = object(&value(text, "account")?, "account")?;
    let text = |key: &'static str| match account.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        _ => Err(Error::InvalidOption { name: key, expected: "a string that is not empty" }),
    };
    let resource_type = text("resourceType")?;
    let wrong = Error::InvalidOption { name: "resourceType", expected: "AwsAccount, GcpServiceAccount, AzureAccount or AzureContainer" };
    let &(_, keys, required) = SHAPES.iter().find(|(name, ..)| *name == resource_type).ok_or(wrong)?;
    let foreign = account.iter().find(|(key, given)| {
        let is_of = |keys: &[&str]| keys.contains(&key.as_str());
        // A key of another shape may be there as null.
        let is_nothing = given.is_null() && SHAPES.iter().any(|(_, others, _)| is_of(others));
        !is_of(keys) && !is_nothing
    });
    if let Some((key, _)) = foreign {
        return Err(Error::UnknownOption { name: key.chars().take(100).collect(), known: keys });
    }
    let id = text("id")?;
    let (mut open, mut secret) = (Map::new(), Map::new());
    for (place, key) in keys.iter().enumerate().filter(|(_, key)| !COMMON.contains(key)) {
        let given = account.get(*key).filter(|given| !given.is_null());
        match given {
            None if place < required => return Err(Error::InvalidOption { name: key, expected: "a value" }),
            None => {}
            Some(Value::Bool(_)) if FLAGS.contains(key) => {}
            Some(_) if FLAGS.contains(key) => return Err(Error::InvalidOption { name: key, expected: "true or false" }),
            Some(reference) if *key == "account" => check_reference(reference)?,
            Some(_) if *key == "host" => check_host(text(key)?)?,
            Some(_) => drop(text(key)?),
        }
        if let Some(given) = given {
            let to = if SECRETS.contains(key) { &mut secret } else { &mut open };
            to.insert((*key).to_owned(), given.clone());
        }
    }
    storage_account::set(StoredAccount { resource_type, id, open, secret })
}

/// What everybody may see must not hold credentials, as a URL can.
fn check_host(host: &str) -> Result<(), Error> {
    let is_plain = !host.contains(['@', '?', '#', '\\']) && !host.contains(|c: char| c.is_control() || c.is_whitespace());
    let expected = "a host, perhaps with a port, or a URL without credentials, query and fragment";
    if is_plain { Ok(()) } else { Err(Error::InvalidOption { name: "host", expected }) }
}

fn check_reference(reference: &Value) -> Result<(), Error> {
    let wrong = || Error::InvalidOption { name: "account", expected: "a reference" };
    let members = reference.as_object().ok_or_else(wrong)?;
    match members.iter().find(|(key, _)| !REFERENCE.contains(&key.as_str())) {
        Some((key, _)) => Err(Error::UnknownOption { name: key.chars().take(100).collect(), known: &REFERENCE }),
        None if members.values().all(Value::is_string) => Ok(()),
        None => Err(wrong()),
    }
}

#[pg_extern(sql = false)]
fn drop_account(_version: Matched, resource_type: &str, id: &str) {
    backend::require_writable(c"bulk.drop_account");
    let dropped = || {
        Right::Accounts.require()?;
        let missing = || Error::NoAccount { kind: resource_type.chars().take(100).collect(), id: id.chars().take(100).collect() };
        if storage_account::drop(resource_type, id)? { Ok(()) } else { Err(missing()) }
    };
    sqlstate::ok(dropped());
}
