//! A task of a job, as the tasks table holds it.

use crate::pipeline::load::checkpoint::{ByteRange, Checkpoint};

#[derive(Debug)]
pub struct NewTask {
    pub source: String,
    /// None where each line says its own.
    pub resource_type: Option<String>,
}

/// A task that a worker has claimed.
#[derive(Debug, Clone)]
pub struct Task {
    pub number: i64,
    /// Those of a phase wait for those of the phases before.
    pub phase: i32,
    /// Among the job's tasks, from 0.
    pub ordinal: usize,
    pub source: String,
    pub resource_type: Option<String>,
    /// What is done with it, where a job does several things.
    pub task: Option<String>,
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
