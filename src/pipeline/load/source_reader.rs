//! Load: source → inflate → lines → encode threads → queue bounded by bytes → sink, in order.

use crate::error::{Error, SourceFault};
use crate::pipeline::load::batch::Batch;
use crate::pipeline::load::checkpoint::{ByteRange, Checkpoint, SourceReader};
use crate::pipeline::load::counters::{BatchOutcome, LoadCounters};
use crate::pipeline::load::encode::{EncodeConfig, Workspace, encode_block};
use crate::pipeline::load::sink::BatchSink;
use crate::pipeline::ordered_queue::{Next, Queue};
use crate::pipeline::thread_group::ThreadGroup;
use crate::pipeline::wait_control::WaitControl;
use crate::store::inflate;
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::open_source::Identity;
use crate::store::source::Source;
use crate::text::ndjson::Block;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// Bytes of lines in a block: a batch in the backend is of this order.
const BLOCK: usize = 512 * 1024;
/// Bytes that a row takes beside its values.
const ROW: usize = 128;
/// Bytes of blocks and rows under way between the threads.
const BUDGET: usize = 8 * 1024 * 1024;

/// One source to load.
#[derive(Debug)]
pub struct LoadInput {
    pub source: Source,
    pub access: ClientConfig,
    pub config: EncodeConfig,
    /// Encode threads, at least one.
    pub threads: usize,
    /// Where to go on; the default is the beginning.
    pub from: Checkpoint,
    /// The part of the source that is loaded; None is the whole.
    pub span: Option<ByteRange>,
    pub division: Option<Division>,
}

/// Set for a source that may be loaded in ranges: then nothing is loaded, and its identity is returned here.
#[derive(Debug, Clone)]
pub struct Division {
    /// Bytes from which on a source is one.
    pub least: u64,
    pub found: Arc<OnceLock<Identity>>,
}

/// From blocks of lines, with where each ends, to batches of rows.
type EncodeQueue = Queue<(Block, Option<Checkpoint>), Batch>;

/// Loads a source into a sink. What ends it is a fault of the source, or too many lines that are rejected.
///
/// # Errors
/// `Source` for a source that fails, `Stopped` where the work is not wanted, and those of the sink.
pub fn load(plan: LoadInput, sink: &mut dyn BatchSink, counters: &mut LoadCounters, control: &mut dyn WaitControl) -> Result<(), Error> {
    let queue = Arc::new(Queue::new(BUDGET)?);
    let group = start(plan, &queue)?;
    loop {
        match queue.next()? {
            Next::Ready(mut batch, size) => {
                let rejects = std::mem::take(&mut batch.rejects);
                counters.read += (batch.rows.len() + rejects.len()) as u64;
                counters.enter(BatchOutcome { rejects, ..BatchOutcome::default() })?;
                sink.store(Rc::new(batch), counters)?;
                queue.release(size);
            }
            Next::Wait => {
                sink.idle()?;
                control.wait(queue.event())?;
            }
            Next::End => break,
        }
    }
    drop(group);
    Ok(())
}

fn start(plan: LoadInput, queue: &Arc<EncodeQueue>) -> Result<ThreadGroup, Error> {
    let interrupt = Interrupt::new();
    let waker = Arc::clone(queue);
    let group = ThreadGroup::new(interrupt.clone(), move || waker.stop());
    let config = Arc::new(plan.config);
    for _ in 0..plan.threads.max(1) {
        let (queue, config) = (Arc::clone(queue), Arc::clone(&config));
        group.spawn("bulk encode", move || {
            let mut workspace = Workspace::default();
            queue.work(|(block, end)| Ok(Batch { end: end.clone(), ..encode_block(&config, block, &mut workspace)? }));
        })?;
    }
    let queue = Arc::clone(queue);
    let (source, access, from, span, division) = (plan.source, plan.access, plan.from, plan.span, plan.division);
    group.spawn("bulk read", move || {
        let opened = || SourceReader::open(&source, &access, &interrupt, &from, span, (BLOCK, config.max_line));
        // At its end it must still be what it was at its beginning.
        let is_same = |identity: &Identity| source.confirm(&access, &interrupt, identity);
        let read = catch_unwind(AssertUnwindSafe(|| read(opened, is_same, division.as_ref(), &config.source, &queue)));
        queue.end(read.unwrap_or_else(|_| Err(Error::Internal("the reading thread panicked".to_owned()))));
    })?;
    Ok(group)
}

fn read(
    open: impl FnOnce() -> Result<SourceReader, SourceFault>,
    is_same: impl FnOnce(&Identity) -> Result<(), SourceFault>,
    division: Option<&Division>,
    name: &str,
    queue: &EncodeQueue,
) -> Result<(), Error> {
    let failed = |fault: SourceFault| Error::source(name, fault);
    let mut reading = open().map_err(failed)?;
    if let Some(division) = division
        && let Some(identity) = reading.divisible(division.least)
    {
        // It is set once: nobody else has it.
        let _ = division.found.set(identity.clone());
        return Ok(());
    }
    while let Some(block) = reading.blocks.next_block().map_err(|error| failed(inflate::fault(&error)))? {
        let size = block.bytes.len() + ROW * block.line_count;
        let end = reading.checkpoint();
        if !queue.put((block, end), size) {
            return Ok(());
        }
    }
    is_same(&reading.identity).map_err(failed)
}
