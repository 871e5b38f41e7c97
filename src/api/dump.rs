//! `bulk.dump` and `bulk.dump_bytes`: a type's resources as NDJSON, as they are asked for.

use crate::error::Error;
use crate::fhir::definitions;
use crate::fhir::format::Format;
use crate::op::dump::Ndjson;
use crate::op::line::Recipe;
use crate::op::piece::{Form, Piece};
use crate::op::pipe::Pipe;
use crate::pg::rows::Rows;
use crate::pg::table::{self, Table};
use crate::pg::values::{Chunks, Lines, Varlena};
use crate::pg::version::Matched;
use crate::pg::wait::Backend;
use crate::pg::{lifecycle, report, setting};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// What is asked for.
struct Request<'a> {
    resource_type: Option<&'a str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    form: Form,
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
    SetOfIterator::new(Lines::new(report::ok(open(Request { resource_type, since, fhir, form: Form::Lines }, fcinfo))))
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
    let form = if gzip.unwrap_or(false) { Form::Gzip } else { Form::Body };
    SetOfIterator::new(Chunks::new(report::ok(open(Request { resource_type, since, fhir, form }, fcinfo))))
}

/// A type as it is spelled, and its table. FHIR's own need none.
pub fn lookup(name: &str) -> Result<(String, Option<Table>), Error> {
    let definitions = definitions::r4();
    let name = table::type_name(definitions, name)?;
    let found = table::lookup(&name)?;
    if found.is_none() && definitions.resource(&name).is_none() { Err(Error::UnknownType(name)) } else { Ok((name, found)) }
}

/// The pieces of a dump. A type that is FHIR's but has no table gives an empty one.
fn open(request: Request, fcinfo: pg_sys::FunctionCallInfo) -> Result<Box<dyn Iterator<Item = Piece>>, Error> {
    lifecycle::require_utf8()?;
    let (resource_type, found) = lookup(request.resource_type.ok_or(Error::Null("resource_type"))?)?;
    let Some(found) = found else { return Ok(Box::new(std::iter::once(Piece::empty(request.form)?))) };
    lifecycle::stop_threads_at_exit();
    let rows = Rows::open(&found, request.since, fcinfo)?;
    let recipe = Recipe {
        definitions: definitions::r4(),
        resource_type,
        table: found.plain_name,
        has_created_at: found.has_cts,
        has_last_updated: found.has_ts,
        stored: setting::resource_format(),
        to: if request.fhir.unwrap_or(false) { Format::Fhir } else { Format::Aidbox },
        created_at_url: setting::created_at_url(),
        max_depth: setting::max_depth(),
    };
    let mut pipe = Pipe::new(rows, Ndjson { recipe, form: request.form }, setting::dump_threads());
    Ok(Box::new(std::iter::from_fn(move || report::ok(pipe.next(&mut Backend)))))
}
