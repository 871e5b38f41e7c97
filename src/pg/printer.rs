//! The rows of a caller's query as text, in each of the formats of `bulk.dump_sql`. Values are written as their types' output functions
//! write them; text and jsonb without the detour.

use super::diagnostics;
use super::memory;
use super::nested::{self, Nested, Statement};
use super::setting;
use crate::error::Error;
use crate::jsonb::text::Style;
use crate::jsonb::{Document, decode, text, varlena};
use crate::op::field::{self, Delimited};
use crate::op::piece::{Form, Piece};
use crate::op::pipe::{Fed, Feed, Size};
use pgrx::{PgTupleDesc, pg_sys};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

// Declared again: pgrx's own bindings log and check more around each call.
unsafe extern "C-unwind" {
    fn OutputFunctionCall(function: *mut pg_sys::FmgrInfo, value: pg_sys::Datum) -> *mut c_char;
    fn pg_detoast_datum_packed(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn pg_detoast_datum(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
}

/// What rows become.
#[derive(Debug)]
pub enum Format {
    Delimited {
        delimited: Delimited,
        header: bool,
    },
    Json,
    /// `INSERT` into this table, a name of one to three parts.
    Sql {
        table: String,
    },
    /// An action and a source for each row. The index where no column `_index` says it; the column that holds the id where none is `_id`.
    ElasticBulk {
        index: Option<String>,
        id: Option<String>,
    },
}

/// How one column is printed.
struct Column {
    name: String,
    print: Print,
    is_json: bool,
    /// For `Format::Sql`: what stands behind the value's constant.
    constant: Constant,
}

enum Print {
    /// The bytes of a text.
    Text,
    /// By our own decoder, or the function where that is not deep enough.
    Jsonb(pg_sys::FmgrInfo),
    Output(pg_sys::FmgrInfo),
}

#[derive(Debug, PartialEq, Eq)]
enum Constant {
    Number,
    Boolean,
    Text,
    /// Cast to the type of this name.
    Cast(Vec<u8>),
}

/// How rows are put together.
enum Shape {
    Delimited { delimited: Delimited, header: bool },
    Json(Records),
    Sql { insert: Vec<u8> },
    ElasticBulk { index: Option<usize>, constant_index: Option<String>, id: Option<usize>, source: Records },
}

/// Rows of some columns as JSON objects.
struct Records {
    descriptor: pg_sys::TupleDesc,
    /// Which columns.
    columns: Vec<usize>,
    /// `row_to_json(record)`.
    function: pg_sys::FmgrInfo,
}

/// The rows of a query, printed.
pub struct Printer {
    query: Nested,
    columns: Vec<Column>,
    shape: Shape,
    form: Form,
    /// Emptied after each row.
    scratch: pg_sys::MemoryContext,
    /// Rows that were fetched and not yet printed, in memory of their own.
    held: VecDeque<pg_sys::HeapTuple>,
    held_memory: pg_sys::MemoryContext,
    fetched_all: bool,
    document: Document,
    printed: Vec<u8>,
}

/// Settings under which what is printed is read back as the same value, whoever reads it.
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
const PATIENCE: Duration = Duration::from_millis(200);
/// Bytes of an index's name and of an id, as Elasticsearch limits them.
const MOST_NAME: usize = 512;

/// Of jsonb that our decoder reads.
const MAX_DEPTH: usize = 1000;
/// Bytes that reused memory may keep from one row to the next.
const KEEP: usize = 1 << 20;

/// Whether a query of the caller's can begin, and its rows be printed in a format.
pub fn check(query: &str, format: Format) -> Result<(), Error> {
    nested::check(Statement::Callers(query), |descriptor| {
        // SAFETY: the descriptor of a query.
        let descriptor = unsafe { PgTupleDesc::from_pg_copy(descriptor) };
        shape(format, &columns(&descriptor), &descriptor).map(drop)
    })
}

impl Printer {
    /// Starts a query of the caller's; an error if it does more than read.
    pub fn open(query: &str, format: Format, form: Form, fcinfo: pg_sys::FunctionCallInfo) -> Result<Printer, Error> {
        let query = Nested::open(Statement::Callers(query), pg_sys::InvalidOid, fcinfo)?;
        // All that is made here lives as long as the query.
        let memory = query.memory().ok_or_else(|| Error::Internal("a query ended before it began".to_owned()))?;
        memory::within(memory, || {
            diagnostics::keep(None, || {
                // SAFETY: the descriptor of a running query.
                let descriptor = unsafe { PgTupleDesc::from_pg_copy(query.columns()) };
                let columns = columns(&descriptor);
                let shape = shape(format, &columns, &descriptor)?;
                let (scratch, held_memory) = (memory::child(memory, c"bulk row"), memory::child(memory, c"bulk rows"));
                Ok(Printer {
                    query,
                    columns,
                    shape,
                    form,
                    scratch,
                    held: VecDeque::new(),
                    held_memory,
                    fetched_all: false,
                    document: Document::new(),
                    printed: Vec::new(),
                })
            })
        })
    }

    /// The line of the columns' names, if there is one.
    fn header(&mut self, piece: &mut Piece) -> Result<(), Error> {
        if let Shape::Delimited { delimited, header: header @ true } = &mut self.shape {
            *header = false;
            piece.begin(self.form);
            for (index, column) in self.columns.iter().enumerate() {
                if index > 0 {
                    delimited.separate(&mut piece.bytes);
                }
                delimited.value(column.name.as_bytes(), self.columns.len() == 1, &mut piece.bytes);
            }
            close(piece, self.form)?;
        }
        Ok(())
    }

    fn row(&mut self, values: &[pg_sys::Datum], nulls: &[bool], piece: &mut Piece) -> Result<(), Error> {
        let mut pen = Pen { document: &mut self.document, printed: &mut self.printed };
        piece.begin(self.form);
        let out = &mut piece.bytes;
        match &mut self.shape {
            Shape::Delimited { delimited, .. } => {
                // Nulls and separators; values make room for themselves.
                out.try_reserve((1 + delimited.null_len()) * self.columns.len()).map_err(|_| Error::Memory)?;
                let alone = self.columns.len() == 1;
                for (index, column) in self.columns.iter_mut().enumerate() {
                    if index > 0 {
                        delimited.separate(out);
                    }
                    if nulls[index] {
                        delimited.null(out);
                        continue;
                    }
                    let text = pen.print(&mut column.print, values[index])?;
                    out.try_reserve(2 * text.len() + 3).map_err(|_| Error::Memory)?;
                    delimited.value(text, alone, out);
                }
            }
            Shape::Json(records) => records.print(values, nulls, out)?,
            Shape::Sql { insert } => {
                out.try_reserve(insert.len() + 8 * self.columns.len() + 16).map_err(|_| Error::Memory)?;
                out.extend_from_slice(insert);
                for (index, column) in self.columns.iter_mut().enumerate() {
                    if index > 0 {
                        out.extend_from_slice(b", ");
                    }
                    if nulls[index] {
                        out.extend_from_slice(b"NULL");
                        continue;
                    }
                    let text = pen.print(&mut column.print, values[index])?;
                    out.try_reserve(2 * text.len() + 64).map_err(|_| Error::Memory)?;
                    column.constant.write(text, out);
                }
                out.extend_from_slice(if self.columns.is_empty() { b";" } else { b");" });
            }
            Shape::ElasticBulk { index, constant_index, id, source } => {
                let mut action = serde_json::Map::new();
                for (key, column, constant) in [("_index", *index, constant_index.as_ref()), ("_id", *id, None)] {
                    let text = match column.filter(|&column| !nulls[column]) {
                        Some(column) => Some(pen.name(&mut self.columns[column], values[column])?),
                        None => constant.cloned(),
                    };
                    if let Some(text) = text {
                        action.insert(key.to_owned(), text.into());
                    }
                }
                out.extend_from_slice(serde_json::json!({ "index": action }).to_string().as_bytes());
                close(piece, self.form)?;
                piece.begin(self.form);
                source.print(values, nulls, &mut piece.bytes)?;
            }
        }
        close(piece, self.form)
    }
}

fn close(piece: &mut Piece, form: Form) -> Result<(), Error> {
    if piece.end(form) { Ok(()) } else { Err(Error::RowTooLarge) }
}

impl Printer {
    /// Prints the rows of a block as they are fetched.
    fn fill(&mut self, size: Size, piece: &mut Piece) -> Result<(usize, bool), Error> {
        let began = Clock::now();
        let mut rows = 0;
        while piece.bytes.len() < size.bytes && rows < size.rows && (rows == 0 || began.elapsed() < PATIENCE) {
            let Some(slot) = self.query.next()? else { return Ok((rows, false)) };
            // SAFETY: a slot with a row.
            let row = unsafe { &*slot };
            // SAFETY: that many columns were read.
            let values = unsafe { std::slice::from_raw_parts(row.tts_values, self.columns.len()) };
            // SAFETY: as above.
            let nulls = unsafe { std::slice::from_raw_parts(row.tts_isnull, self.columns.len()) };
            self.print(values, nulls, piece)?;
            rows += 1;
        }
        Ok((rows, true))
    }

    /// The same under settings of its own, which the query must not see: rows are held until some are there.
    fn fill_unambiguously(&mut self, size: Size, piece: &mut Piece) -> Result<(usize, bool), Error> {
        let began = Clock::now();
        let mut bytes = 0;
        while !self.fetched_all
            && (self.held.is_empty() || (bytes < size.bytes && self.held.len() < size.rows && began.elapsed() < PATIENCE))
        {
            let Some(slot) = self.query.next()? else {
                self.fetched_all = true;
                break;
            };
            let row = memory::within(self.held_memory, || copy(slot));
            // SAFETY: the copy.
            bytes += unsafe { (*row).t_len } as usize;
            self.held.push_back(row);
        }
        let rows = setting::within(&UNAMBIGUOUS, || self.print_held(size, piece))?;
        if self.held.is_empty() {
            // SAFETY: nothing in it is used any more.
            unsafe { pg_sys::MemoryContextReset(self.held_memory) };
        }
        Ok((rows, !self.fetched_all || !self.held.is_empty()))
    }

    fn print_held(&mut self, size: Size, piece: &mut Piece) -> Result<usize, Error> {
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

    fn print(&mut self, values: &[pg_sys::Datum], nulls: &[bool], piece: &mut Piece) -> Result<(), Error> {
        let scratch = self.scratch;
        memory::within(scratch, || self.row(values, nulls, piece))?;
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(scratch) };
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

impl Feed for Printer {
    type Block = Piece;

    fn next(&mut self, size: Size) -> Result<Fed<Piece>, Error> {
        diagnostics::keep(None, || {
            let mut piece = Piece::default();
            piece.reserve(size.bytes + size.bytes / 8)?;
            self.header(&mut piece)?;
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
            Ok(Fed { bytes: piece.bytes.len(), rows: rows.max(usize::from(!piece.bytes.is_empty())), block: piece, more })
        })
    }
}

/// Memory that values are printed in.
struct Pen<'a> {
    document: &'a mut Document,
    printed: &'a mut Vec<u8>,
}

impl Pen<'_> {
    /// A value as a name: a JSON string without its quotes.
    fn name(&mut self, column: &mut Column, value: pg_sys::Datum) -> Result<String, Error> {
        let text = self.print(&mut column.print, value)?;
        if text.len() > 2 * MOST_NAME {
            return Err(Error::RowTooLarge);
        }
        let name = if column.is_json { serde_json::from_slice(text).ok() } else { None };
        let name = name.unwrap_or_else(|| String::from_utf8_lossy(text).into_owned());
        if name.len() > MOST_NAME { Err(Error::RowTooLarge) } else { Ok(name) }
    }

    /// A value's text; valid until the row is done or the next is printed.
    fn print(&mut self, print: &mut Print, value: pg_sys::Datum) -> Result<&[u8], Error> {
        match print {
            Print::Text => {
                let stored = value.cast_mut_ptr::<pg_sys::varlena>();
                // SAFETY: a value of such a type.
                let elsewhere = unsafe { pgrx::varatt_is_1b_e(stored) };
                // SAFETY: as above.
                let text = if elsewhere || unsafe { pgrx::varatt_is_4b_c(stored) } {
                    // SAFETY: as above.
                    guarded(|| unsafe { pg_detoast_datum_packed(stored) })
                } else {
                    stored
                };
                // SAFETY: a whole varlena in line, in the row or in the scratch memory.
                let size = unsafe { pgrx::varsize_any_exhdr(text) };
                // SAFETY: as above.
                let data = unsafe { pgrx::vardata_any(text) };
                // SAFETY: that many bytes.
                Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) })
            }
            Print::Jsonb(function) => {
                // SAFETY: as above.
                let whole = guarded(|| unsafe { pg_detoast_datum(value.cast_mut_ptr()) });
                // SAFETY: a whole varlena with a header of 4 bytes.
                let size = unsafe { pgrx::varsize_any(whole) };
                // SAFETY: that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(whole.cast::<u8>(), size) };
                match decode::decode(self.document, &bytes[varlena::HEADER..], MAX_DEPTH) {
                    Ok(root) => {
                        self.printed.clear();
                        self.printed.shrink_to(KEEP);
                        if !text::reserve(self.document, self.printed) {
                            return Err(Error::Memory);
                        }
                        text::write(self.document, root, Style::Spaced, self.printed);
                        self.document.shrink(KEEP);
                        Ok(self.printed)
                    }
                    Err(_) => Ok(output(function, value)),
                }
            }
            Print::Output(function) => Ok(output(function, value)),
        }
    }
}

/// Turns an ERROR of `call` into an unwinding. It must hold nothing that is to be dropped.
fn guarded<T: Copy>(call: impl FnMut() -> T) -> T {
    // SAFETY: as said above.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(call) }
}

/// What a type's output function writes, in the current memory.
fn output<'a>(function: &mut pg_sys::FmgrInfo, value: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the function of the value's type.
    let text = guarded(|| unsafe { OutputFunctionCall(function, value) });
    // SAFETY: a NUL-terminated string.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

impl Constant {
    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Constant::Number if field::is_number(text) => out.extend_from_slice(text),
            Constant::Boolean => out.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
            Constant::Number | Constant::Text => field::literal(text, out),
            Constant::Cast(kind) => {
                field::literal(text, out);
                out.extend_from_slice(b"::");
                out.extend_from_slice(kind);
            }
        }
    }
}

impl Records {
    fn of(descriptor: &PgTupleDesc, columns: &[Column], chosen: Vec<usize>) -> Result<Records, Error> {
        check_names(columns)?;
        // SAFETY: makes a descriptor in the current memory.
        let narrow = unsafe { pg_sys::CreateTemplateTupleDesc(chosen.len() as c_int) };
        for (place, &column) in (1..).zip(&chosen) {
            // SAFETY: columns of both descriptors, numbered from 1.
            unsafe { pg_sys::TupleDescCopyEntry(narrow, place, descriptor.as_ptr(), column as i16 + 1) };
        }
        // SAFETY: a whole descriptor; makes its type known in this session.
        let narrow = unsafe { pg_sys::BlessTupleDesc(narrow) };
        let mut function = pg_sys::FmgrInfo::default();
        // SAFETY: a function of PostgreSQL's; what it keeps lives in the current memory.
        unsafe { pg_sys::fmgr_info(pg_sys::Oid::from(pg_sys::F_ROW_TO_JSON_RECORD), &mut function) };
        Ok(Records { descriptor: narrow, columns: chosen, function })
    }

    /// Appends a row as PostgreSQL's `row_to_json` writes it.
    fn print(&mut self, values: &[pg_sys::Datum], nulls: &[bool], out: &mut Vec<u8>) -> Result<(), Error> {
        let mut chosen: Vec<pg_sys::Datum> = self.columns.iter().map(|&column| values[column]).collect();
        let mut missing: Vec<bool> = self.columns.iter().map(|&column| nulls[column]).collect();
        // SAFETY: as many values as the descriptor has columns, of their types.
        let tuple = unsafe { pg_sys::heap_form_tuple(self.descriptor, chosen.as_mut_ptr(), missing.as_mut_ptr()) };
        // SAFETY: the tuple just made, whose descriptor is blessed.
        let record = unsafe { pg_sys::heap_copy_tuple_as_datum(tuple, self.descriptor) };
        // SAFETY: takes one record.
        let json = unsafe { pg_sys::FunctionCall1Coll(&mut self.function, pg_sys::InvalidOid, record) };
        let json = json.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a text in line.
        let size = unsafe { pgrx::varsize_any_exhdr(json) };
        // SAFETY: as above.
        let data = unsafe { pgrx::vardata_any(json) };
        // SAFETY: that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
        out.try_reserve(size + 1).map_err(|_| Error::Memory)?;
        // Text with line ends inside: composite values of types json.
        out.extend(bytes.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        Ok(())
    }
}

fn check_names(columns: &[Column]) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    match columns.iter().find(|column| !seen.insert(column.name.as_str())) {
        Some(column) => Err(Error::DuplicateColumn(column.name.clone())),
        None => Ok(()),
    }
}

fn columns(descriptor: &PgTupleDesc) -> Vec<Column> {
    descriptor.iter().map(column).collect()
}

fn column(attribute: &pg_sys::FormData_pg_attribute) -> Column {
    let kind = attribute.atttypid;
    let (mut output, mut variable) = (pg_sys::InvalidOid, false);
    // SAFETY: a type that exists; an ERROR if it is a shell.
    unsafe { pg_sys::getTypeOutputInfo(kind, &mut output, &mut variable) };
    let mut function = pg_sys::FmgrInfo::default();
    // SAFETY: a function that exists; what it keeps lives in the current memory.
    unsafe { pg_sys::fmgr_info(output, &mut function) };
    let print = match output.to_u32() {
        pg_sys::F_TEXTOUT | pg_sys::F_VARCHAROUT | pg_sys::F_BPCHAROUT => Print::Text,
        pg_sys::F_JSONB_OUT => Print::Jsonb(function),
        _ => Print::Output(function),
    };
    // SAFETY: as above.
    let base = unsafe { pg_sys::getBaseType(kind) };
    let constant = match base {
        _ if base != kind => Constant::Cast(type_name(kind, attribute.atttypmod)),
        // A floating number is none of these: the constant -0 is an integer's.
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::NUMERICOID => Constant::Number,
        pg_sys::BOOLOID => Constant::Boolean,
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::UNKNOWNOID => Constant::Text,
        _ => Constant::Cast(type_name(kind, attribute.atttypmod)),
    };
    Column { name: attribute.name().to_owned(), print, is_json: matches!(base, pg_sys::JSONOID | pg_sys::JSONBOID), constant }
}

/// A type's name with its schema and what limits it: without that `bit` and `character` would mean a length of 1.
fn type_name(kind: pg_sys::Oid, modifier: i32) -> Vec<u8> {
    let flags = (pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN) as pg_sys::bits16;
    // SAFETY: a type that exists.
    let name = unsafe { pg_sys::format_type_extended(kind, modifier, flags) };
    // SAFETY: a NUL-terminated string in the current memory.
    unsafe { CStr::from_ptr(name) }.to_bytes().to_vec()
}

fn shape(format: Format, columns: &[Column], descriptor: &PgTupleDesc) -> Result<Shape, Error> {
    let named = |name: &str| columns.iter().position(|column| column.name == name);
    Ok(match format {
        Format::Delimited { delimited, header } => Shape::Delimited { delimited, header },
        Format::Json => Shape::Json(Records::of(descriptor, columns, (0..columns.len()).collect())?),
        Format::Sql { table } => {
            check_names(columns)?;
            check_insertable(columns, descriptor)?;
            let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
            let table = quoted_name(&table)?;
            let insert = match names.as_slice() {
                [] => format!("INSERT INTO {table} DEFAULT VALUES"),
                names => format!("INSERT INTO {table} ({}) VALUES (", names.join(", ")),
            };
            Shape::Sql { insert: insert.into_bytes() }
        }
        Format::ElasticBulk { index, id } => {
            let id = match id {
                Some(name) => Some(named(&name).ok_or(Error::InvalidOption { name: "id", expected: "the name of a column of the query" })?),
                None => named("_id"),
            };
            let (index_column, id_column) = (named("_index"), named("_id"));
            let source = (0..columns.len()).filter(|&column| Some(column) != index_column && Some(column) != id_column).collect();
            Shape::ElasticBulk { index: index_column, constant_index: index, id, source: Records::of(descriptor, columns, source)? }
        }
    })
}

/// Whether every column's type is one that a table can have.
fn check_insertable(columns: &[Column], descriptor: &PgTupleDesc) -> Result<(), Error> {
    for (column, attribute) in columns.iter().zip(descriptor.iter()) {
        let kind = attribute.atttypid;
        // SAFETY: a type that exists.
        let is_pseudo = unsafe { pg_sys::get_typtype(kind) } == pg_sys::TYPTYPE_PSEUDO as c_char;
        // A bare constant is of no type yet, and becomes the column's.
        if is_pseudo && kind != pg_sys::UNKNOWNOID {
            let kind = String::from_utf8_lossy(&type_name(kind, -1)).into_owned();
            return Err(Error::Pseudotype { column: column.name.clone(), kind });
        }
    }
    Ok(())
}

/// An identifier, in quotes where it needs them.
fn quoted(name: &str) -> String {
    let Ok(name) = CString::new(name) else { return String::new() };
    // SAFETY: a NUL-terminated string.
    let quoted = unsafe { pg_sys::quote_identifier(name.as_ptr()) };
    // SAFETY: a NUL-terminated string in the current memory, or the one given.
    unsafe { CStr::from_ptr(quoted) }.to_string_lossy().into_owned()
}

/// A table's name as SQL spells it, read and written again.
fn quoted_name(name: &str) -> Result<String, Error> {
    let wrong = Error::InvalidOption { name: "table", expected: "the name of a table, with its schema or without" };
    let Some(parts) = super::table::parts_of(name) else { return Err(wrong) };
    Ok(parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join("."))
}
