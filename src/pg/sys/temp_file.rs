//! A temporary file of PostgreSQL's: where `temp_tablespaces` says, within `temp_file_limit`, gone with the transaction at the latest.

use crate::pipeline::load::batch_spill::Spool;
use pgrx::pg_sys;

/// An open temporary file.
#[derive(Debug)]
pub struct TemporaryFile(*mut pg_sys::BufFile);

impl TemporaryFile {
    /// An empty file. An ERROR where none can be made.
    pub fn new() -> TemporaryFile {
        // SAFETY: makes a file of the current resource owner, that is of the statement.
        TemporaryFile(unsafe { pg_sys::BufFileCreateTemp(false) })
    }

    /// Closes and deletes the file. An ERROR does too.
    pub fn close(self) {
        // SAFETY: made by `new`, used no more.
        unsafe { pg_sys::BufFileClose(self.0) };
    }
}

impl Spool for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) {
        // SAFETY: an open file; the bytes are read only, whatever older versions declare.
        unsafe { pg_sys::BufFileWrite(self.0, bytes.as_ptr().cast_mut().cast(), bytes.len()) };
    }

    fn rewind(&mut self) {
        // SAFETY: an open file, from its start.
        unsafe { pg_sys::BufFileSeek(self.0, 0, 0, 0) };
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        // SAFETY: an open file, and a buffer of that size.
        let read = unsafe { pg_sys::BufFileRead(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
        read == buffer.len()
    }
}
