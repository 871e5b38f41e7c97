//! Foreground loads as jobs, and the table of rejected lines. The tables belong to the extension's owner; callers only read them, each
//! what is theirs.

use crate::error::{Error, Reason, Reject};
use crate::pg::sys::{memory_context, owner_sql, sqlstate, switch_user};
use crate::pipeline::load::counters::LoadCounters;
use crate::pipeline::validate_rows::Finding;
use std::cell::RefCell;

/// Lines that one statement enters.
const AT_ONCE: usize = 500;

thread_local! {
    /// The id of this session's last load. Only the main thread asks.
    static LAST_LOAD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// One job's entry.
#[derive(Debug, Clone)]
pub struct LoadErrors {
    id: String,
    /// Which of the job's sources, from 0.
    input: Option<i32>,
}

impl LoadErrors {
    /// Enters a synchronous load, of the current user. What it was asked for is shown to that user, so it holds no secret.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    pub fn open_load(request: &serde_json::Value) -> Result<LoadErrors, Error> {
        let id = uuid::Uuid::new_v4().to_string();
        owner_sql::run(
            "insert into bulk_internal.job (id, kind, role, session_role, state, request, started) \
             values ($1, 'load', pg_catalog.pg_get_userbyid($2), session_user, 'in-progress', $3, pg_catalog.clock_timestamp())",
            &[id.as_str().into(), switch_user::current().into(), pgrx::JsonB(request.clone()).into()],
        )?;
        Ok(LoadErrors { id, input: None })
    }

    /// The entry of a job that is there.
    pub fn of(id: &str) -> LoadErrors {
        LoadErrors { id: id.to_owned(), input: None }
    }

    /// The same for one of its sources.
    pub fn of_input(id: &str, ordinal: usize) -> LoadErrors {
        LoadErrors { id: id.to_owned(), input: i32::try_from(ordinal).ok() }
    }

    /// The job's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Enters lines that are not stored.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    pub fn reject(&self, rejects: &[Reject]) -> Result<(), Error> {
        self.reject_behind(Some(0), rejects)
    }

    /// The same where the lines were counted behind so many others of the source; None where nobody knows behind how many.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    pub fn reject_behind(&self, before: Option<u64>, rejects: &[Reject]) -> Result<(), Error> {
        self.enter(rejects, |reject| LoadErrorRow {
            source: &reject.place.source,
            line: before.map(|before| (before + reject.place.line) as i64),
            offset: Some(reject.offset as i64),
            resource_type: reject.resource_type.as_deref(),
            id: reject.id.as_deref(),
            reason: &reject.reason,
            path: reject.path(),
            raw: Some(&reject.raw),
        })
    }

    /// Enters what was found in stored resources.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    pub fn find(&self, findings: &[Finding]) -> Result<(), Error> {
        self.enter(findings, |finding| LoadErrorRow {
            source: &finding.table,
            line: None,
            offset: None,
            resource_type: Some(&finding.resource_type),
            id: Some(&finding.id),
            reason: &finding.reason,
            path: finding.reason.path(),
            raw: None,
        })
    }

    fn enter<'a, T>(&self, found: &'a [T], entry: impl Fn(&'a T) -> LoadErrorRow<'a>) -> Result<(), Error> {
        found.chunks(AT_ONCE).try_for_each(|some| {
            let entries: Vec<LoadErrorRow> = some.iter().map(&entry).collect();
            memory_context::temporary(c"bulk rejects", || self.enter_some(&entries))
        })
    }

    fn enter_some(&self, entries: &[LoadErrorRow]) -> Result<(), Error> {
        fn column<'a, T>(entries: &[LoadErrorRow<'a>], of: impl Fn(&LoadErrorRow<'a>) -> T) -> Vec<T> {
            entries.iter().map(of).collect()
        }
        owner_sql::run(
            "insert into bulk_internal.load_error (load_id, role, input, source, line, byte_offset, resource_type, id, sqlstate, message, path, raw) \
             select $1, (select j.role from bulk_internal.job j where j.id = $1), $11, pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), \
             pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10)",
            &[
                self.id.as_str().into(),
                column(entries, |entry| entry.source).into(),
                column(entries, |entry| entry.line).into(),
                column(entries, |entry| entry.offset).into(),
                column(entries, |entry| entry.resource_type).into(),
                column(entries, |entry| entry.id).into(),
                column(entries, |entry| sqlstate::state_of(entry.reason)).into(),
                column(entries, |entry| entry.reason.to_string()).into(),
                column(entries, |entry| entry.path).into(),
                column(entries, |entry| entry.raw).into(),
                self.input.into(),
            ],
        )
    }

    /// Enters that a load is done, and what else there is to say of it.
    ///
    /// # Errors
    /// As `owner_sql::query`.
    pub fn close_load(self, counters: &LoadCounters, message: Option<&str>) -> Result<(), Error> {
        owner_sql::run(
            "update bulk_internal.job set state = 'done', finished = pg_catalog.clock_timestamp(), read = $2, stored = $3, skipped = $4, rejected = $5, message = $6 \
             where id operator(pg_catalog.=) $1",
            &[
                self.id.as_str().into(),
                (counters.read as i64).into(),
                (counters.all_stored() as i64).into(),
                (counters.skipped as i64).into(),
                (counters.rejected as i64).into(),
                message.into(),
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

/// What stands in `bulk_internal.load_error`.
struct LoadErrorRow<'a> {
    source: &'a str,
    line: Option<i64>,
    offset: Option<i64>,
    resource_type: Option<&'a str>,
    id: Option<&'a str>,
    reason: &'a Reason,
    path: Option<&'a str>,
    raw: Option<&'a str>,
}
