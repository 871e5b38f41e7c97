//! What the extension writes down of its work: jobs and the lines that they rejected. The tables belong to the extension's owner; callers
//! only read them, each what is theirs.

use super::{diagnostics, memory, report, table};
use crate::error::{Error, Reject};
use crate::op::ledger::Ledger;
use pgrx::datum::DatumWithOid;
use pgrx::{PgRelation, Spi, pg_sys};
use std::cell::RefCell;
use std::ffi::c_int;

/// Lines that one statement enters.
const AT_ONCE: usize = 500;

thread_local! {
    /// The id of this session's last load. Only the main thread asks.
    static LAST_LOAD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// One job's entry.
#[derive(Debug, Clone)]
pub struct Journal {
    id: String,
}

impl Journal {
    /// Enters a synchronous load, of the current user. What it was asked for is shown to that user, so it holds no secret.
    pub fn open_load(request: &serde_json::Value) -> Result<Journal, Error> {
        let id = uuid::Uuid::new_v4().to_string();
        run(
            "insert into bulk.job (id, kind, role, state, request, started) \
             values ($1, 'load', pg_catalog.pg_get_userbyid($2), 'in-progress', $3, pg_catalog.clock_timestamp())",
            vec![id.as_str().into(), user().into(), pgrx::JsonB(request.clone()).into()],
        )?;
        Ok(Journal { id })
    }

    /// Enters lines that are not stored.
    pub fn reject(&self, rejects: &[Reject]) -> Result<(), Error> {
        rejects.chunks(AT_ONCE).try_for_each(|rejects| memory::temporary(c"bulk rejects", || self.reject_some(rejects)))
    }

    fn reject_some(&self, rejects: &[Reject]) -> Result<(), Error> {
        let texts = |of: fn(&Reject) -> Option<String>| rejects.iter().map(of).collect::<Vec<Option<String>>>();
        run(
            "insert into bulk.load_error (load_id, source, line, byte_offset, resource_type, id, sqlstate, message, path, raw) \
             select $1, pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), \
             pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10)",
            vec![
                self.id.as_str().into(),
                texts(|reject| Some(reject.place.source.clone())).into(),
                rejects.iter().map(|reject| reject.place.line as i64).collect::<Vec<i64>>().into(),
                rejects.iter().map(|reject| reject.offset as i64).collect::<Vec<i64>>().into(),
                texts(|reject| reject.resource_type.clone()).into(),
                texts(|reject| reject.id.clone()).into(),
                texts(|reject| Some(report::state_of(&reject.reason))).into(),
                texts(|reject| Some(reject.reason.to_string())).into(),
                texts(|reject| reject.path().map(str::to_owned)).into(),
                texts(|reject| Some(reject.raw.clone())).into(),
            ],
        )
    }

    /// Enters that a load is done.
    pub fn close_load(self, ledger: &Ledger) -> Result<(), Error> {
        run(
            "update bulk.job set state = 'done', finished = pg_catalog.clock_timestamp(), read = $2, stored = $3, skipped = $4, rejected = $5 \
             where id operator(pg_catalog.=) $1",
            vec![
                self.id.as_str().into(),
                (ledger.read as i64).into(),
                (ledger.all_stored() as i64).into(),
                (ledger.skipped as i64).into(),
                (ledger.rejected as i64).into(),
            ],
        )?;
        LAST_LOAD.with_borrow_mut(|last| *last = Some(self.id));
        Ok(())
    }
}

/// The id of this session's last load that succeeded.
pub fn last_load() -> Option<String> {
    LAST_LOAD.with_borrow(Option::clone)
}

fn user() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetUserId() }
}

/// Runs a statement as the owner of the extension's tables.
fn run(statement: &str, arguments: Vec<DatumWithOid>) -> Result<(), Error> {
    let (mut before, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: where the two values go.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut before, &mut context) };
    let changed = (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as c_int;
    let owner = owner()?;
    // SAFETY: a role that exists; after an ERROR the end of the (sub)transaction sets both back.
    unsafe { pg_sys::SetUserIdAndSecContext(owner, context | changed) };
    let done = diagnostics::keep(None, || Spi::run_with_args(statement, &arguments));
    // SAFETY: what was set before.
    unsafe { pg_sys::SetUserIdAndSecContext(before, context) };
    done.map_err(|error| Error::Internal(error.to_string()))
}

fn owner() -> Result<pg_sys::Oid, Error> {
    // SAFETY: a catalog look-up; the schema of the extension is there while its functions are.
    let schema = unsafe { pg_sys::get_namespace_oid(c"bulk".as_ptr(), false) };
    let job = table::relation("job", schema).ok_or_else(|| Error::Internal("table bulk.job is missing".to_owned()))?;
    // SAFETY: the oid comes from a look-up.
    let relation = unsafe { PgRelation::with_lock(job, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let row = unsafe { *relation.rd_rel };
    Ok(row.relowner)
}
