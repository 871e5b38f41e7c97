//! `bulk.dump` and `bulk.dump_bytes`: a type's resources as NDJSON, row by row as they are asked for.

use crate::error::Error;
use crate::fhir::envelope::Row;
use crate::fhir::{Format, definitions};
use crate::op::dump::Writer;
use crate::pg::rows::{Rows, Stored};
use crate::pg::{lifecycle, report, setting, stream, table};
use flate2::Compression;
use flate2::write::GzEncoder;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use std::io::Write;

/// Bytes of a chunk, more or less.
const CHUNK: usize = 64 * 1024;

/// One line a row, without its end.
#[pg_extern(sql = false)]
fn dump(
    resource_type: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, String> {
    match report::ok(Lines::open(resource_type, since, fhir, fcinfo)) {
        Some(mut lines) => SetOfIterator::new(std::iter::from_fn(move || {
            let mut line = Vec::new();
            // The writer copies UTF-8 from jsonb, which it has checked.
            lines.append(&mut line).then(|| String::from_utf8_lossy(&line).into_owned())
        })),
        None => SetOfIterator::empty(),
    }
}

/// Chunks of the body as an HTTP layer sends it: lines with their ends, gzipped on demand.
#[pg_extern(sql = false)]
fn dump_bytes(
    resource_type: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    gzip: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Vec<u8>> {
    let lines = report::ok(Lines::open(resource_type, since, fhir, fcinfo));
    if gzip.unwrap_or(false) { SetOfIterator::new(gzip_chunks(lines)) } else { SetOfIterator::new(plain_chunks(lines)) }
}

fn plain_chunks(lines: Option<Lines>) -> impl Iterator<Item = Vec<u8>> {
    let mut lines = lines;
    std::iter::from_fn(move || {
        let mut chunk = Vec::with_capacity(CHUNK + CHUNK / 8);
        while chunk.len() < CHUNK && lines.as_mut().is_some_and(|lines| lines.append(&mut chunk)) {
            chunk.push(b'\n');
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn gzip_chunks(lines: Option<Lines>) -> impl Iterator<Item = Vec<u8>> {
    let mut lines = lines;
    let mut encoder = Some(GzEncoder::new(Vec::with_capacity(CHUNK + CHUNK / 8), Compression::fast()));
    let mut line = Vec::new();
    let broken = |error: std::io::Error| Error::Internal(error.to_string());
    std::iter::from_fn(move || {
        let gzip = encoder.as_mut()?;
        while gzip.get_ref().len() < CHUNK {
            line.clear();
            if !lines.as_mut().is_some_and(|lines| lines.append(&mut line)) {
                return encoder.take().map(|gzip| report::ok(gzip.finish().map_err(broken)));
            }
            line.push(b'\n');
            report::ok(gzip.write_all(&line).map_err(broken));
        }
        Some(std::mem::take(gzip.get_mut()))
    })
}

/// The lines of a dump.
struct Lines {
    rows: Rows,
    writer: Writer,
    resource_type: String,
    table: String,
}

impl Lines {
    /// None when the type is FHIR's but has no table: there is nothing to dump.
    fn open(
        resource_type: Option<&str>,
        since: Option<TimestampWithTimeZone>,
        fhir: Option<bool>,
        fcinfo: pg_sys::FunctionCallInfo,
    ) -> Result<Option<Lines>, Error> {
        lifecycle::require_utf8()?;
        let resource_type = resource_type.ok_or(Error::Null("resource_type"))?;
        let definitions = definitions::r4();
        let resource_type = table::type_name(definitions, resource_type)?;
        let Some(found) = table::lookup(&resource_type)? else {
            return match definitions.resource(&resource_type) {
                Some(_) => Ok(None),
                None => Err(Error::UnknownType(resource_type)),
            };
        };
        let rows = Rows::open(&found, since)?;
        stream::close_with_query(fcinfo, rows.portal().to_owned());
        let to = if fhir.unwrap_or(false) { Format::Fhir } else { Format::Aidbox };
        let writer = Writer::new(definitions, setting::resource_format(), to, setting::created_at_url(), setting::max_depth());
        Ok(Some(Lines { rows, writer, resource_type, table: found.plain_name }))
    }

    /// Appends the next line, without its end. False at the end.
    fn append(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(stored) = self.rows.next_row() else { return false };
        let written = stored.with_resource(|resource| self.writer.line(&facts(&stored, &self.resource_type), resource, out));
        report::ok(written.map_err(|fault| Error::Row { table: self.table.clone(), id: stored.id.clone(), fault }));
        pgrx::check_for_interrupts!();
        true
    }
}

/// What a row says; a null type is the table's.
fn facts<'a>(stored: &'a Stored, resource_type: &'a str) -> Row<'a> {
    Row {
        id: &stored.id,
        resource_type: stored.resource_type.as_deref().unwrap_or(resource_type),
        version_id: &stored.version_id,
        last_updated: stored.last_updated.as_deref(),
        created_at: stored.created_at.as_deref(),
    }
}
