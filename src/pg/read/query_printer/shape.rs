//! How the values of a row are put together, in each format of `bulk.dump_sql`.

use crate::error::Error;
use crate::pg::catalog::resource_table;
use crate::pg::read::query_printer::column::{Column, Pen, type_name};
use crate::pg::sys::padded::Padded;
use crate::pipeline::dump::text_format::Delimited;
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use pgrx::{PgTupleDesc, pg_sys};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};

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

/// How rows are put together.
pub enum Shape {
    Delimited { delimited: Delimited, header: bool },
    Json(Records),
    Sql { insert: Vec<u8> },
    ElasticBulk { index: Option<usize>, constant_index: Option<String>, id: Option<usize>, source: Records },
}

/// Rows of some columns as JSON objects.
pub struct Records {
    descriptor: pg_sys::TupleDesc,
    /// Which columns.
    columns: Vec<usize>,
    /// `row_to_json(record)`.
    function: Padded<pg_sys::FmgrInfo>,
}

impl Shape {
    /// The shape of a result's rows in a format.
    ///
    /// # Errors
    /// Those of the format's needs: a column that it must have is missing, or one is there twice.
    pub fn of(format: Format, columns: &[Column], descriptor: &PgTupleDesc) -> Result<Shape, Error> {
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
                    Some(name) => {
                        Some(named(&name).ok_or(Error::InvalidOption { name: "id", expected: "the name of a column of the query" })?)
                    }
                    None => named("_id"),
                };
                let (index_column, id_column) = (named("_index"), named("_id"));
                let source = (0..columns.len()).filter(|&column| Some(column) != index_column && Some(column) != id_column).collect();
                Shape::ElasticBulk { index: index_column, constant_index: index, id, source: Records::of(descriptor, columns, source)? }
            }
        })
    }

    /// The line of the columns' names, if there is one.
    ///
    /// # Errors
    /// `Memory`, `RowTooLarge`.
    pub fn header(&mut self, columns: &[Column], form: OutputEncoding, piece: &mut OutputBlock) -> Result<(), Error> {
        if let Shape::Delimited { delimited, header: header @ true } = self {
            *header = false;
            piece.begin(form);
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    delimited.separate(&mut piece.bytes);
                }
                delimited.value(column.name.as_bytes(), columns.len() == 1, &mut piece.bytes);
            }
            close(piece, form)?;
        }
        Ok(())
    }

    /// A row of the columns, printed with a pen.
    ///
    /// # Errors
    /// As `header`, and those of a column that the format needs.
    pub fn row(
        &mut self,
        columns: &mut [Column],
        pen: &mut Pen,
        (values, nulls): (&[pg_sys::Datum], &[bool]),
        form: OutputEncoding,
        piece: &mut OutputBlock,
    ) -> Result<(), Error> {
        piece.begin(form);
        let out = &mut piece.bytes;
        match self {
            Shape::Delimited { delimited, .. } => {
                // Nulls and separators; values make room for themselves.
                out.try_reserve((1 + delimited.null_len()) * columns.len()).map_err(|_| Error::Memory)?;
                let alone = columns.len() == 1;
                for (index, column) in columns.iter_mut().enumerate() {
                    if index > 0 {
                        delimited.separate(out);
                    }
                    if nulls[index] {
                        delimited.null(out);
                        continue;
                    }
                    let text = pen.print(column, values[index])?;
                    out.try_reserve(2 * text.len() + 3).map_err(|_| Error::Memory)?;
                    delimited.value(text, alone, out);
                }
            }
            Shape::Json(records) => records.print(values, nulls, out)?,
            Shape::Sql { insert } => {
                out.try_reserve(insert.len() + 8 * columns.len() + 16).map_err(|_| Error::Memory)?;
                out.extend_from_slice(insert);
                for (index, column) in columns.iter_mut().enumerate() {
                    if index > 0 {
                        out.extend_from_slice(b", ");
                    }
                    if nulls[index] {
                        out.extend_from_slice(b"NULL");
                        continue;
                    }
                    pen.constant(column, values[index], out)?;
                }
                out.extend_from_slice(if columns.is_empty() { b";" } else { b");" });
            }
            Shape::ElasticBulk { index, constant_index, id, source } => {
                let mut action = serde_json::Map::new();
                for (key, column, constant) in [("_index", *index, constant_index.as_ref()), ("_id", *id, None)] {
                    let text = match column.filter(|&column| !nulls[column]) {
                        Some(column) => Some(pen.name(&mut columns[column], values[column])?),
                        None => constant.cloned(),
                    };
                    if let Some(text) = text {
                        action.insert(key.to_owned(), text.into());
                    }
                }
                out.extend_from_slice(serde_json::json!({ "index": action }).to_string().as_bytes());
                close(piece, form)?;
                piece.begin(form);
                source.print(values, nulls, &mut piece.bytes)?;
            }
        }
        close(piece, form)
    }
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

fn check_names(columns: &[Column]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match columns.iter().find(|column| !seen.insert(column.name.as_str())) {
        Some(column) => Err(Error::DuplicateColumn(column.name.clone())),
        None => Ok(()),
    }
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
    let Some(parts) = resource_table::parts_of(name) else { return Err(wrong) };
    Ok(parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join("."))
}

fn close(piece: &mut OutputBlock, form: OutputEncoding) -> Result<(), Error> {
    if piece.end(form) { Ok(()) } else { Err(Error::RowTooLarge) }
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
        let mut function = Padded::<pg_sys::FmgrInfo>::default();
        // SAFETY: a function of PostgreSQL's; what it keeps lives in the current memory.
        unsafe { pg_sys::fmgr_info(pg_sys::Oid::from(pg_sys::F_ROW_TO_JSON_RECORD), function.as_mut_ptr()) };
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
        let json = unsafe { pg_sys::FunctionCall1Coll(self.function.as_mut_ptr(), pg_sys::InvalidOid, record) };
        let json = json.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a text in line.
        let size = unsafe { pgrx::varsize_any_exhdr(json) };
        // SAFETY: a text that the function just made, in line.
        let data = unsafe { pgrx::vardata_any(json) };
        // SAFETY: that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
        out.try_reserve(size + 1).map_err(|_| Error::Memory)?;
        // Text with line ends inside: composite values of types json.
        out.extend(bytes.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        Ok(())
    }
}
