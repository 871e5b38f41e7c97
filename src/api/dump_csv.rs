//! `bulk.dump_csv` and `bulk.dump_csv_bytes`: a type as a table of paths, by two passes over its rows under one snapshot.

use crate::api::dump;
use crate::error::Error;
use crate::fhir::definitions;
use crate::fhir::format::Format;
use crate::pg::read::table_scan::Rows;
use crate::pg::sys::latch::Backend;
use crate::pg::sys::srf_result::{Chunks, TextRows, Varlena};
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, guc, sqlstate};
use crate::pipeline::dump::csv::{Filler, PathFinder, Paths};
use crate::pipeline::dump::render::RenderConfig;
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use crate::pipeline::parallel_map::ParallelMap;
use pgrx::prelude::*;

/// The line of the columns' names, then a line a resource, without their ends.
#[pg_extern(sql = false)]
fn dump_csv(_version: Matched, resource_type: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) -> SetOfIterator<'static, Varlena> {
    SetOfIterator::new(TextRows::new(sqlstate::ok(open(resource_type, OutputEncoding::Lines, fcinfo))))
}

/// Chunks of the body as an HTTP layer sends it: lines with their ends, gzipped on demand.
#[pg_extern(sql = false)]
fn dump_csv_bytes(
    _version: Matched,
    resource_type: Option<&str>,
    gzip: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Varlena> {
    let form = if gzip.unwrap_or(false) { OutputEncoding::Gzip } else { OutputEncoding::Body };
    SetOfIterator::new(Chunks::new(sqlstate::ok(open(resource_type, form, fcinfo))))
}

fn open(
    resource_type: Option<&str>,
    form: OutputEncoding,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Box<dyn Iterator<Item = OutputBlock>>, Error> {
    backend::require_utf8()?;
    let (resource_type, found) = dump::lookup(resource_type.ok_or(Error::Null("resource_type"))?)?;
    backend::stop_threads_at_exit();
    let threads = guc::dump_threads();
    let config = RenderConfig {
        definitions: definitions::r4(),
        resource_type,
        table: found.as_ref().map(|found| found.plain_name.clone()).unwrap_or_default(),
        has_created_at: false,
        has_last_updated: false,
        stored: guc::resource_format(),
        to: Format::Aidbox,
        created_at_url: guc::created_at_url(),
        max_depth: guc::max_depth(),
    };
    let mut paths = Paths::of_no_rows();
    if let Some(found) = &found {
        let mut finding = ParallelMap::new(Rows::open(found, None, fcinfo)?, PathFinder(config.clone()), threads);
        while let Some(some) = finding.next(&mut Backend)? {
            paths.merge(&some)?;
        }
    }
    let filler = Filler::new(config, paths, form)?;
    let header = std::iter::once(filler.header()?);
    let Some(found) = found else { return Ok(Box::new(header)) };
    let columns = filler.columns();
    // Opened at once: under the same snapshot.
    let mut filling = ParallelMap::new(Rows::open(&found, None, fcinfo)?, filler, threads).with_row_cost(columns);
    Ok(Box::new(header.chain(std::iter::from_fn(move || sqlstate::ok(filling.next(&mut Backend))))))
}
