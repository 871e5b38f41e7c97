//! Accounts at stores: a table that roles may read, and a table of their secrets that only the extension reads.

use crate::error::Error;
use crate::pg::sys::{guc, owner_sql};
use crate::store::account::{Accounts, AzureContainer};
use crate::store::bucket::Bucket;
use pgrx::JsonB;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What is known of an account: its resource type, its id, what everybody may know, what nobody may.
#[derive(Debug)]
pub struct StoredAccount<'a> {
    pub resource_type: &'a str,
    pub id: &'a str,
    pub open: Map<String, Value>,
    pub secret: Map<String, Value>,
}

/// Keeps an account, in the place of one of the same type and id.
///
/// # Errors
/// As `owner_sql::query`.
pub fn set(entry: StoredAccount) -> Result<(), Error> {
    owner_sql::run(
        "insert into bulk_internal.storage_account (resource_type, id, account) values ($1, $2, $3) \
         on conflict (resource_type, id) do update set account = excluded.account",
        &[entry.resource_type.into(), entry.id.into(), JsonB(Value::Object(entry.open)).into()],
    )?;
    owner_sql::run(
        "insert into bulk_internal.storage_secret (resource_type, id, secret) values ($1, $2, $3) \
         on conflict (resource_type, id) do update set secret = excluded.secret",
        &[entry.resource_type.into(), entry.id.into(), JsonB(Value::Object(entry.secret)).into()],
    )
}

/// Forgets an account; false where there is none.
///
/// # Errors
/// As `owner_sql::query`.
pub fn drop(resource_type: &str, id: &str) -> Result<bool, Error> {
    let dropped = owner_sql::query(
        "delete from bulk_internal.storage_account where resource_type = $1 and id = $2 returning true",
        &[resource_type.into(), id.into()],
        |_| Ok(()),
    )?;
    Ok(!dropped.is_empty())
}

/// The accounts with which buckets are reached: of each kind the one of this id, else that which a setting names, else the only one. Those
/// that there are not are left out.
///
/// # Errors
/// As `kept`.
pub fn of<'a>(buckets: impl Iterator<Item = &'a Bucket>, id: Option<&str>) -> Result<Accounts, Error> {
    let mut accounts = Accounts::default();
    for bucket in buckets {
        match bucket {
            Bucket::S3(_) if accounts.aws.is_none() => {
                accounts.aws = kept("AwsAccount", &id.map_or_else(guc::aws_account, str::to_owned))?.map(|(_, account)| account);
            }
            Bucket::Gcs(_) if accounts.gcp.is_none() => {
                accounts.gcp = kept("GcpServiceAccount", &id.map_or_else(guc::gcp_account, str::to_owned))?.map(|(_, account)| account);
            }
            Bucket::Azure(name) => {
                let wanted = id.map_or_else(guc::azure_container, str::to_owned);
                accounts.azure.extend(azure(Some(name), &wanted)?.map(|(_, container)| container));
            }
            Bucket::S3(_) | Bucket::Gcs(_) | Bucket::Directory(_) => {}
        }
    }
    Ok(accounts)
}

/// An account of a kind with its id: the one that is wanted, which must be there, else the only one.
///
/// # Errors
/// `NoAccount` where it is wanted, `NoAccountSecret`, `WhichAccount` where there are several.
pub fn kept<T: DeserializeOwned>(kind: &'static str, wanted: &str) -> Result<Option<(String, T)>, Error> {
    let found = owner_sql::select_latest(
        "select a.id, a.account || s.secret from bulk_internal.storage_account a left join bulk_internal.storage_secret s using (resource_type, id) \
         where a.resource_type = $1 and (a.id = $2 or $2 = '') limit 2",
        &[kind.into(), wanted.into()],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<JsonB>(2)?)),
    )?;
    match only(kind, found)? {
        None if !wanted.is_empty() => Err(Error::NoAccount { kind: kind.to_owned(), id: wanted.to_owned() }),
        found => Ok(found),
    }
}

/// A container of this name with its id and the key of its storage account: of several the one that is wanted. Without a name it must be wanted.
///
/// # Errors
/// As `kept`.
pub fn azure(name: Option<&str>, wanted: &str) -> Result<Option<(String, AzureContainer)>, Error> {
    let mut found = owner_sql::select_latest(
        "select c.id, c.account || s.secret from bulk_internal.storage_account c \
         left join bulk_internal.storage_secret s on s.resource_type = 'AzureAccount' \
            and s.id = coalesce(c.account->'account'->>'id', split_part(c.account->'account'->>'reference', '/', 2)) \
         where c.resource_type = 'AzureContainer' and case when $1 is null then c.id = $2 else c.account->>'container' = $1 end \
         order by c.id = $2 desc limit 2",
        &[name.into(), wanted.into()],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<JsonB>(2)?)),
    )?;
    if found.first().is_some_and(|(id, _)| id == wanted) {
        found.truncate(1);
    }
    only("AzureContainer", found)
}

fn only<T: DeserializeOwned>(kind: &'static str, found: Vec<(String, Option<JsonB>)>) -> Result<Option<(String, T)>, Error> {
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Error::WhichAccount(kind)),
        (Some((id, None)), None) => Err(Error::NoAccountSecret { kind, id }),
        (Some((id, Some(account))), None) => {
            let broken = |_| Error::Internal("an account is not of its shape".to_owned());
            serde_json::from_value(account.0).map(|account| Some((id, account))).map_err(broken)
        }
    }
}
