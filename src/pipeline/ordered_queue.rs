//! Between threads: blocks go in, what was made of them comes out in the blocks' order, and the bytes under way are bounded.

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::error::Error;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

/// Numbers blocks in their order.
type Sequence = u64;

/// A block to work on.
#[derive(Debug)]
pub struct Work<I> {
    sequence: Sequence,
    /// Bytes that it counts for.
    size: usize,
    pub block: I,
}

#[derive(Debug)]
struct State<I, O> {
    blocks: VecDeque<Work<I>>,
    ready: BTreeMap<Sequence, (Result<O, Error>, usize)>,
    next_in: Sequence,
    next_out: Sequence,
    /// Blocks in all, once there will be no more.
    total: Option<Sequence>,
    /// Bytes of blocks that went in and are not yet released.
    under_way: usize,
    stopped: bool,
}

impl<I, O> Default for State<I, O> {
    fn default() -> State<I, O> {
        State { blocks: VecDeque::new(), ready: BTreeMap::new(), next_in: 0, next_out: 0, total: None, under_way: 0, stopped: false }
    }
}

/// The queue of one operation, from blocks `I` to results `O`.
#[derive(Debug)]
pub struct Queue<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
    /// Readable when `next` may have something new.
    event: EventFd,
    /// Bytes that may be under way; a block larger than that goes alone.
    budget: usize,
}

/// What the main thread finds.
pub enum Next<O> {
    /// A result, and the bytes to release when it is used up.
    Ready(O, usize),
    /// Nothing yet: wait for the event.
    Wait,
    /// All is done.
    End,
}

impl<I, O> Queue<I, O> {
    /// A queue of so many bytes under way.
    ///
    /// # Errors
    /// `Internal` where the process has no file descriptor left.
    pub fn new(budget: usize) -> Result<Queue<I, O>, Error> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| Error::Internal(format!("could not make an eventfd: {error}")))?;
        Ok(Queue { state: Mutex::default(), changed: Condvar::new(), event, budget })
    }

    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<I, O>>) -> MutexGuard<'a, State<I, O>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A feeding thread: hands a block on when there is room for its bytes. False when the operation has ended.
    pub fn put(&self, block: I, size: usize) -> bool {
        let mut state = self.lock();
        while !state.stopped && state.under_way > 0 && state.under_way + size > self.budget {
            state = self.wait(state);
        }
        if state.stopped {
            return false;
        }
        state.push(block, size);
        self.changed.notify_all();
        true
    }

    /// The main thread, when it feeds: whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.lock().under_way < self.budget
    }

    /// The main thread, when it feeds: hands a block on without waiting.
    pub fn push(&self, block: I, size: usize) {
        self.lock().push(block, size);
        self.changed.notify_all();
    }

    /// There will be no more blocks; an error comes behind all that went in.
    pub fn end(&self, result: Result<(), Error>) {
        let mut state = self.lock();
        let mut total = state.next_in;
        if let Err(error) = result {
            state.ready.insert(total, (Err(error), 0));
            total += 1;
        }
        state.total = Some(total);
        self.changed.notify_all();
        self.signal();
    }

    /// A working thread: the next block. None when there will be no more.
    pub fn take(&self) -> Option<Work<I>> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(work) = state.blocks.pop_front() {
                return Some(work);
            }
            if state.total.is_some() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// A working thread: works off blocks until there are no more. A panic is the block's error.
    pub fn work(&self, mut make: impl FnMut(&I) -> Result<O, Error>) {
        while let Some(Work { sequence, size, block }) = self.take() {
            let result = catch_unwind(AssertUnwindSafe(|| make(&block)));
            drop(block);
            let result = result.unwrap_or_else(|_| Err(Error::Internal("a thread panicked".to_owned())));
            self.lock().ready.insert(sequence, (result, size));
            self.signal();
        }
    }

    /// The main thread: the next result in order.
    ///
    /// # Errors
    /// The error of the block whose turn it is, or of the feeder.
    pub fn next(&self) -> Result<Next<O>, Error> {
        // Before the look at the state, so that what comes after it wakes us.
        let _ = self.event.read();
        let mut state = self.lock();
        let sequence = state.next_out;
        if let Some((result, size)) = state.ready.remove(&sequence) {
            state.next_out += 1;
            return result.map(|made| Next::Ready(made, size));
        }
        Ok(if state.total == Some(sequence) { Next::End } else { Next::Wait })
    }

    /// The main thread: a result is used up.
    pub fn release(&self, size: usize) {
        self.lock().under_way -= size;
        self.changed.notify_all();
    }

    /// Ends all waiting.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Readable when `next` may have something new.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    fn signal(&self) {
        // Fails only when the counter is full, which is readable.
        let _ = self.event.write(1);
    }
}

impl<I, O> State<I, O> {
    fn push(&mut self, block: I, size: usize) {
        self.under_way += size;
        self.blocks.push_back(Work { sequence: self.next_in, size, block });
        self.next_in += 1;
    }
}
