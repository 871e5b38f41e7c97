//! The words of jobs and tasks: the domains of `sql/install/20_job.sql`, which a test compares with these.

macro_rules! sql_enum {
    ($(#[$doc:meta])* $name:ident, $sql:literal: $($(#[$of:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $variant),+
        }

        impl $name {
            /// The SQL domain, qualified.
            #[cfg(test)]
            pub const SQL: &str = $sql;
            /// All, in the order of the SQL domain.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// As SQL spells it.
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word),+
                }
            }

            /// None for a word that is none of them.
            pub fn read(word: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

sql_enum! {
    /// The verb of a job.
    JobKind, "bulk_internal.job_kind":
    /// A foreground load.
    Load = "load",
    Validate = "validate",
    Import = "import",
    /// A load of a bucket.
    Bucket = "bucket",
    /// Restores the indexes that a cancelled load of a bucket dropped.
    Indexes = "indexes",
    Export = "export",
    /// Deletes the files of an export.
    Cleanup = "cleanup",
}

sql_enum! {
    /// The state of a job or task.
    State, "bulk_internal.state":
    Waiting = "waiting",
    InProgress = "in-progress",
    /// In progress, without a worker. It is seen, never stored.
    Interrupted = "interrupted",
    Paused = "paused",
    Done = "done",
    /// Of a bucket: its files are done or failed; of an export: done.
    Completed = "completed",
    Error = "error",
    Cancelled = "cancelled",
    /// An import that was cancelled.
    Aborted = "aborted",
}

sql_enum! {
    /// What a task works on.
    TaskKind, "bulk_internal.task_kind":
    /// A file or URL that is loaded.
    Source = "source",
    /// Pages of a table, validated or exported.
    Table = "table",
    /// What an export tells of deleted resources of a table.
    Deleted = "deleted",
    /// Begins an export and holds its snapshot.
    Snapshot = "snapshot",
    /// An index to restore.
    Index = "index",
    /// Files of an export, to be deleted.
    Files = "files",
}

impl State {
    /// Whether a job in this state is still to be worked on, or is worked on.
    pub fn is_open(self) -> bool {
        matches!(self, State::Waiting | State::InProgress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a domain in the script.
    fn in_sql(name: &str) -> Vec<&'static str> {
        let script = include_str!("../../../sql/install/20_job.sql");
        let (_, rest) = script.split_once(&format!("create domain {name} as text")).expect(name);
        let (_, rest) = rest.split_once("check (value in (").expect(name);
        let (list, _) = rest.split_once("));").expect(name);
        list.split(", ").map(|word| word.trim_matches('\'')).collect()
    }

    #[test]
    fn words_are_those_of_the_sql_domains() {
        assert_eq!(in_sql(JobKind::SQL), JobKind::ALL.iter().map(|kind| kind.word()).collect::<Vec<_>>());
        assert_eq!(in_sql(State::SQL), State::ALL.iter().map(|state| state.word()).collect::<Vec<_>>());
        assert_eq!(in_sql(TaskKind::SQL), TaskKind::ALL.iter().map(|kind| kind.word()).collect::<Vec<_>>());
        assert_eq!(State::read("paused"), Some(State::Paused));
        assert_eq!(State::read("Paused"), None);
    }
}
