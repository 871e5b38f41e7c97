//! Dump: rows → queue bounded by bytes → threads that write lines and compress them → pieces, in order. A small table is written
//! on the main thread: its threads would cost more than they save.

use super::Control;
use super::crew::Crew;
use super::line::{Recipe, Writer};
use super::queue::{Next, Queue};
use super::rows::{RowBlock, Rows, StoredRow};
use crate::error::{Error, Fault};
use crate::jsonb::varlena;
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

/// Of gzip. With zlib-rs, level 1 is a third larger than `gzip -1` makes it; level 2 is 5 % smaller and a fifth slower than 1.
const LEVEL: u32 = 2;

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

/// What became of a block. Of `Form::Lines` each line is a value ready for PostgreSQL: a whole varlena (a header of 4 bytes, then the data)
/// that starts at a multiple of 4 from the start of the buffer.
#[derive(Debug, Default)]
pub struct Piece {
    pub bytes: Vec<u8>,
    /// Where each line's value starts.
    pub values: Vec<usize>,
}

impl Piece {
    /// What no rows become.
    pub fn empty(form: Form) -> Result<Piece, Error> {
        let bytes = if form == Form::Gzip { gzip(&[])? } else { Vec::new() };
        Ok(Piece { bytes, values: Vec::new() })
    }

    /// Opens a value.
    fn begin(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(varlena::HEADER), 0);
        self.values.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; varlena::HEADER]);
    }

    /// Closes the value that `begin` opened. False when it is too large.
    #[must_use]
    fn end(&mut self) -> bool {
        self.values.last().is_some_and(|&start| varlena::close(&mut self.bytes[start..]))
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
            let mut block = RowBlock::with_capacity(BLOCK.0 + BLOCK.0 / 8)?;
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
    let wrong = |row: &StoredRow, fault| Error::Row {
        table: plan.recipe.table.clone(),
        id: String::from_utf8_lossy(row.id).chars().take(100).collect(),
        fault,
    };
    let mut piece = Piece::default();
    piece.bytes.try_reserve(block.size() + block.size() / 4 + 192 * block.len()).map_err(|_| Error::Memory)?;
    for row in block.iter() {
        if plan.form == Form::Lines {
            piece.begin();
        }
        writer.line(&plan.recipe, &row, &mut piece.bytes).map_err(|fault| wrong(&row, fault))?;
        match plan.form {
            Form::Lines if !piece.end() => return Err(wrong(&row, Fault::TooLarge)),
            Form::Lines => {}
            Form::Body | Form::Gzip => piece.bytes.push(b'\n'),
        }
    }
    if plan.form == Form::Gzip {
        piece.bytes = gzip(&piece.bytes)?;
    }
    Ok(piece)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |error: std::io::Error| Error::Internal(error.to_string());
    let mut out = Vec::new();
    // What cannot be compressed grows by a few bytes in each 16 KB.
    out.try_reserve(bytes.len() + bytes.len() / 256 + 1024).map_err(|_| Error::Memory)?;
    let mut encoder = GzEncoder::new(out, Compression::new(LEVEL));
    encoder.write_all(bytes).map_err(broken)?;
    encoder.finish().map_err(broken)
}
