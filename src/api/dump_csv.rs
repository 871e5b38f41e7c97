//! `bulk.dump_csv` and `bulk.dump_csv_bytes`: a type as a table of paths, by two passes over its rows under one snapshot.

use crate::api::dump;
use crate::error::Error;
use crate::fhir::definitions;
use crate::fhir::format::Format;
use crate::op::csv::{Filler, PathFinder, Paths};
use crate::op::line::Recipe;
use crate::op::piece::{Form, Piece};
use crate::op::pipe::Pipe;
use crate::pg::rows::Rows;
use crate::pg::values::{Chunks, Lines, Varlena};
use crate::pg::version::Matched;
use crate::pg::wait::Backend;
use crate::pg::{lifecycle, report, setting};
use pgrx::prelude::*;

/// The line of the columns' names, then a line a resource, without their ends.
#[pg_extern(sql = false)]
fn dump_csv(_version: Matched, resource_type: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) -> SetOfIterator<'static, Varlena> {
    SetOfIterator::new(Lines::new(report::ok(open(resource_type, Form::Lines, fcinfo))))
}

/// Chunks of the body as an HTTP layer sends it: lines with their ends, gzipped on demand.
#[pg_extern(sql = false)]
fn dump_csv_bytes(
    _version: Matched,
    resource_type: Option<&str>,
    gzip: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Varlena> {
    let form = if gzip.unwrap_or(false) { Form::Gzip } else { Form::Body };
    SetOfIterator::new(Chunks::new(report::ok(open(resource_type, form, fcinfo))))
}

fn open(resource_type: Option<&str>, form: Form, fcinfo: pg_sys::FunctionCallInfo) -> Result<Box<dyn Iterator<Item = Piece>>, Error> {
    lifecycle::require_utf8()?;
    let (resource_type, found) = dump::lookup(resource_type.ok_or(Error::Null("resource_type"))?)?;
    lifecycle::stop_threads_at_exit();
    let threads = setting::dump_threads();
    let recipe = Recipe {
        definitions: definitions::r4(),
        resource_type,
        table: found.as_ref().map(|found| found.plain_name.clone()).unwrap_or_default(),
        has_created_at: false,
        has_last_updated: false,
        stored: setting::resource_format(),
        to: Format::Aidbox,
        created_at_url: setting::created_at_url(),
        max_depth: setting::max_depth(),
    };
    let mut paths = Paths::of_no_rows();
    if let Some(found) = &found {
        let mut finding = Pipe::new(Rows::open(found, None, fcinfo)?, PathFinder(recipe.clone()), threads);
        while let Some(some) = finding.next(&mut Backend)? {
            paths.merge(&some)?;
        }
    }
    let filler = Filler::new(recipe, paths, form)?;
    let header = std::iter::once(filler.header()?);
    let Some(found) = found else { return Ok(Box::new(header)) };
    let columns = filler.columns();
    // Opened at once: under the same snapshot.
    let mut filling = Pipe::new(Rows::open(&found, None, fcinfo)?, filler, threads).with_row_cost(columns);
    Ok(Box::new(header.chain(std::iter::from_fn(move || report::ok(filling.next(&mut Backend))))))
}
