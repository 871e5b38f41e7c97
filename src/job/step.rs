//! The outcome of a step of work on a task.

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to do, in another step; what is done is written down.
    More,
    /// The task is done.
    Done,
    /// The task is done, and it is written down.
    Ended,
    /// Nobody wants it any more.
    Unwanted,
    /// It ends here: more resources are invalid than was asked to bear.
    TooMany(u64),
}
