//! Accounts at stores: kept in a table that people read, their secrets in one that only the extension does.

use super::{owner, setting};
use crate::error::Error;
use crate::store::account::AwsAccount;
use pgrx::JsonB;
use serde_json::{Map, Value};

/// What is known of an account: its resource type, its id, what everybody may know, what nobody may.
#[derive(Debug)]
pub struct Entry<'a> {
    pub resource_type: &'a str,
    pub id: &'a str,
    pub open: Map<String, Value>,
    pub secret: Map<String, Value>,
}

/// Keeps an account, in the place of one of the same type and id.
pub fn set(entry: Entry) -> Result<(), Error> {
    owner::run(
        "insert into bulk.storage_account (resource_type, id, account) values ($1, $2, $3) \
         on conflict (resource_type, id) do update set account = excluded.account",
        &[entry.resource_type.into(), entry.id.into(), JsonB(Value::Object(entry.open)).into()],
    )?;
    owner::run(
        "insert into bulk.storage_secret (resource_type, id, secret) values ($1, $2, $3) \
         on conflict (resource_type, id) do update set secret = excluded.secret",
        &[entry.resource_type.into(), entry.id.into(), JsonB(Value::Object(entry.secret)).into()],
    )
}

/// Forgets an account; false where there is none.
pub fn drop(resource_type: &str, id: &str) -> Result<bool, Error> {
    let dropped = owner::query(
        "delete from bulk.storage_account where resource_type = $1 and id = $2 returning true",
        &[resource_type.into(), id.into()],
        |_| Ok(()),
    )?;
    Ok(!dropped.is_empty())
}

const AWS: &str = "AwsAccount";

/// The id of the account that a setting means where it names one, or there is but one.
pub fn aws_id(wanted: &str) -> Result<Option<String>, Error> {
    let found = owner::look(
        "select id from bulk.storage_account where resource_type = $1 and (id = $2 or $2 = '') limit 1",
        &[AWS.into(), wanted.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// The account for buckets of S3: the one of this id, else that which a setting names, else the only one. None where there is none.
pub fn aws(id: Option<&str>) -> Result<Option<AwsAccount>, Error> {
    let wanted = id.map_or_else(setting::aws_account, str::to_owned);
    let found = owner::look(
        "select a.id, a.account || s.secret from bulk.storage_account a left join bulk.storage_secret s using (resource_type, id) \
         where a.resource_type = $1 and (a.id = $2 or $2 = '') limit 2",
        &[AWS.into(), wanted.as_str().into()],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<JsonB>(2)?)),
    )?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (None, _) if wanted.is_empty() => Ok(None),
        (None, _) => Err(Error::NoAccount { kind: AWS.to_owned(), id: wanted }),
        (Some(_), Some(_)) => Err(Error::WhichAccount(AWS)),
        (Some((id, None)), None) => Err(Error::NoAccountSecret { kind: AWS, id }),
        (Some((_, Some(account))), None) => {
            let broken = |_| Error::Internal("an account is not of its shape".to_owned());
            serde_json::from_value(account.0).map(Some).map_err(broken)
        }
    }
}
