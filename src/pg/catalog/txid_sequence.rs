//! The sequence that numbers versions, where versions come from elsewhere.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::sys::sql;
use pgrx::pg_sys;

/// How far beyond a version the sequence is moved. Others may draw from it between the look at it and the move: what they can draw
/// in that time must not be drawn again.
const DISTANCE: i64 = 10_000;

/// Reserves `count` consecutive versions: the one before the first. None if they cannot be reserved: without
/// the right to move the sequence, if it is not as this extension creates it, or if a thousandth of it would be used up. Others that move it wait
/// to the transaction's end.
///
/// # Errors
/// Those of the statement: UPDATE on the sequence is needed.
pub fn reserve(sequence: pg_sys::Oid, schema: pg_sys::Oid, count: i64) -> Result<Option<i64>, Error> {
    ddl::lock(schema, ddl::SEQUENCE);
    sql::value::<i64>(
        "select pg_catalog.max(pg_catalog.setval($1, l.last operator(pg_catalog.+) $3 operator(pg_catalog.+) $2)) operator(pg_catalog.-) $2 \
             from pg_catalog.pg_sequence s, lateral (select pg_catalog.nextval($1) as last where s.seqincrement operator(pg_catalog.=) 1 \
                and s.seqtypid operator(pg_catalog.=) 'pg_catalog.int8'::pg_catalog.regtype and s.seqcache operator(pg_catalog.=) 1 \
                and pg_catalog.has_sequence_privilege($1::pg_catalog.oid, 'update') offset 0) l \
             where s.seqrelid operator(pg_catalog.=) $1::pg_catalog.oid \
             and $2 operator(pg_catalog.<) ((s.seqmax operator(pg_catalog.-) l.last) operator(pg_catalog./) 1000)",
        &[sql::regclass(sequence), count.into(), DISTANCE.into()],
    )
}

/// Sees to it that the sequence never gives `version` or what is below.
/// Others that move it wait to the transaction's end.
///
/// # Errors
/// As `reserve`.
pub fn move_past(sequence: pg_sys::Oid, schema: pg_sys::Oid, version: i64) -> Result<(), Error> {
    ddl::lock(schema, ddl::SEQUENCE);
    sql::run(
            "select pg_catalog.setval($1, $2 operator(pg_catalog.+) $3) \
             where coalesce(pg_catalog.pg_sequence_last_value($1), case when pg_catalog.has_sequence_privilege($1::pg_catalog.oid, 'select,usage') \
             then 0 else pg_catalog.nextval($1) end) operator(pg_catalog.<) $2",
            &[sql::regclass(sequence), version.into(), DISTANCE.into()],
        )
    .map(drop)
}
