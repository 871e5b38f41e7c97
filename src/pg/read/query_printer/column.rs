//! The columns of a query, and their values as text: as the types' output functions write it; text and jsonb without the detour.

use crate::error::Error;
use crate::jsonb::document::Document;
use crate::jsonb::text::{self, Style};
use crate::jsonb::{decode, varlena};
use crate::pg::sys::padded::Padded;
use crate::pg::sys::unguarded::unguarded;
use crate::pipeline::dump::text_format;
use pgrx::{PgTupleDesc, pg_sys};
use std::ffi::{CStr, c_char};

// pgrx's own bindings log and check more around each call.
unguarded! {
    fn OutputFunctionCall(function: *mut pg_sys::FmgrInfo, value: pg_sys::Datum) -> *mut c_char;
    fn pg_detoast_datum_packed(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn pg_detoast_datum(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
}

/// How one column is printed.
pub struct Column {
    pub name: String,
    print: Print,
    is_json: bool,
    /// For `Format::Sql`: what stands behind the value's constant.
    constant: Constant,
}

enum Print {
    /// The bytes of a text.
    Text,
    /// By our own decoder, or the function where that is not deep enough.
    Jsonb(Padded<pg_sys::FmgrInfo>),
    Output(Padded<pg_sys::FmgrInfo>),
}

/// What a value is in SQL.
enum Constant {
    Number,
    Boolean,
    Text,
    /// Cast to the type of this name.
    Cast(Vec<u8>),
}

/// Bytes of an index's name and of an id, as Elasticsearch limits them.
const MOST_NAME: usize = 512;

/// Of jsonb that our decoder reads.
const MAX_DEPTH: usize = 1000;
/// Bytes that reused memory may keep from one row to the next.
const KEEP: usize = 1 << 20;

/// How each column of a result is printed, by its type.
pub fn columns(descriptor: &PgTupleDesc) -> Vec<Column> {
    descriptor.iter().map(column).collect()
}

fn column(attribute: &pg_sys::FormData_pg_attribute) -> Column {
    let kind = attribute.atttypid;
    let (mut output, mut variable) = (pg_sys::InvalidOid, false);
    // SAFETY: a type that exists; an ERROR if it is a shell.
    unsafe { pg_sys::getTypeOutputInfo(kind, &mut output, &mut variable) };
    let mut function = Padded::<pg_sys::FmgrInfo>::default();
    // SAFETY: a function that exists; what it keeps lives in the current memory.
    unsafe { pg_sys::fmgr_info(output, function.as_mut_ptr()) };
    let print = match output.to_u32() {
        pg_sys::F_TEXTOUT | pg_sys::F_VARCHAROUT | pg_sys::F_BPCHAROUT => Print::Text,
        pg_sys::F_JSONB_OUT => Print::Jsonb(function),
        _ => Print::Output(function),
    };
    // SAFETY: a look-up in the catalog by the oid of a type that a column has.
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
pub fn type_name(kind: pg_sys::Oid, modifier: i32) -> Vec<u8> {
    let flags = (pg_sys::FORMAT_TYPE_FORCE_QUALIFY | pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN) as pg_sys::bits16;
    // SAFETY: a type that exists.
    let name = unsafe { pg_sys::format_type_extended(kind, modifier, flags) };
    // SAFETY: a NUL-terminated string in the current memory.
    unsafe { CStr::from_ptr(name) }.to_bytes().to_vec()
}

/// Memory that values are printed in, used again from row to row.
pub struct Pen {
    document: Document,
    printed: Vec<u8>,
}

impl Pen {
    /// A pen that has printed nothing.
    pub fn new() -> Pen {
        Pen { document: Document::new(), printed: Vec::new() }
    }

    /// A value as a name: a JSON string without its quotes.
    ///
    /// # Errors
    /// `NullColumn`, or a name that Elasticsearch does not take.
    pub fn name(&mut self, column: &mut Column, value: pg_sys::Datum) -> Result<String, Error> {
        let text = self.print(column, value)?;
        if text.len() > 2 * MOST_NAME {
            return Err(Error::RowTooLarge);
        }
        let name = if column.is_json { serde_json::from_slice(text).ok() } else { None };
        let name = name.unwrap_or_else(|| String::from_utf8_lossy(text).into_owned());
        if name.len() > MOST_NAME { Err(Error::RowTooLarge) } else { Ok(name) }
    }

    /// Appends a value as a constant of SQL.
    ///
    /// # Errors
    /// `RowTooLarge` without memory; an ERROR of an output function is raised.
    pub fn constant(&mut self, column: &mut Column, value: pg_sys::Datum, out: &mut Vec<u8>) -> Result<(), Error> {
        let text = self.print(column, value)?;
        out.try_reserve(2 * text.len() + 64).map_err(|_| Error::Memory)?;
        column.constant.write(text, out);
        Ok(())
    }

    /// A value's text; valid until the row is done or the next is printed.
    ///
    /// # Errors
    /// As `constant`.
    pub fn print(&mut self, column: &mut Column, value: pg_sys::Datum) -> Result<&[u8], Error> {
        match &mut column.print {
            Print::Text => {
                let stored = value.cast_mut_ptr::<pg_sys::varlena>();
                // SAFETY: a value of such a type.
                let elsewhere = unsafe { pgrx::varatt_is_1b_e(stored) };
                // SAFETY: a value of variable length, which begins with its header.
                let text = if elsewhere || unsafe { pgrx::varatt_is_4b_c(stored) } {
                    // SAFETY: a value of variable length of a row that is pinned or in memory.
                    guarded(|| unsafe { pg_detoast_datum_packed(stored) })
                } else {
                    stored
                };
                // SAFETY: a whole varlena in line, in the row or in the scratch memory.
                let size = unsafe { pgrx::varsize_any_exhdr(text) };
                // SAFETY: a value with a header of one or four bytes, detoasted above where it was not.
                let data = unsafe { pgrx::vardata_any(text) };
                // SAFETY: that many bytes.
                Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) })
            }
            Print::Jsonb(function) => {
                // SAFETY: a value of variable length of a row that is pinned or in memory.
                let whole = guarded(|| unsafe { pg_detoast_datum(value.cast_mut_ptr()) });
                // SAFETY: a whole varlena with a header of 4 bytes.
                let size = unsafe { pgrx::varsize_any(whole) };
                // SAFETY: that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(whole.cast::<u8>(), size) };
                match decode::decode(&mut self.document, &bytes[varlena::HEADER..], MAX_DEPTH) {
                    Ok(root) => {
                        self.printed.clear();
                        self.printed.shrink_to(KEEP);
                        if !text::reserve(&self.document, &mut self.printed) {
                            return Err(Error::Memory);
                        }
                        text::write(&self.document, root, Style::Spaced, &mut self.printed);
                        self.document.shrink(KEEP);
                        Ok(&self.printed)
                    }
                    Err(_) => Ok(output(function, value)),
                }
            }
            Print::Output(function) => Ok(output(function, value)),
        }
    }
}

impl Constant {
    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Constant::Number if text_format::is_number(text) => out.extend_from_slice(text),
            Constant::Boolean => out.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
            Constant::Number | Constant::Text => text_format::literal(text, out),
            Constant::Cast(kind) => {
                text_format::literal(text, out);
                out.extend_from_slice(b"::");
                out.extend_from_slice(kind);
            }
        }
    }
}

/// What a type's output function writes, in the current memory.
fn output<'a>(function: &mut Padded<pg_sys::FmgrInfo>, value: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the function of the value's type.
    let text = guarded(|| unsafe { OutputFunctionCall(function.as_mut_ptr(), value) });
    // SAFETY: a NUL-terminated string.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// Turns an ERROR of `call` into an unwinding. It must hold nothing that is to be dropped.
pub fn guarded<T: Copy>(call: impl FnMut() -> T) -> T {
    // SAFETY: as said above.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(call) }
}
