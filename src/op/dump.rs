//! Dump: rows → queue bounded by bytes → threads that write lines and compress them → pieces, in order. A small table is written
//! on the main thread: its threads would cost more than they save.

use super::Control;
use super::crew::Crew;
use super::line::{Recipe, Writer};
use super::queue::{Next, Queue};
use super::rows::{RowBlock, Rows};
use crate::error::Error;
use crate::store::Interrupt;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::sync::Arc;

/// Bytes (inflated) and rows of the first block, so that the first line comes soon.
const FIRST: (usize, usize) = (16 * 1024, 64);
/// Bytes and rows of a later block.
const BLOCK: (usize, usize) = (256 * 1024, 4096);
/// Bytes of blocks under way.
const BUDGET: usize = 4 * 1024 * 1024;

/// What a block of rows becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines without ends, apart from one another.
    Lines,
    /// Lines with ends.
    Body,
    /// The same as one gzip member.
    Gzip,
}

/// What became of a block.
#[derive(Debug, Default)]
pub struct Piece {
    pub bytes: Vec<u8>,
    /// Where each line ends, for `Form::Lines`.
    pub ends: Vec<usize>,
}

impl Piece {
    /// What no rows become.
    pub fn empty(form: Form) -> Piece {
        let bytes = if form == Form::Gzip { gzip(&[]).unwrap_or_default() } else { Vec::new() };
        Piece { bytes, ends: Vec::new() }
    }
}

/// What a dump is made by.
#[derive(Debug, Clone)]
pub struct Plan {
    pub recipe: Recipe,
    pub form: Form,
    /// Threads, at least one.
    pub threads: usize,
}

/// A dump under way. Its threads end with it.
pub struct Dump<R> {
    rows: R,
    plan: Arc<Plan>,
    started: bool,
    workers: Option<Workers>,
    fed_all: bool,
    /// Bytes of the piece that was given out last.
    given: usize,
}

struct Workers {
    queue: Arc<Queue<RowBlock, Piece>>,
    _crew: Crew,
}

impl<R: Rows> Dump<R> {
    pub fn new(rows: R, plan: Plan) -> Dump<R> {
        Dump { rows, plan: Arc::new(plan), started: false, workers: None, fed_all: false, given: 0 }
    }

    /// The next piece; None at the end.
    pub fn next_piece(&mut self, control: &mut dyn Control) -> Result<Option<Piece>, Error> {
        if !self.started {
            self.started = true;
            return self.first();
        }
        if self.fed_all && self.workers.is_none() {
            return Ok(None);
        }
        let queue = self.queue()?;
        queue.release(std::mem::take(&mut self.given));
        loop {
            self.feed(&queue)?;
            match queue.next()? {
                Next::Ready(piece, size) => {
                    self.given = size;
                    return Ok(Some(piece));
                }
                Next::Wait => control.wait(queue.event()),
                Next::End => {
                    self.workers = None;
                    return Ok(None);
                }
            }
        }
    }

    /// The first rows, written here and now.
    fn first(&mut self) -> Result<Option<Piece>, Error> {
        let mut block = RowBlock::default();
        self.fed_all = !self.rows.fill(&mut block, FIRST.0, FIRST.1)?;
        make(&self.plan, &block, &mut Writer::default()).map(Some)
    }

    /// The queue, its threads started at the first call.
    fn queue(&mut self) -> Result<Arc<Queue<RowBlock, Piece>>, Error> {
        if let Some(workers) = &self.workers {
            return Ok(Arc::clone(&workers.queue));
        }
        let queue = Arc::new(Queue::new(BUDGET)?);
        let waker = Arc::clone(&queue);
        let crew = Crew::new(Interrupt::new(), move || waker.stop());
        for _ in 0..self.plan.threads.max(1) {
            let (queue, plan) = (Arc::clone(&queue), Arc::clone(&self.plan));
            crew.spawn("bulk dump", move || {
                let mut writer = Writer::default();
                queue.work(|block| make(&plan, block, &mut writer));
            })?;
        }
        self.workers = Some(Workers { queue: Arc::clone(&queue), _crew: crew });
        Ok(queue)
    }

    fn feed(&mut self, queue: &Queue<RowBlock, Piece>) -> Result<(), Error> {
        while !self.fed_all && queue.has_room() {
            let mut block = RowBlock::default();
            self.fed_all = !self.rows.fill(&mut block, BLOCK.0, BLOCK.1)?;
            if !block.is_empty() {
                let size = block.size();
                queue.push(block, size);
            }
            if self.fed_all {
                queue.end(Ok(()));
            }
        }
        Ok(())
    }
}

fn make(plan: &Plan, block: &RowBlock, writer: &mut Writer) -> Result<Piece, Error> {
    let mut piece = Piece::default();
    let out = &mut piece.bytes;
    out.try_reserve(block.size() + block.size() / 4 + 192 * block.len()).map_err(|_| Error::Memory)?;
    for row in block.iter() {
        writer.line(&plan.recipe, &row, out).map_err(|fault| Error::Row {
            table: plan.recipe.table.clone(),
            id: String::from_utf8_lossy(row.id).chars().take(100).collect(),
            fault,
        })?;
        match plan.form {
            Form::Lines => piece.ends.push(out.len()),
            Form::Body | Form::Gzip => out.push(b'\n'),
        }
    }
    if plan.form == Form::Gzip {
        piece.bytes = gzip(&piece.bytes)?;
    }
    Ok(piece)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |error: std::io::Error| Error::Internal(error.to_string());
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8 + 64), Compression::fast());
    encoder.write_all(bytes).map_err(broken)?;
    encoder.finish().map_err(broken)
}
