//! Which tables are staging tables, of which type each is, and how it is to be merged.

use crate::error::Error;
use crate::pg::sys::owner_sql;
use crate::pipeline::load::existing_rows::{OnConflict, Policy};
use pgrx::pg_sys;

/// Records a staging table, in the place of what is recorded of its oid. Rows of tables that are gone go with it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn set(table: pg_sys::Oid, resource_type: &str, policy: Policy) -> Result<(), Error> {
    owner_sql::run("delete from bulk_internal.staging_table s where not exists (select from pg_class c where c.oid = s.relation)", &[])?;
    owner_sql::run(
        "insert into bulk_internal.staging_table (relation, resource_type, on_conflict, keep_history, keep_meta) values ($1, $2, $3, $4, $5) \
         on conflict (relation) do update set resource_type = excluded.resource_type, on_conflict = excluded.on_conflict, \
            keep_history = excluded.keep_history, keep_meta = excluded.keep_meta",
        &[table.into(), resource_type.into(), policy.on_conflict.name().into(), policy.keep_history.into(), policy.keep_meta.into()],
    )
}

/// The type and policy of a staging table; None for another table.
///
/// # Errors
/// As `owner_sql::query`.
pub fn find(table: pg_sys::Oid) -> Result<Option<(String, Policy)>, Error> {
    let found = owner_sql::query(
        "select resource_type, on_conflict, keep_history, keep_meta from bulk_internal.staging_table where relation = $1",
        &[table.into()],
        |row| {
            let on_conflict = row.get::<String>(2)?.and_then(|name| OnConflict::named(&name));
            let is = |column| row.get::<bool>(column).map(Option::unwrap_or_default);
            let (keep_history, keep_meta) = (is(3)?, is(4)?);
            let policy = on_conflict.map(|on_conflict| Policy { on_conflict, keep_history, keep_meta });
            Ok(row.get::<String>(1)?.zip(policy))
        },
    )?;
    Ok(found.into_iter().flatten().next())
}

/// Forgets a staging table.
///
/// # Errors
/// As `owner_sql::query`.
pub fn forget(table: pg_sys::Oid) -> Result<(), Error> {
    owner_sql::run("delete from bulk_internal.staging_table where relation = $1", &[table.into()])
}
