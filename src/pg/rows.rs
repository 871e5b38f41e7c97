//! Stored rows of a table, one after another, by a query of our own inside the one that calls us, as PostgreSQL's SQL functions
//! run theirs (executor/functions.c): under the caller's snapshot and rights, in its memory and resource owner, so that
//! it lives and ends with the caller's cursor.

use super::diagnostics;
use super::memory;
use super::progress::{Direction, Progress};
use super::table::Table;
use crate::error::Error;
use crate::op::rows::{RowBlock, StoredRow};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::ffi::{CStr, CString, c_int};
use std::ptr;

/// Columns of the query.
const COLUMNS: c_int = 6;

/// The running query. It lies in the calling query's memory, where the callback at that query's end finds it.
#[repr(C)]
struct State {
    query: *mut pg_sys::QueryDesc,
    /// All else that the query needs: a calling query may start it a million times.
    memory: pg_sys::MemoryContext,
    context: *mut pg_sys::ExprContext,
    progress: Progress,
}

/// A table's current resources.
#[derive(Debug)]
pub struct Rows {
    /// Null once ended.
    state: *mut State,
    table: String,
}

impl Rows {
    /// Starts the query. `since` keeps what was created after it.
    pub fn open(table: &Table, since: Option<TimestampWithTimeZone>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, Error> {
        if since.is_some() && !table.has_cts {
            return Err(Error::NoCreationTime(table.plain_name.clone()));
        }
        let query = CString::new(query(table, since.is_some())).map_err(|error| Error::Internal(error.to_string()))?;
        // SAFETY: a set-returning function is called with a ReturnSetInfo.
        let info = unsafe { (*fcinfo).resultinfo }.cast::<pg_sys::ReturnSetInfo>();
        if info.is_null() {
            return Err(Error::Internal("called where a set cannot be returned".to_owned()));
        }
        // SAFETY: as above.
        let context = unsafe { (*info).econtext };
        // SAFETY: an expression context of the calling query.
        let query_memory = unsafe { (*context).ecxt_per_query_memory };
        let memory = memory::child(query_memory, c"bulk dump");
        let query = memory::within(memory, || diagnostics::keep(None, || start(&query, since)));
        let progress = Progress::start(Direction::Dump, table.oid);
        let state = memory::within(query_memory, || remember(State { query, memory, context, progress }));
        Ok(Rows { state, table: table.plain_name.clone() })
    }

    /// Adds the next row. False at the end.
    fn push_next(&self, query: *mut pg_sys::QueryDesc, block: &mut RowBlock) -> Result<bool, Error> {
        let slot = next_slot(query);
        if slot.is_null() {
            return Ok(false);
        }
        // SAFETY: a slot with a row.
        let row = unsafe { &*slot };
        if i32::from(row.tts_nvalid) < COLUMNS {
            // SAFETY: a row of that many columns.
            unsafe { pg_sys::slot_getsomeattrs_int(slot, COLUMNS) };
        }
        // SAFETY: that many columns were read.
        let values = unsafe { std::slice::from_raw_parts(row.tts_values, COLUMNS as usize) };
        // SAFETY: as above.
        let nulls = unsafe { std::slice::from_raw_parts(row.tts_isnull, COLUMNS as usize) };
        let value = |column: usize| (!nulls[column]).then_some(values[column]);
        let need =
            |column: usize, name: &'static str| value(column).ok_or_else(|| Error::NullColumn { table: self.table.clone(), column: name });
        // SAFETY: a column of type text; the slice is used before the next row is fetched.
        let text = |datum: pg_sys::Datum| unsafe { <&[u8]>::from_datum(datum, false) }.unwrap_or_default();
        let resource = Inline::of(need(5, "resource")?);
        let pushed = block.push(StoredRow {
            id: text(need(0, "id")?),
            version: need(1, "txid")?.value() as i64,
            resource_type: value(2).map(text),
            last_updated: value(3).map(|datum| datum.value() as i64),
            created_at: value(4).map(|datum| datum.value() as i64),
            resource: resource.bytes(),
        });
        resource.free();
        pushed.map(|()| true)
    }
}

impl crate::op::rows::Rows for Rows {
    fn fill(&mut self, block: &mut RowBlock, bytes: usize, rows: usize) -> Result<bool, Error> {
        diagnostics::keep(None, || {
            // SAFETY: null, or what lives as long as the calling query, which is running.
            let Some(state) = (unsafe { self.state.as_mut() }) else { return Ok(false) };
            let mut more = true;
            while more && block.size() < bytes && block.len() < rows {
                more = self.push_next(state.query, block)?;
            }
            state.progress.add(block.len() as u64, block.size() as u64);
            if !more {
                let state = std::mem::replace(&mut self.state, ptr::null_mut());
                forget_callback(state);
                end(state);
            }
            Ok(more)
        })
    }
}

/// The statement, all its names qualified. Parameter: the time, if there is one.
fn query(table: &Table, since: bool) -> String {
    let column = |there: bool, name: &str, kind: &str| {
        if there { format!("{name}::pg_catalog.{kind}") } else { format!("null::pg_catalog.{kind}") }
    };
    format!(
        "select id::pg_catalog.text, txid::pg_catalog.int8, {}, {}, {}, resource from {} \
         where (status is null or status::pg_catalog.text operator(pg_catalog.<>) 'deleted'){}",
        column(table.has_resource_type, "resource_type", "text"),
        column(table.has_ts, "ts", "timestamptz"),
        column(table.has_cts, "cts", "timestamptz"),
        table.name,
        if since { " and cts operator(pg_catalog.>) $1" } else { "" }
    )
}

/// Plans and starts a query, in the current memory context.
fn start(text: &CStr, since: Option<TimestampWithTimeZone>) -> *mut pg_sys::QueryDesc {
    let kinds = [pg_sys::TIMESTAMPTZOID];
    let count = c_int::from(since.is_some());
    // The text is kept by the query.
    // SAFETY: copies a NUL-terminated string.
    let text = unsafe { pg_sys::pstrdup(text.as_ptr()) };
    // SAFETY: as above.
    let parsed = unsafe { pg_sys::pg_parse_query(text) };
    let parsed = first(parsed).cast();
    // SAFETY: one type a parameter.
    let analyzed = unsafe { pg_sys::pg_analyze_and_rewrite_fixedparams(parsed, text, kinds.as_ptr(), count, ptr::null_mut()) };
    let analyzed = first(analyzed).cast();
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
    unsafe { pg_sys::ExecutorStart(query, pg_sys::EXEC_FLAG_SKIP_TRIGGERS as c_int) };
    query
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

/// The only element of a list: one statement was given, and a select is rewritten to one query.
fn first(list: *mut pg_sys::List) -> *mut std::ffi::c_void {
    // SAFETY: a list of one pointer.
    let elements = unsafe { (*list).elements };
    // SAFETY: its one element.
    let element = unsafe { *elements };
    // SAFETY: a list of pointers.
    unsafe { element.ptr_value }
}

fn parameters(since: Option<TimestampWithTimeZone>) -> pg_sys::ParamListInfo {
    let Some(value) = since.and_then(IntoDatum::into_datum) else { return ptr::null_mut() };
    // SAFETY: makes a list with room for one.
    let list = unsafe { pg_sys::makeParamList(1) };
    // SAFETY: as above.
    let first = unsafe { (*list).params.as_mut_ptr() };
    let parameter =
        pg_sys::ParamExternData { value, isnull: false, pflags: pg_sys::PARAM_FLAG_CONST as u16, ptype: pg_sys::TIMESTAMPTZOID };
    // SAFETY: as above.
    unsafe { first.write(parameter) };
    list
}

/// The next row of the query; null at the end.
fn next_slot(query: *mut pg_sys::QueryDesc) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: a running query.
    let query = unsafe { &*query };
    memory::reset_per_tuple(query.estate);
    // SAFETY: the executor's state of a running query.
    let query_memory = unsafe { (*query.estate).es_query_cxt };
    // SAFETY: registered by the query for its whole life.
    unsafe { pg_sys::PushActiveSnapshot(query.snapshot) };
    let slot = memory::within(query_memory, || {
        // SAFETY: the plan of a running query.
        let node = unsafe { &*query.planstate };
        let Some(execute) = node.ExecProcNode else { return ptr::null_mut() };
        // SAFETY: what the executor calls for this node.
        let run = || unsafe { execute(query.planstate) };
        // SAFETY: turns an ERROR of the call into an unwinding; the closure holds nothing to drop.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(run) }
    });
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    if slot.is_null() {
        return slot;
    }
    // SAFETY: a slot of the plan.
    let empty = unsafe { (*slot).tts_flags } & pg_sys::TTS_FLAG_EMPTY as u16 != 0;
    if empty { ptr::null_mut() } else { slot }
}

/// Ends the query, whose state is gone then.
fn end(state: *mut State) {
    // SAFETY: made by `start`, ended here only, as all below.
    let State { query, memory, progress, .. } = unsafe { state.read() };
    progress.end();
    // SAFETY: as above.
    unsafe { pg_sys::ExecutorFinish(query) };
    // SAFETY: as above.
    unsafe { pg_sys::ExecutorEnd(query) };
    // SAFETY: as above.
    unsafe { pg_sys::FreeQueryDesc(query) };
    // SAFETY: as above.
    unsafe { pg_sys::MemoryContextDelete(memory) };
    // SAFETY: as above.
    unsafe { pg_sys::pfree(state.cast()) };
}

fn forget_callback(state: *mut State) {
    // SAFETY: lives as long as the calling query.
    let context = unsafe { (*state).context };
    // SAFETY: registered with these by `start`.
    unsafe { pg_sys::UnregisterExprContextCallback(context, Some(at_query_end), pg_sys::Datum::from(state)) };
}

/// The calling query ends before our rows do: LIMIT, a closed cursor. After an error the transaction's end cleans up instead.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_query_end(arg: pg_sys::Datum) {
    end(arg.cast_mut_ptr());
}

/// A resource's varlena, brought in line but not inflated.
struct Inline {
    value: *mut pg_sys::varlena,
    ours: bool,
}

impl Inline {
    fn of(datum: pg_sys::Datum) -> Inline {
        let value = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a value of a jsonb column that is not null.
        let external = unsafe { pgrx::varatt_is_1b_e(value) };
        match external {
            // SAFETY: a pointer out of the row; the snapshot that read it keeps what it points to.
            true => Inline { value: unsafe { pg_sys::detoast_external_attr(value) }, ours: true },
            false => Inline { value, ours: false },
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a whole varlena.
        let size = unsafe { pgrx::varsize_any(self.value) };
        // SAFETY: the value has this many bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.value.cast::<u8>(), size) }
    }

    fn free(self) {
        if self.ours {
            // SAFETY: allocated by `of`.
            unsafe { pg_sys::pfree(self.value.cast()) };
        }
    }
}
