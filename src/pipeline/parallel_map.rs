//! Blocks of rows → queue bounded by bytes → threads that make something of them → what they made, in order. The first block is worked on
//! by the main thread: a small table is done before threads would have started.

use crate::error::Error;
use crate::pipeline::ordered_queue::{Next, Queue};
use crate::pipeline::thread_group::ThreadGroup;
use crate::pipeline::wait_control::WaitControl;
use crate::store::interrupt::Interrupt;
use std::sync::Arc;

/// How large a block shall be, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    /// Inflated.
    pub bytes: usize,
    pub rows: usize,
}

impl BlockSize {
    /// Of the first block, so that the first line comes soon.
    pub const FIRST: BlockSize = BlockSize { bytes: 16 * 1024, rows: 64 };
    /// Of a later block.
    pub const LATER: BlockSize = BlockSize { bytes: 256 * 1024, rows: 4096 };
}

/// Bytes of blocks under way.
const BUDGET: usize = 4 * 1024 * 1024;

/// A block, perhaps without rows.
#[derive(Debug)]
pub struct Fetched<B> {
    pub block: B,
    /// Bytes that it counts for, and rows.
    pub bytes: usize,
    pub rows: usize,
    /// False behind the last row.
    pub more: bool,
}

/// Where blocks come from. Called on the main thread.
pub trait BlockSource {
    type Block: Send + 'static;

    fn next(&mut self, size: BlockSize) -> Result<Fetched<Self::Block>, Error>;
}

/// What is made of a block, on any thread.
pub trait BlockTransform<B>: Send + Sync + 'static {
    type Made: Send + 'static;
    /// Memory that a thread reuses.
    type Tools: Default;

    fn transform(&self, block: &B, tools: &mut Self::Tools) -> Result<Self::Made, Error>;
}

/// A pipe under way. Its threads end with it.
pub struct ParallelMap<F: BlockSource, M: BlockTransform<F::Block>> {
    source: F,
    maker: Arc<M>,
    /// At least one.
    threads: usize,
    /// Bytes that a row takes on its way out beside those that it came in with.
    row_cost: usize,
    /// Of a block.
    most_rows: usize,
    started: bool,
    workers: Option<Workers<F::Block, M::Made>>,
    fed_all: bool,
    /// Bytes of what was given out last.
    given: usize,
}

type SharedQueue<F, M> = Arc<Queue<<F as BlockSource>::Block, <M as BlockTransform<<F as BlockSource>::Block>>::Made>>;

struct Workers<B, O> {
    queue: Arc<Queue<B, O>>,
    _crew: ThreadGroup,
}

impl<F: BlockSource, M: BlockTransform<F::Block>> ParallelMap<F, M> {
    /// Blocks of `source` through `maker`, on so many threads once a block is large enough for them.
    pub fn new(source: F, maker: M, threads: usize) -> ParallelMap<F, M> {
        ParallelMap {
            source,
            maker: Arc::new(maker),
            threads: threads.max(1),
            row_cost: 0,
            most_rows: usize::MAX,
            started: false,
            workers: None,
            fed_all: false,
            given: 0,
        }
    }

    /// The same for rows that grow by so many bytes each.
    pub fn with_row_cost(mut self, bytes: usize) -> ParallelMap<F, M> {
        self.row_cost = bytes;
        self
    }

    /// The same in blocks of at most so many rows.
    pub fn with_most_rows(mut self, rows: usize) -> ParallelMap<F, M> {
        self.most_rows = rows.max(1);
        self
    }

    /// What was made of the next block; None at the end. At least one block comes, without rows where there are none.
    ///
    /// # Errors
    /// The error of the block whose turn it is, of the source, or of the wait.
    pub fn next(&mut self, control: &mut dyn WaitControl) -> Result<Option<M::Made>, Error> {
        if !self.started {
            self.started = true;
            let first = self.source.next(BlockSize { rows: BlockSize::FIRST.rows.min(self.most_rows), ..BlockSize::FIRST })?;
            self.fed_all = !first.more;
            return self.maker.transform(&first.block, &mut M::Tools::default()).map(Some);
        }
        if self.fed_all && self.workers.is_none() {
            return Ok(None);
        }
        let queue = self.queue()?;
        queue.release(std::mem::take(&mut self.given));
        loop {
            self.feed(&queue)?;
            match queue.next()? {
                Next::Ready(made, size) => {
                    self.given = size;
                    return Ok(Some(made));
                }
                Next::Wait => control.wait(queue.event())?,
                Next::End => {
                    self.workers = None;
                    return Ok(None);
                }
            }
        }
    }

    /// The queue, its threads started at the first call.
    fn queue(&mut self) -> Result<SharedQueue<F, M>, Error> {
        if let Some(workers) = &self.workers {
            return Ok(Arc::clone(&workers.queue));
        }
        let queue = Arc::new(Queue::new(BUDGET)?);
        let waker = Arc::clone(&queue);
        let group = ThreadGroup::new(Interrupt::new(), move || waker.stop());
        for _ in 0..self.threads {
            let (queue, maker) = (Arc::clone(&queue), Arc::clone(&self.maker));
            group.spawn("bulk dump", move || {
                let mut tools = M::Tools::default();
                queue.work(|block| maker.transform(block, &mut tools));
            })?;
        }
        self.workers = Some(Workers { queue: Arc::clone(&queue), _crew: group });
        Ok(queue)
    }

    fn feed(&mut self, queue: &Queue<F::Block, M::Made>) -> Result<(), Error> {
        while !self.fed_all && queue.has_room() {
            let most = BlockSize::LATER.bytes / self.row_cost.max(1);
            let Fetched { block, bytes, rows, more } =
                self.source.next(BlockSize { rows: BlockSize::LATER.rows.min(most).clamp(1, self.most_rows), ..BlockSize::LATER })?;
            if rows > 0 {
                queue.push(block, bytes + rows * self.row_cost);
            }
            self.fed_all = !more;
            if self.fed_all {
                queue.end(Ok(()));
            }
        }
        Ok(())
    }
}
