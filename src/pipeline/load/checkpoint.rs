//! How far a source has been loaded, so that reading can resume there. It comes with the rows and is stored in their transaction.

use crate::error::SourceFault;
use crate::store::inflate::{self, Inflated, Members, Restart};
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::open_source::Identity;
use crate::store::source::Source;
use crate::text::ndjson::{Blocks, Position, Until};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are passed at a time.
const PASSED: usize = 64 * 1024;

/// Behind a line of a source, and how to come there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub position: Position,
    /// At or before it.
    pub restart: Restart,
    pub identity: Identity,
    /// Bytes that had come in, as they are sent: somewhat more than are loaded.
    pub sent: u64,
}

/// A part of a plain source, in bytes: the lines that begin in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub from: u64,
    pub to: u64,
}

/// A source that is read, block after block.
pub struct SourceReader {
    pub blocks: Blocks<Box<dyn Read + Send>>,
    members: Option<Members>,
    sent: Arc<AtomicU64>,
    ranged: bool,
    pub identity: Identity,
    /// Before the last block.
    last: Position,
}

impl SourceReader {
    /// Opens a source behind a checkpoint. What lies between its restart and it is read once more, and compared.
    ///
    /// # Errors
    /// `Changed` where the source is no longer the one of the checkpoint; those of opening it.
    pub fn open(
        source: &Source,
        access: &ClientConfig,
        interrupt: &Interrupt,
        from: &Checkpoint,
        span: Option<ByteRange>,
        sizes: (usize, usize),
    ) -> Result<SourceReader, SourceFault> {
        // The byte before a span may be the end of a line, else its line begins before.
        let before = span.map_or(0, |span| span.from.saturating_sub(1));
        let is_new = from.position.offset <= before;
        let restart = if is_new { Restart { sent: before, inflated: before, ..Restart::default() } } else { from.restart };
        let (Inflated { mut reader, members, sent, ranged }, identity) = source.open(access, interrupt, restart, &from.identity)?;
        if span.is_some() && members.is_some() {
            return Err(SourceFault::Changed);
        }
        let mut position = from.position;
        if is_new && before > 0 {
            let mut buffered = BufReader::with_capacity(PASSED, reader);
            position = Position { offset: before + pass_line(&mut buffered)?, ..Position::default() };
            reader = Box::new(buffered);
        } else {
            compare(&mut reader, from)?;
        }
        if let Some(span) = span {
            reader = Box::new(Until::new(reader, position.offset, span.to));
        }
        let (block, line) = sizes;
        Ok(SourceReader { blocks: Blocks::resume(reader, block, line, position), members, sent, ranged, identity, last: position })
    }

    /// The identity of the source if ranges of it can be read by themselves: it is plain text, and long enough.
    pub fn divisible(&self, least: u64) -> Option<&Identity> {
        let is_long = self.identity.length.is_some_and(|length| length >= least);
        (self.members.is_none() && self.ranged && self.identity.is_telling() && is_long).then_some(&self.identity)
    }

    /// Where the blocks so far end. None within a line that is skipped.
    pub fn checkpoint(&mut self) -> Option<Checkpoint> {
        let position = self.blocks.position()?;
        let restart = match &self.members {
            Some(members) => members.before(position.offset)?,
            // From the last block, to have something to compare.
            None => Restart { sent: self.last.offset, inflated: self.last.offset, crc: self.last.crc, gzip: false },
        };
        self.last = position;
        Some(Checkpoint { position, restart, identity: self.identity.clone(), sent: self.sent.load(Ordering::Relaxed) })
    }
}

/// Passes what lies between a checkpoint's restart and it: the same bytes as before.
fn compare(reader: &mut dyn Read, from: &Checkpoint) -> Result<(), SourceFault> {
    let mut left = from.position.offset - from.restart.inflated.min(from.position.offset);
    let mut crc = Hasher::new_with_initial(from.restart.crc);
    let mut buffer = vec![0; PASSED];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PASSED).min(PASSED);
        let count = reader.read(&mut buffer[..most]).map_err(|error| inflate::fault(&error))?;
        if count == 0 {
            return Err(SourceFault::Changed);
        }
        crc.update(&buffer[..count]);
        left -= count as u64;
    }
    if crc.finalize() == from.position.crc { Ok(()) } else { Err(SourceFault::Changed) }
}

/// Passes the rest of a line: its bytes.
fn pass_line(reader: &mut impl BufRead) -> Result<u64, SourceFault> {
    let mut passed = 0;
    loop {
        let bytes = reader.fill_buf().map_err(|error| inflate::fault(&error))?;
        let (count, ended) = match memchr::memchr(b'\n', bytes) {
            Some(end) => (end + 1, true),
            None => (bytes.len(), bytes.is_empty()),
        };
        reader.consume(count);
        passed += count as u64;
        if ended {
            return Ok(passed);
        }
    }
}
