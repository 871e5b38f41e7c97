//! What becomes of a resource whose id is there already.

/// By the option `on-conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The line is stored over it.
    #[default]
    Overwrite,
    /// The line ends the load.
    Error,
    /// The line is passed over.
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub on_conflict: OnConflict,
    /// Whether the version that is overwritten goes to the history table.
    pub keep_history: bool,
}
