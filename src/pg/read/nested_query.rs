//! A query of our own inside the one that calls us, as PostgreSQL's SQL functions run theirs (executor/functions.c): under the
//! caller's snapshot and rights, in its memory and resource owner, so that it lives and ends with the caller's cursor.

use crate::error::Error;
use crate::pg::sys::progress_copy::{Direction, Progress};
use crate::pg::sys::unguarded::unguarded;
use crate::pg::sys::{error_context, memory_context, switch_user};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{IntoDatum, pg_sys};
use std::ffi::{CStr, CString, c_int};
use std::ptr;

// It is called inside a guard, which must not be unwound through.
unguarded! {
    fn ExecFilterJunk(filter: *mut pg_sys::JunkFilter, slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub enum Statement<'a> {
    /// One of our own, all its names qualified, with its parameter if it has one.
    Ours(&'a str, Option<TimestampWithTimeZone>),
    /// The caller's: refused if it is not one statement that only reads; what it calls can write nothing either.
    Callers(&'a str),
}

/// The running query. It lies in the calling query's memory, where the callback at that query's end finds it.
#[repr(C)]
struct State {
    query: *mut pg_sys::QueryDesc,
    /// All else that the query needs: a calling query may start it a million times.
    memory: pg_sys::MemoryContext,
    context: *mut pg_sys::ExprContext,
    progress: Progress,
    read_only: bool,
    /// Of the block of rows that is fetched: entered once for all of them, since for each it would cost as much as a small row does.
    block: Option<Block>,
}

/// The query's snapshot is active, and of a caller's query its rights are in force.
struct Block(Option<Rights>);

/// A query inside another.
#[derive(Debug)]
pub struct Nested {
    /// Null once ended.
    state: *mut State,
}

impl Nested {
    /// Starts a query. `table` is what its progress is shown of.
    ///
    /// # Errors
    /// `Internal` where a set cannot be returned, `NotOneStatement`, `NotReadOnly`; an ERROR of the query's plan or rights is raised.
    pub fn open(statement: Statement, table: pg_sys::Oid, fcinfo: pg_sys::FunctionCallInfo) -> Result<Nested, Error> {
        // SAFETY: a set-returning function is called with a ReturnSetInfo.
        let info = unsafe { (*fcinfo).resultinfo }.cast::<pg_sys::ReturnSetInfo>();
        if info.is_null() {
            return Err(Error::Internal("called where a set cannot be returned".to_owned()));
        }
        // SAFETY: the caller's expression state, which PostgreSQL keeps while the function runs.
        let context = unsafe { (*info).econtext };
        // SAFETY: an expression context of the calling query.
        let query_memory = unsafe { (*context).ecxt_per_query_memory };
        let memory = memory_context::child(query_memory, c"bulk dump");
        let read_only = matches!(statement, Statement::Callers(_));
        let query = memory_context::within(memory, || start_within_rights(statement, pg_sys::EXEC_FLAG_SKIP_TRIGGERS))?;
        let progress = Progress::start(Direction::Dump, table);
        let state = memory_context::within(query_memory, || remember(State { query, memory, context, progress, read_only, block: None }));
        Ok(Nested { state })
    }

    /// The columns of the query; null once it ended. It lives as long as the query.
    pub fn columns(&self) -> pg_sys::TupleDesc {
        // SAFETY: null, or what lives as long as the calling query, which is running.
        let Some(state) = (unsafe { self.state.as_ref() }) else { return ptr::null_mut() };
        // SAFETY: a running query.
        unsafe { (*state.query).tupDesc }
    }

    /// Memory that lives as long as the query.
    pub fn memory(&self) -> Option<pg_sys::MemoryContext> {
        // SAFETY: as in `columns`.
        unsafe { self.state.as_ref() }.map(|state| state.memory)
    }

    /// Before a block of rows is fetched, and what is done with them: output functions, casts.
    pub fn begin_block(&mut self) {
        // SAFETY: as in `columns`.
        if let Some(state) = unsafe { self.state.as_mut() } {
            // SAFETY: a running query.
            let snapshot = unsafe { (*state.query).snapshot };
            // SAFETY: registered by the query for its whole life.
            unsafe { pg_sys::PushActiveSnapshot(snapshot) };
            state.block = Some(Block(state.read_only.then(Rights::enter)));
        }
    }

    /// After it. After an ERROR the (sub)transaction's end does it.
    ///
    /// # Errors
    /// `WriteEnabled` where the block left the transaction writable.
    pub fn end_block(&mut self) -> Result<(), Error> {
        // SAFETY: as in `columns`.
        let Some(Block(rights)) = (unsafe { self.state.as_mut() }).and_then(|state| state.block.take()) else { return Ok(()) };
        let left = rights.map_or(Ok(()), Rights::leave);
        // SAFETY: pushed by `begin_block`.
        unsafe { pg_sys::PopActiveSnapshot() };
        left
    }

    /// The next row of a block, all its columns read; valid until the one after it. None at the end: nothing more may be asked then, but `end`.
    ///
    /// # Errors
    /// `WriteEnabled`, as `end_block`; an ERROR of the query is raised.
    pub fn next(&mut self) -> Result<Option<*mut pg_sys::TupleTableSlot>, Error> {
        // SAFETY: as in `columns`.
        let Some(state) = (unsafe { self.state.as_ref() }) else { return Ok(None) };
        let slot = next_slot(state)?;
        if slot.is_null() {
            return Ok(None);
        }
        // SAFETY: a slot with a row.
        let row = unsafe { &*slot };
        // SAFETY: every slot has a descriptor.
        let columns = unsafe { (*row.tts_tupleDescriptor).natts };
        if i32::from(row.tts_nvalid) < columns {
            // SAFETY: a row of that many columns.
            unsafe { pg_sys::slot_getsomeattrs_int(slot, columns) };
        }
        Ok(Some(slot))
    }

    /// Counts what was read, for `pg_stat_progress_copy`.
    pub fn show(&mut self, rows: u64, bytes: u64) {
        // SAFETY: as in `columns`.
        if let Some(state) = unsafe { self.state.as_mut() } {
            state.progress.add(rows, bytes);
        }
    }

    /// Ends the query before its caller's does.
    pub fn end(&mut self) {
        if self.state.is_null() {
            return;
        }
        let state = std::mem::replace(&mut self.state, ptr::null_mut());
        forget_callback(state);
        end(state);
    }
}

/// Whether a query can begin: it is planned, and rights on what it reads are checked, but nothing of it is run. `look` sees its columns.
///
/// # Errors
/// Those of `look`; an ERROR of the query's plan or rights is raised.
pub fn check(statement: Statement, look: impl FnOnce(pg_sys::TupleDesc) -> Result<(), Error>) -> Result<(), Error> {
    memory_context::temporary(c"bulk check", || {
        let query = start_within_rights(statement, pg_sys::EXEC_FLAG_EXPLAIN_ONLY)?;
        // SAFETY: a query that has begun.
        let looked = look(unsafe { (*query).tupDesc });
        // SAFETY: a query that this object started; nothing reads its rows any more.
        unsafe { pg_sys::ExecutorEnd(query) };
        // SAFETY: made by this object; the executor has ended.
        unsafe { pg_sys::FreeQueryDesc(query) };
        looked
    })
}

/// Plans and starts a query, in the current memory context; a caller's so that it can write nothing.
fn start_within_rights(statement: Statement, flags: u32) -> Result<*mut pg_sys::QueryDesc, Error> {
    let read_only = matches!(statement, Statement::Callers(_));
    let place = read_only.then_some("query of bulk.dump_sql");
    // Also what planning runs: functions that promise to be stable.
    error_context::with_context(place, || {
        let rights = read_only.then(Rights::enter);
        let started = start(statement, flags);
        rights.map_or(Ok(()), Rights::leave)?;
        started
    })
}

fn start(statement: Statement, flags: u32) -> Result<*mut pg_sys::QueryDesc, Error> {
    let (text, since) = match statement {
        Statement::Ours(text, since) => (text, since),
        Statement::Callers(text) => (text, None),
    };
    let text = CString::new(text).map_err(|error| Error::Internal(error.to_string()))?;
    // The text is kept by the query.
    // SAFETY: copies a NUL-terminated string.
    let text: *const std::ffi::c_char = unsafe { pg_sys::pstrdup(text.as_ptr()) };
    // SAFETY: a NUL-terminated text, which lives as long as the statement.
    let parsed = unsafe { pg_sys::pg_parse_query(text) };
    let read_only = matches!(statement, Statement::Callers(_));
    if read_only {
        require_one_select(parsed)?;
    }
    let kinds = [pg_sys::TIMESTAMPTZOID];
    let count = c_int::from(since.is_some());
    let raw = first(parsed).cast::<pg_sys::RawStmt>();
    // SAFETY: one type a parameter.
    let analyzed = unsafe { pg_sys::pg_analyze_and_rewrite_fixedparams(raw, text, kinds.as_ptr(), count, ptr::null_mut()) };
    let analyzed = first(analyzed).cast::<pg_sys::Query>();
    if read_only {
        require_no_writes(raw, analyzed)?;
    }
    let parameters = parameters(since);
    // SAFETY: the query of above. No options: no parallel plan.
    let plan = unsafe { pg_sys::pg_plan_query(analyzed, text, 0, parameters) };
    // SAFETY: the calling statement's snapshot is active while it runs.
    let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
    // SAFETY: reads a constant of the server.
    let nowhere = unsafe { pg_sys::None_Receiver };
    // SAFETY: registers the snapshot with the calling query's resource owner.
    let query = unsafe { pg_sys::CreateQueryDesc(plan, text, snapshot, ptr::null_mut(), nowhere, parameters, ptr::null_mut(), 0) };
    // SAFETY: checks the caller's rights and opens the relations; there are no triggers to fire.
    unsafe { pg_sys::ExecutorStart(query, flags as c_int) };
    Ok(query)
}

/// Whether a caller's text is one statement, and that a SELECT (or VALUES, TABLE, WITH).
fn require_one_select(parsed: *mut pg_sys::List) -> Result<(), Error> {
    // SAFETY: null for none, else a list.
    let count = unsafe { parsed.as_ref() }.map_or(0, |list| list.length);
    if count != 1 {
        return Err(Error::NotOneStatement(count.unsigned_abs()));
    }
    let raw = first(parsed).cast::<pg_sys::RawStmt>();
    // SAFETY: a parsed statement.
    let statement = unsafe { (*raw).stmt };
    // SAFETY: every node begins with its tag.
    if unsafe { (*statement).type_ } != pg_sys::NodeTag::T_SelectStmt {
        return Err(not_reading(raw));
    }
    Ok(())
}

/// Whether a caller's SELECT stores nothing by itself. The plan's tables and what functions do are checked as they run.
fn require_no_writes(raw: *mut pg_sys::RawStmt, query: *mut pg_sys::Query) -> Result<(), Error> {
    // SAFETY: an analyzed query.
    let query = unsafe { &*query };
    let reads = query.commandType == pg_sys::CmdType::CMD_SELECT && query.utilityStmt.is_null();
    if reads && query.rowMarks.is_null() && !query.hasModifyingCTE { Ok(()) } else { Err(not_reading(raw)) }
}

fn not_reading(raw: *mut pg_sys::RawStmt) -> Error {
    // SAFETY: a parsed statement.
    let statement = unsafe { (*raw).stmt };
    // SAFETY: a node that the parser made.
    let tag = unsafe { pg_sys::CreateCommandTag(statement) };
    // SAFETY: a tag of above.
    let name = unsafe { pg_sys::GetCommandTagName(tag) };
    // SAFETY: a NUL-terminated constant of the server.
    let name = unsafe { CStr::from_ptr(name) };
    Error::NotReadOnly(name.to_string_lossy().into_owned())
}

/// What a caller's query runs under: whatever it calls finds the transaction read-only, cannot become another role (a session may be one of a
/// pool, whose user may become many), and leaves no setting behind. After an ERROR the (sub)transaction's end takes all of it back.
struct Rights {
    was_read_only: bool,
    user: pg_sys::Oid,
    context: c_int,
    /// Of settings.
    level: c_int,
}

impl Rights {
    fn enter() -> Rights {
        // SAFETY: reads a backend variable.
        let was_read_only = unsafe { pg_sys::XactReadOnly };
        // SAFETY: writes a backend variable, as below.
        unsafe { pg_sys::XactReadOnly = true };
        // SAFETY: opens a level of settings.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        let (user, context) = switch_user::enter(switch_user::current(), pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int);
        Rights { was_read_only, user, context, level }
    }

    /// An error when the transaction is not read-only any more.
    fn leave(self) -> Result<(), Error> {
        let kept = require_still_read_only();
        switch_user::leave(self.user, self.context);
        // SAFETY: the level of `enter`; what was set in it is taken back.
        unsafe { pg_sys::AtEOXact_GUC(false, self.level) };
        // SAFETY: writes a backend variable.
        unsafe { pg_sys::XactReadOnly = self.was_read_only };
        kept
    }
}

/// An error when a query has undone it: PostgreSQL 15 lets RESET do so.
fn require_still_read_only() -> Result<(), Error> {
    // SAFETY: reads a backend variable.
    if unsafe { pg_sys::XactReadOnly } { Ok(()) } else { Err(Error::WriteEnabled) }
}

/// Has the query ended when the calling one is, in whose memory this is called.
fn remember(state: State) -> *mut State {
    let context = state.context;
    // SAFETY: allocates.
    let place = unsafe { pg_sys::palloc(size_of::<State>()) }.cast::<State>();
    // SAFETY: fresh memory of this size.
    unsafe { place.write(state) };
    // SAFETY: the state lives as long as the context, or until it is unregistered.
    unsafe { pg_sys::RegisterExprContextCallback(context, Some(at_query_end), pg_sys::Datum::from(place)) };
    place
}

/// The first element of a list of nodes.
fn first(list: *mut pg_sys::List) -> *mut std::ffi::c_void {
    // SAFETY: a list of at least one pointer.
    let elements = unsafe { (*list).elements };
    // SAFETY: its first element.
    let element = unsafe { *elements };
    // SAFETY: a list of pointers.
    unsafe { element.ptr_value }
}

fn parameters(since: Option<TimestampWithTimeZone>) -> pg_sys::ParamListInfo {
    let Some(value) = since.and_then(IntoDatum::into_datum) else { return ptr::null_mut() };
    // SAFETY: makes a list with room for one.
    let list = unsafe { pg_sys::makeParamList(1) };
    // SAFETY: a list made above with room for one parameter.
    let first = unsafe { (*list).params.as_mut_ptr() };
    let parameter =
        pg_sys::ParamExternData { value, isnull: false, pflags: pg_sys::PARAM_FLAG_CONST as u16, ptype: pg_sys::TIMESTAMPTZOID };
    // SAFETY: the place of the list's only parameter.
    unsafe { first.write(parameter) };
    list
}

/// The next row of the query; null at the end.
fn next_slot(state: &State) -> Result<*mut pg_sys::TupleTableSlot, Error> {
    // SAFETY: a running query.
    let query = unsafe { &*state.query };
    memory_context::reset_per_tuple(query.estate);
    // SAFETY: the executor's state of a running query.
    let estate = unsafe { &*query.estate };
    let slot = memory_context::within(estate.es_query_cxt, || {
        // SAFETY: the plan of a running query.
        let node = unsafe { &*query.planstate };
        let Some(execute) = node.ExecProcNode else { return ptr::null_mut() };
        let run = || {
            // SAFETY: what the executor calls for this node.
            let slot = unsafe { execute(query.planstate) };
            if is_empty(slot) || estate.es_junkFilter.is_null() {
                return slot;
            }
            // SAFETY: takes away the columns that only ORDER BY needs.
            unsafe { ExecFilterJunk(estate.es_junkFilter, slot) }
        };
        // SAFETY: turns an ERROR of the call into an unwinding; the closure holds nothing to drop.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(run) }
    });
    if state.read_only {
        require_still_read_only()?;
    }
    Ok(if is_empty(slot) { ptr::null_mut() } else { slot })
}

fn is_empty(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: null, or a slot of the plan.
    unsafe { slot.as_ref() }.is_none_or(|slot| slot.tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0)
}

/// Ends the query, whose state is gone then.
fn end(state: *mut State) {
    // SAFETY: made by `open`, ended here only, as all below.
    let State { query, memory, progress, .. } = unsafe { state.read() };
    progress.end();
    // SAFETY: a query that this object started and ran.
    unsafe { pg_sys::ExecutorFinish(query) };
    // SAFETY: a query that this object started; nothing reads its rows any more.
    unsafe { pg_sys::ExecutorEnd(query) };
    // SAFETY: made by this object; the executor has ended.
    unsafe { pg_sys::FreeQueryDesc(query) };
    // SAFETY: made by this object; what the executor kept in it has ended.
    unsafe { pg_sys::MemoryContextDelete(memory) };
    // SAFETY: allocated when the query was opened; this callback is the last that has it.
    unsafe { pg_sys::pfree(state.cast()) };
}

fn forget_callback(state: *mut State) {
    // SAFETY: lives as long as the calling query.
    let context = unsafe { (*state).context };
    // SAFETY: registered with these by `remember`.
    unsafe { pg_sys::UnregisterExprContextCallback(context, Some(at_query_end), pg_sys::Datum::from(state)) };
}

/// The calling query ends before our rows do: LIMIT, a closed cursor. After an error the transaction's end cleans up instead.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_query_end(arg: pg_sys::Datum) {
    end(arg.cast_mut_ptr());
}
