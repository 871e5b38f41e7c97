//! `bulk.dump_sql` and `bulk.dump_sql_bytes`: the rows of any query that only reads, in the format asked for.

use crate::api::option::{self, DumpOptions};
use crate::error::Error;
use crate::pg::read::query_printer::Printer;
use crate::pg::sys::argument::Json;
use crate::pg::sys::latch::Backend;
use crate::pg::sys::srf_result::{Chunks, TextRows, Varlena};
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, guc, sqlstate};
use crate::pipeline::dump::gzip::Gzip;
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use crate::pipeline::parallel_map::{BlockSize, BlockSource, ParallelMap};
use pgrx::prelude::*;

/// A row a row: a line without its end. (A line of CSV may hold line ends, in quotes.)
#[pg_extern(sql = false)]
fn dump_sql(
    _version: Matched,
    query: Option<&str>,
    format: Option<&str>,
    options: Option<Json>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Varlena> {
    let mut printer = sqlstate::ok(open(query, format, options, OutputEncoding::Lines, fcinfo));
    SetOfIterator::new(TextRows::new(pieces(move |size| printer.next(size).map(|fed| (fed.block, fed.more)))))
}

/// Chunks of the body as an HTTP layer sends it: lines with their ends, gzipped on demand.
#[pg_extern(sql = false)]
fn dump_sql_bytes(
    _version: Matched,
    query: Option<&str>,
    format: Option<&str>,
    options: Option<Json>,
    gzip: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Varlena> {
    let mut printer = sqlstate::ok(open(query, format, options, OutputEncoding::Body, fcinfo));
    let pieces: Box<dyn Iterator<Item = OutputBlock>> = if gzip.unwrap_or(false) {
        backend::stop_threads_at_exit();
        let mut pipe = ParallelMap::new(printer, Gzip, guc::dump_threads());
        Box::new(std::iter::from_fn(move || sqlstate::ok(pipe.next(&mut Backend))))
    } else {
        Box::new(pieces(move |size| printer.next(size).map(|fed| (fed.block, fed.more))))
    };
    SetOfIterator::new(Chunks::new(pieces))
}

fn open(
    query: Option<&str>,
    format: Option<&str>,
    options: Option<Json>,
    form: OutputEncoding,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Printer, Error> {
    backend::require_utf8()?;
    let query = query.ok_or(Error::Null("query"))?;
    let options = DumpOptions::read(options.as_ref().map_or(option::NONE, |options| &options.0))?;
    Printer::open(query, options.format(format.unwrap_or("tsv"))?, form, fcinfo)
}

/// The pieces that `next` gives, a small one first.
fn pieces(mut next: impl FnMut(BlockSize) -> Result<(OutputBlock, bool), Error>) -> impl Iterator<Item = OutputBlock> {
    let (mut size, mut more) = (BlockSize::FIRST, true);
    std::iter::from_fn(move || {
        if !more {
            return None;
        }
        let (piece, rest) = sqlstate::ok(next(std::mem::replace(&mut size, BlockSize::LATER)));
        more = rest;
        Some(piece)
    })
}
