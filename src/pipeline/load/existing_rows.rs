//! What becomes of a resource whose id is there already.

use crate::pipeline::load::encode::TakeMeta;

/// By the option `on-conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The line is stored over it.
    #[default]
    Overwrite,
    /// The line ends the load.
    Error,
    /// The line is skipped.
    Skip,
    /// The line is stored over it if its `meta.lastUpdated` is later, else skipped.
    Newer,
}

impl OnConflict {
    const NAMES: [(&str, OnConflict); 4] =
        [("overwrite", OnConflict::Overwrite), ("error", OnConflict::Error), ("skip", OnConflict::Skip), ("newer", OnConflict::Newer)];

    /// None for an unknown name.
    pub fn named(name: &str) -> Option<OnConflict> {
        OnConflict::NAMES.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
    }

    /// As the option spells it.
    pub fn name(self) -> &'static str {
        OnConflict::NAMES.iter().find(|(_, policy)| *policy == self).map_or("", |(name, _)| name)
    }
}

/// What of existing rows and of the lines' meta is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub on_conflict: OnConflict,
    /// Whether the version that is overwritten goes to the history table.
    pub keep_history: bool,
    /// Whether version and times are those of the line's meta.
    pub keep_meta: bool,
}

impl Policy {
    /// What has to be known of a line's meta.
    pub fn take_meta(self) -> TakeMeta {
        match (self.keep_meta, self.on_conflict == OnConflict::Newer) {
            (true, dated) => TakeMeta::All { dated },
            (false, true) => TakeMeta::LastUpdated,
            (false, false) => TakeMeta::Nothing,
        }
    }
}

/// How rows are written, by the option `method`: the result is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Straight into tables that allow it.
    #[default]
    Copy,
    /// By INSERT.
    Insert,
}
