//! How far a source has been loaded, so that reading can go on there: told with the rows, kept with them.

use crate::error::SourceFault;
use crate::fhir::ndjson::{Blocks, Position};
use crate::store::inflate::{self, Inflated, Members, Restart};
use crate::store::opened::{Access, Identity};
use crate::store::{Interrupt, Source};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::io::Read;
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

/// A source that is read, block after block.
pub struct Reading {
    pub blocks: Blocks<Box<dyn Read + Send>>,
    members: Option<Members>,
    sent: Arc<AtomicU64>,
    identity: Identity,
    /// Before the last block.
    last: Position,
}

impl Reading {
    /// Opens a source behind a checkpoint. What lies between its restart and it is read once more, and compared.
    pub fn open(
        source: &Source,
        access: &Access,
        interrupt: &Interrupt,
        from: &Checkpoint,
        sizes: (usize, usize),
    ) -> Result<Reading, SourceFault> {
        let (Inflated { mut reader, members, sent }, identity) = source.open(access, interrupt, from.restart, &from.identity)?;
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
        if crc.finalize() != from.position.crc {
            return Err(SourceFault::Changed);
        }
        let (block, line) = sizes;
        Ok(Reading { blocks: Blocks::resume(reader, block, line, from.position), members, sent, identity, last: from.position })
    }

    /// Where the blocks so far end. None within a line that is passed over.
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
