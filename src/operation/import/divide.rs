//! A long plain source in ranges, which several workers load at once. The rows are those of one after another: of an id the line that comes
//! last in the source stays, since a line's place gives its version.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::catalog::{ddl, fast_path_check, txid_sequence};
use crate::pg::state::job::Job;
use crate::pg::state::task::Task;
use crate::pg::state::task_claim;
use crate::pg::sys::guc;
use crate::pipeline::load::checkpoint::ByteRange;
use crate::pipeline::load::existing_rows::Policy;
use crate::pipeline::load::options::LoadOptions;
use crate::pipeline::load::source_reader::Division;
use std::sync::Arc;

/// Ranges of a source at most.
const MAX_RANGES: u64 = 1000;
/// Bytes of a source that is divided: four million of them use the versions up.
const MAX_SOURCE_BYTES: i64 = 1 << 41;

/// What to look for in a source that may be divided; None where it may not: something of it is loaded, or the order of its lines matters for
/// more than which of them stays.
///
/// # Errors
/// As `owner_sql::query`.
pub fn look_for(task: &Task, options: &LoadOptions) -> Result<Option<Division>, Error> {
    let size = guc::range_size();
    let is_new = task.range.is_none() && task.progress.read == 0 && task.progress.checkpoint.position.offset == 0;
    if size == 0 || !is_new || options.policy != Policy::default() || options.max_errors > 0 {
        return Ok(None);
    }
    let is_plain = table_of(task)?.is_some_and(|table| fast_path_check::layout(table.oid, true).is_ok());
    Ok(is_plain.then(|| Division { least: 2 * size, found: Arc::default() }))
}

/// Whether the source is one to be divided.
pub fn is_due(division: &Option<Division>) -> bool {
    division.as_ref().is_some_and(|division| division.found.get().is_some())
}

/// Divides the task; false where the versions for it cannot be had.
///
/// # Errors
/// As `owner_sql::query`.
pub fn divide(job: &Job, task: &mut Task, division: Option<&Division>) -> Result<bool, Error> {
    let Some((division, identity)) = division.and_then(|division| Some((division, division.found.get()?))) else { return Ok(false) };
    let length = identity.length.unwrap_or_default();
    // What a server says of itself is not proven yet.
    let Some(count) = i64::try_from(length).ok().filter(|&length| length < MAX_SOURCE_BYTES) else { return Ok(false) };
    let spans = spans(length, division.least / 2);
    let unknown = || Error::UnknownType(task.resource_type.clone().unwrap_or_default());
    let table = table_of(task)?.ok_or_else(unknown)?;
    let versions = txid_sequence::reserve(ddl::ensure_sequence(table.schema), table.schema, count)?;
    versions.map(|versions| task_claim::divide(job, task, &spans, identity, versions)).transpose().map(|divided| divided.is_some())
}

/// None where each line says its own type.
fn table_of(task: &Task) -> Result<Option<Table>, Error> {
    Ok(task.resource_type.as_deref().map(resource_table::lookup_for_writing).transpose()?.flatten())
}

fn spans(length: u64, size: u64) -> Vec<ByteRange> {
    let size = size.max(length.div_ceil(MAX_RANGES));
    (0..length).step_by(usize::try_from(size).unwrap_or(usize::MAX)).map(|from| ByteRange { from, to: length.min(from + size) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_one_another_to_the_end() {
        for (length, size, count) in [(100, 50, 2), (101, 50, 3), (99, 50, 2), (1_000_000, 10, 1000)] {
            let spans = spans(length, size);
            assert_eq!(spans.len(), count, "{length} {size}");
            assert!(spans.windows(2).all(|pair| pair[0].to == pair[1].from));
            assert_eq!((spans[0].from, spans[count - 1].to), (0, length));
        }
    }
}
