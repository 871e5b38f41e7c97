//! What `pg_stat_progress_copy` shows of a load or a dump. A backend shows one command at a time: ours only while there is no other, so
//! inside a COPY it is COPY's own. After an ERROR the transaction's end takes it away.

use pgrx::pg_sys;

/// Which way the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Load,
    Dump,
}

/// Progress of one operation.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    direction: Direction,
    table: pg_sys::Oid,
    rows: u64,
    bytes: u64,
    /// Whether it is ours to show.
    ours: bool,
}

impl Progress {
    /// Begins to show an operation on a table, or on several (`InvalidOid`).
    pub fn start(direction: Direction, table: pg_sys::Oid) -> Progress {
        let progress =
            Progress { direction, table, rows: 0, bytes: 0, ours: command() == pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID };
        progress.show();
        progress
    }

    /// Counts rows, and bytes of NDJSON (load) or of stored resources (dump).
    pub fn add(&mut self, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
        self.show();
    }

    /// Takes the command out of `pg_stat_progress_copy`, if it is this one's.
    pub fn end(self) {
        if self.ours && command() == pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY {
            // SAFETY: writes to this backend's own status.
            unsafe { pg_sys::pgstat_progress_end_command() };
        }
    }

    fn show(&self) {
        if !self.ours {
            return;
        }
        match command() {
            pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY => {}
            // At first, or after a command inside ours (the creation of a table) has taken its place and ended.
            pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID => {
                // SAFETY: writes to this backend's own status.
                unsafe { pg_sys::pgstat_progress_start_command(pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY, self.table) };
            }
            _ => return,
        }
        let command = match self.direction {
            Direction::Load => pg_sys::PROGRESS_COPY_COMMAND_FROM,
            Direction::Dump => pg_sys::PROGRESS_COPY_COMMAND_TO,
        };
        let shown = [
            (pg_sys::PROGRESS_COPY_COMMAND, i64::from(command)),
            (pg_sys::PROGRESS_COPY_TYPE, i64::from(pg_sys::PROGRESS_COPY_TYPE_CALLBACK)),
            (pg_sys::PROGRESS_COPY_TUPLES_PROCESSED, self.rows as i64),
            (pg_sys::PROGRESS_COPY_BYTES_PROCESSED, self.bytes as i64),
        ];
        let (places, values) = (shown.map(|(place, _)| place as i32), shown.map(|(_, value)| value));
        // SAFETY: as many places as values, all of them within the status's array.
        unsafe { pg_sys::pgstat_progress_update_multi_param(places.len() as i32, places.as_ptr(), values.as_ptr()) };
    }
}

/// The command that this backend shows.
fn command() -> pg_sys::ProgressCommandType::Type {
    // SAFETY: reads a backend variable.
    let entry = unsafe { pg_sys::MyBEEntry };
    // SAFETY: null, or this backend's own entry, which only it writes.
    unsafe { entry.as_ref() }.map_or(pg_sys::ProgressCommandType::PROGRESS_COMMAND_INVALID, |entry| entry.st_progress_command)
}
