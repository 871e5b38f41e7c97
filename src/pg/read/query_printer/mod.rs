//! The rows of a caller's query as text, in each of the formats of `bulk.dump_sql`.

mod column;
mod shape;

use crate::error::Error;
use crate::pg::read::nested_query::{self, Nested, Statement};
use crate::pg::sys::{error_context, guc, memory_context};
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use crate::pipeline::parallel_map::{BlockSize, BlockSource, Fetched};
use column::{Column, Pen, columns, guarded};
use pgrx::{PgTupleDesc, pg_sys};
use rustix::time::{ClockId, Timespec, clock_gettime};
use shape::Shape;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::time::Duration;

pub use shape::Format;

/// The rows of a query, printed.
pub struct Printer {
    query: Nested,
    columns: Vec<Column>,
    shape: Shape,
    form: OutputEncoding,
    /// Emptied after each row.
    scratch: pg_sys::MemoryContext,
    /// Rows that were fetched and not yet printed, in memory of their own.
    held: VecDeque<pg_sys::HeapTuple>,
    held_memory: pg_sys::MemoryContext,
    fetched_all: bool,
    pen: Pen,
}

/// Settings under which what is printed is read back as the same value under any settings.
const UNAMBIGUOUS: [(&CStr, &CStr); 6] = [
    (c"datestyle", c"ISO"),
    (c"intervalstyle", c"postgres"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"search_path", c"pg_catalog"),
];

/// A clock that is looked at for every row: exact to a few milliseconds, at a quarter of the price.
struct Clock(Timespec);

impl Clock {
    fn now() -> Clock {
        Clock(clock_gettime(ClockId::MonotonicCoarse))
    }

    fn elapsed(&self) -> Duration {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
        let nanoseconds = (tv_sec - self.0.tv_sec) * 1_000_000_000 + (tv_nsec - self.0.tv_nsec);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default())
    }
}

/// How long rows wait for others of their block.
const BLOCK_TIME: Duration = Duration::from_millis(200);

/// Whether a query of the caller's can begin, and its rows be printed in a format.
///
/// # Errors
/// Those of the query and of the format.
pub fn check(query: &str, format: Format) -> Result<(), Error> {
    nested_query::check(Statement::Callers(query), |descriptor| {
        // SAFETY: the descriptor of a query.
        let descriptor = unsafe { PgTupleDesc::from_pg_copy(descriptor) };
        Shape::of(format, &columns(&descriptor), &descriptor).map(drop)
    })
}

impl Printer {
    /// Starts a query of the caller's; an error if it does more than read.
    ///
    /// # Errors
    /// As `check`.
    pub fn open(query: &str, format: Format, form: OutputEncoding, fcinfo: pg_sys::FunctionCallInfo) -> Result<Printer, Error> {
        let query = Nested::open(Statement::Callers(query), pg_sys::InvalidOid, fcinfo)?;
        // All that is made here lives as long as the query.
        let memory = query.memory().ok_or_else(|| Error::Internal("a query ended before it began".to_owned()))?;
        memory_context::within(memory, || {
            error_context::with_context(None, || {
                // SAFETY: the descriptor of a running query.
                let descriptor = unsafe { PgTupleDesc::from_pg_copy(query.columns()) };
                let columns = columns(&descriptor);
                let shape = Shape::of(format, &columns, &descriptor)?;
                let (scratch, held_memory) = (memory_context::child(memory, c"bulk row"), memory_context::child(memory, c"bulk rows"));
                Ok(Printer {
                    query,
                    columns,
                    shape,
                    form,
                    scratch,
                    held: VecDeque::new(),
                    held_memory,
                    fetched_all: false,
                    pen: Pen::new(),
                })
            })
        })
    }

    /// Prints the rows of a block as they are fetched.
    fn fill(&mut self, size: BlockSize, piece: &mut OutputBlock) -> Result<(usize, bool), Error> {
        let began = Clock::now();
        let mut rows = 0;
        while piece.bytes.len() < size.bytes && rows < size.rows && (rows == 0 || began.elapsed() < BLOCK_TIME) {
            let Some(slot) = self.query.next()? else { return Ok((rows, false)) };
            // SAFETY: a slot with a row.
            let row = unsafe { &*slot };
            // SAFETY: that many columns were read.
            let values = unsafe { std::slice::from_raw_parts(row.tts_values, self.columns.len()) };
            // SAFETY: a slot that was deformed has as many signs of null as columns.
            let nulls = unsafe { std::slice::from_raw_parts(row.tts_isnull, self.columns.len()) };
            self.print(values, nulls, piece)?;
            rows += 1;
        }
        Ok((rows, true))
    }

    /// The same under settings of its own, which the query must not see: rows are held until some are there.
    fn fill_unambiguously(&mut self, size: BlockSize, piece: &mut OutputBlock) -> Result<(usize, bool), Error> {
        let began = Clock::now();
        let mut bytes = 0;
        while !self.fetched_all
            && (self.held.is_empty() || (bytes < size.bytes && self.held.len() < size.rows && began.elapsed() < BLOCK_TIME))
        {
            let Some(slot) = self.query.next()? else {
                self.fetched_all = true;
                break;
            };
            let row = memory_context::within(self.held_memory, || copy(slot));
            // SAFETY: the copy.
            bytes += unsafe { (*row).t_len } as usize;
            self.held.push_back(row);
        }
        let rows = guc::within(&UNAMBIGUOUS, || self.print_held(size, piece))?;
        if self.held.is_empty() {
            // SAFETY: nothing in it is used any more.
            unsafe { pg_sys::MemoryContextReset(self.held_memory) };
        }
        Ok((rows, !self.fetched_all || !self.held.is_empty()))
    }

    fn print_held(&mut self, size: BlockSize, piece: &mut OutputBlock) -> Result<usize, Error> {
        let mut rows = 0;
        let mut values = vec![pg_sys::Datum::null(); self.columns.len()];
        let mut nulls = vec![true; self.columns.len()];
        // Held values may lie outside of their rows, and be large.
        while piece.bytes.len() < size.bytes {
            let Some(row) = self.held.pop_front() else { break };
            // SAFETY: a row of the query's columns, and room for as many values.
            unsafe { pg_sys::heap_deform_tuple(row, self.query.columns(), values.as_mut_ptr(), nulls.as_mut_ptr()) };
            self.print(&values, &nulls, piece)?;
            rows += 1;
        }
        Ok(rows)
    }

    fn print(&mut self, values: &[pg_sys::Datum], nulls: &[bool], piece: &mut OutputBlock) -> Result<(), Error> {
        let Printer { scratch, shape, columns, pen, form, .. } = self;
        memory_context::within(*scratch, || shape.row(columns, pen, (values, nulls), *form, piece))?;
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(*scratch) };
        Ok(())
    }
}

/// A row of its own, in the current memory.
fn copy(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::HeapTuple {
    // SAFETY: a slot with a row.
    let operations = unsafe { (*slot).tts_ops };
    // SAFETY: every slot has its kind's operations.
    match unsafe { (*operations).copy_heap_tuple } {
        // SAFETY: the slot's own operation.
        Some(copy) => guarded(|| unsafe { copy(slot) }),
        None => std::ptr::null_mut(),
    }
}

impl BlockSource for Printer {
    type Block = OutputBlock;

    fn next(&mut self, size: BlockSize) -> Result<Fetched<OutputBlock>, Error> {
        error_context::with_context(None, || {
            let mut piece = OutputBlock::default();
            piece.reserve(size.bytes + size.bytes / 8)?;
            self.shape.header(&self.columns, self.form, &mut piece)?;
            let is_sql = matches!(self.shape, Shape::Sql { .. });
            self.query.begin_block();
            let filled = if is_sql { self.fill_unambiguously(size, &mut piece) } else { self.fill(size, &mut piece) };
            let left = self.query.end_block();
            let (rows, more) = filled?;
            left?;
            self.query.show(rows as u64, piece.bytes.len() as u64);
            if !more {
                self.query.end();
            }
            Ok(Fetched { bytes: piece.bytes.len(), rows: rows.max(usize::from(!piece.bytes.is_empty())), block: piece, more })
        })
    }
}
