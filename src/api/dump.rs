//! `bulk.dump` and `bulk.dump_bytes`: a type's resources as NDJSON, as they are asked for.

use crate::error::Error;
use crate::fhir::definitions;
use crate::fhir::format::Format;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::read::table_scan::Rows;
use crate::pg::sys::latch::Backend;
use crate::pg::sys::srf_result::{Chunks, TextRows, Varlena};
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, guc, sqlstate};
use crate::pipeline::dump::ndjson::Ndjson;
use crate::pipeline::dump::render::RenderConfig;
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use crate::pipeline::parallel_map::ParallelMap;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// What is asked for.
struct Request<'a> {
    resource_type: Option<&'a str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    form: OutputEncoding,
}

/// One line a row, without its end.
#[pg_extern(sql = false)]
fn dump(
    _version: Matched,
    resource_type: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Varlena> {
    SetOfIterator::new(TextRows::new(sqlstate::ok(open(Request { resource_type, since, fhir, form: OutputEncoding::Lines }, fcinfo))))
}

/// Chunks of the body as an HTTP layer sends it: lines with their ends, gzipped on demand.
#[pg_extern(sql = false)]
fn dump_bytes(
    _version: Matched,
    resource_type: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    gzip: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Varlena> {
    let form = if gzip.unwrap_or(false) { OutputEncoding::Gzip } else { OutputEncoding::Body };
    SetOfIterator::new(Chunks::new(sqlstate::ok(open(Request { resource_type, since, fhir, form }, fcinfo))))
}

/// A type as it is spelled, and its table. FHIR's own need none.
///
/// # Errors
/// `InvalidType` for a name that is none; `Unreadable` where the caller may not read the table.
pub fn lookup(name: &str) -> Result<(String, Option<Table>), Error> {
    let definitions = definitions::r4();
    let name = resource_table::type_name(definitions, name)?;
    let found = resource_table::lookup(&name)?;
    if found.is_none() && definitions.resource(&name).is_none() { Err(Error::UnknownType(name)) } else { Ok((name, found)) }
}

/// The pieces of a dump. A type that is FHIR's but has no table gives an empty one.
fn open(request: Request, fcinfo: pg_sys::FunctionCallInfo) -> Result<Box<dyn Iterator<Item = OutputBlock>>, Error> {
    backend::require_utf8()?;
    let (resource_type, found) = lookup(request.resource_type.ok_or(Error::Null("resource_type"))?)?;
    let Some(found) = found else { return Ok(Box::new(std::iter::once(OutputBlock::empty(request.form)?))) };
    backend::stop_threads_at_exit();
    let rows = Rows::open(&found, request.since, fcinfo)?;
    let config = RenderConfig {
        definitions: definitions::r4(),
        resource_type,
        table: found.plain_name,
        has_created_at: found.has_cts,
        has_last_updated: found.has_ts,
        stored: guc::resource_format(),
        to: if request.fhir.unwrap_or(false) { Format::Fhir } else { Format::Aidbox },
        created_at_url: guc::created_at_url(),
        max_depth: guc::max_depth(),
    };
    let mut pipe = ParallelMap::new(rows, Ndjson { config, form: request.form }, guc::dump_threads());
    Ok(Box::new(std::iter::from_fn(move || sqlstate::ok(pipe.next(&mut Backend)))))
}
