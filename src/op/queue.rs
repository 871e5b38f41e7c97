//! Between the threads of a load: blocks go in, batches come out in the blocks' order, and the bytes under way are bounded.

use super::batch::Batch;
use crate::error::Error;
use crate::fhir::ndjson::Block;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Numbers blocks in the order of the source.
type Sequence = u64;

#[derive(Debug, Default)]
struct State {
    blocks: VecDeque<(Sequence, Block)>,
    ready: BTreeMap<Sequence, Result<(Batch, usize), Error>>,
    next_in: Sequence,
    next_out: Sequence,
    /// Blocks in all, once the source has ended.
    total: Option<Sequence>,
    /// Bytes of blocks read and not yet stored.
    under_way: usize,
    stopped: bool,
}

/// The queue of one load.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable when `next` may have something new.
    event: EventFd,
    /// Bytes that may be under way; a block larger than that goes alone.
    budget: usize,
}

/// What the main thread finds.
pub enum Next {
    /// A batch, and the bytes to give back when it is stored.
    Batch(Batch, usize),
    /// Nothing yet: wait for the event.
    Wait,
    /// All is done.
    End,
}

impl Queue {
    pub fn new(budget: usize) -> Result<Queue, Error> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| Error::Internal(format!("could not make an eventfd: {error}")))?;
        Ok(Queue { state: Mutex::default(), changed: Condvar::new(), event, budget })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Reader: hands a block on when there is room for it. False when the load has ended.
    pub fn put(&self, block: Block) -> bool {
        let size = block.bytes.len();
        let mut state = self.lock();
        while !state.stopped && state.under_way > 0 && state.under_way + size > self.budget {
            state = self.wait(state);
        }
        if state.stopped {
            return false;
        }
        state.under_way += size;
        let sequence = state.next_in;
        state.next_in += 1;
        state.blocks.push_back((sequence, block));
        self.changed.notify_all();
        true
    }

    /// Reader: the source has ended, or failed behind all blocks that were put.
    pub fn end(&self, result: Result<(), Error>) {
        let mut state = self.lock();
        let mut total = state.next_in;
        if let Err(error) = result {
            state.ready.insert(total, Err(error));
            total += 1;
        }
        state.total = Some(total);
        self.changed.notify_all();
        self.signal();
    }

    /// Encoder: the next block to work on. None when there will be no more.
    pub fn take(&self) -> Option<(Sequence, Block)> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(next) = state.blocks.pop_front() {
                return Some(next);
            }
            if state.total.is_some() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Encoder: what became of a block of `size` bytes.
    pub fn done(&self, sequence: Sequence, size: usize, result: Result<Batch, Error>) {
        self.lock().ready.insert(sequence, result.map(|batch| (batch, size)));
        self.signal();
    }

    /// Main: the next batch in order.
    pub fn next(&self) -> Result<Next, Error> {
        // Before the look at the state, so that what comes after it wakes us.
        let _ = self.event.read();
        let mut state = self.lock();
        let sequence = state.next_out;
        if let Some(result) = state.ready.remove(&sequence) {
            state.next_out += 1;
            return result.map(|(batch, size)| Next::Batch(batch, size));
        }
        Ok(if state.total == Some(sequence) { Next::End } else { Next::Wait })
    }

    /// Main: a batch is stored and gone.
    pub fn release(&self, size: usize) {
        self.lock().under_way -= size;
        self.changed.notify_all();
    }

    /// Ends all waiting.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn signal(&self) {
        // Fails only when the counter is full, which is readable.
        let _ = self.event.write(1);
    }
}
