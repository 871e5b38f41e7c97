//! What comes out of a dump, piece after piece: lines, or the bytes of a body.

use crate::error::Error;
use crate::jsonb::varlena;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// Of gzip. With zlib-rs, level 1 is a third larger than `gzip -1` makes it; level 2 is 5 % smaller and a fifth slower than 1.
const LEVEL: u32 = 2;

/// What rows become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputEncoding {
    /// Lines without ends, apart from one another.
    Lines,
    /// Lines with ends.
    Body,
    /// The same as one gzip member.
    Gzip,
}

/// What became of some rows. Of `OutputEncoding::Lines` each line is a value ready for PostgreSQL: a whole varlena (a header of 4 bytes, then the
/// data) that starts at a multiple of 4 from the start of the buffer.
#[derive(Debug, Default)]
pub struct OutputBlock {
    pub bytes: Vec<u8>,
    /// Where each line's value starts.
    pub values: Vec<usize>,
}

impl OutputBlock {
    /// What no rows become.
    ///
    /// # Errors
    /// `Memory`.
    pub fn empty(form: OutputEncoding) -> Result<OutputBlock, Error> {
        OutputBlock::default().finish(form)
    }

    /// Makes room for bytes to come.
    ///
    /// # Errors
    /// `Memory`.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes.try_reserve(bytes).map_err(|_| Error::Memory)
    }

    /// Opens a line.
    pub fn begin(&mut self, form: OutputEncoding) {
        if form == OutputEncoding::Lines {
            self.bytes.resize(self.bytes.len().next_multiple_of(varlena::HEADER), 0);
            self.values.push(self.bytes.len());
            self.bytes.extend_from_slice(&[0; varlena::HEADER]);
        }
    }

    /// Closes the line that `begin` opened. False when it is too large for a value.
    #[must_use]
    pub fn end(&mut self, form: OutputEncoding) -> bool {
        if form == OutputEncoding::Lines {
            return self.values.last().is_some_and(|&start| varlena::close(&mut self.bytes[start..]));
        }
        self.bytes.push(b'\n');
        true
    }

    /// Compresses the piece where that is asked for.
    ///
    /// # Errors
    /// `Memory`, `RowTooLarge`.
    pub fn finish(self, form: OutputEncoding) -> Result<OutputBlock, Error> {
        if form == OutputEncoding::Gzip { Ok(OutputBlock { bytes: gzip(&self.bytes)?, values: Vec::new() }) } else { Ok(self) }
    }
}

/// One gzip member.
///
/// # Errors
/// `Memory`.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |error: std::io::Error| Error::Internal(error.to_string());
    let mut out = Vec::new();
    // What cannot be compressed grows by a few bytes in each 16 KB.
    out.try_reserve(bytes.len() + bytes.len() / 256 + 1024).map_err(|_| Error::Memory)?;
    let mut encoder = GzEncoder::new(out, Compression::new(LEVEL));
    encoder.write_all(bytes).map_err(broken)?;
    encoder.finish().map_err(broken)
}
