//! A task of a job, as the tasks table holds it.

use crate::error::Error;
use crate::pg::state::enums::TaskKind;
use crate::pg::sys::owner_sql;
use crate::pipeline::load::checkpoint::{ByteRange, Checkpoint};

/// A task to enter.
#[derive(Debug)]
pub struct NewTask {
    pub kind: TaskKind,
    pub source: String,
    /// None where each line says its own.
    pub resource_type: Option<String>,
    /// Of a table: from this page up to, not including, that one; None for all.
    pub pages: Option<(u32, u32)>,
}

impl NewTask {
    /// A task of a whole source or table; `resource_type` is None where each line says its own.
    pub fn new(kind: TaskKind, source: String, resource_type: Option<String>) -> NewTask {
        NewTask { kind, source, resource_type, pages: None }
    }
}

/// Enters tasks of a job, in their order, the first in this place.
///
/// # Errors
/// As `owner_sql::query`.
pub fn insert(job: i64, first: i64, tasks: &[NewTask]) -> Result<(), Error> {
    let (sources, types): (Vec<&str>, Vec<Option<&str>>) =
        tasks.iter().map(|task| (task.source.as_str(), task.resource_type.as_deref())).unzip();
    let kinds: Vec<&str> = tasks.iter().map(|task| task.kind.word()).collect();
    let (first_pages, end_pages): (Vec<Option<i64>>, Vec<Option<i64>>) =
        tasks.iter().map(|task| task.pages.map(|(first, end)| (i64::from(first), i64::from(end))).unzip()).unzip();
    owner_sql::run(
        "with given as materialized ( \
            select bulk_internal.random_number() as number, g.kind::bulk_internal.task_kind as kind, g.source, g.resource_type, g.first_page, \
                g.end_page, g.ordinal \
            from rows from (unnest($3), unnest($4), unnest($5), unnest($6), unnest($7)) \
                with ordinality as g (kind, source, resource_type, first_page, end_page, ordinal)), \
         entered as (insert into bulk_internal.task (number, job, kind, source, resource_type, ordinal, phase) \
            select number, $1, kind, source, resource_type, $2 + ordinal - 1, case kind when 'index' then 1 else 0 end from given), \
         sources as (insert into bulk_internal.task_source (task) select number from given where kind = 'source') \
         insert into bulk_internal.task_table (task, first_page, end_page) \
         select number, first_page, end_page from given where kind in ('table', 'deleted')",
        &[job.into(), first.into(), kinds.into(), sources.into(), types.into(), first_pages.into(), end_pages.into()],
    )
}

/// A task that a worker has claimed.
#[derive(Debug, Clone)]
pub struct Task {
    pub number: i64,
    pub kind: TaskKind,
    /// A task waits until those of the phases before have ended.
    pub phase: i32,
    /// Among the job's tasks, from 0.
    pub ordinal: usize,
    pub source: String,
    pub resource_type: Option<String>,
    pub position: i64,
    pub size: Option<i64>,
    /// The pages of its table that are its own; None where all are.
    pub pages: Option<(u32, u32)>,
    /// The lines of its source that are its own; None where all are.
    pub range: Option<TaskRange>,
    /// Times that it was begun again after a fault of its source.
    pub tries: u32,
    pub progress: Progress,
}

/// A task that shares its source with others of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRange {
    pub span: ByteRange,
    /// Of each row this and its offset is the version.
    pub versions: i64,
    /// The highest version that a row of the source has.
    pub last_version: i64,
}

/// How far a task is, and what became of its lines.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub checkpoint: Checkpoint,
    pub read: u64,
    pub stored: u64,
    pub skipped: u64,
    pub rejected: u64,
    pub characters: u64,
    /// Bytes of rows.
    pub written: u64,
}
