//! The values of a set-returning function, given out where they lie: what the threads made is not copied once more.

use crate::jsonb::varlena;
use crate::pg::sys::switch_user::Confined;
use crate::pipeline::output_block::OutputBlock;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys;

/// A whole varlena of type text or bytea. Valid until the next value is asked for, which is as long as PostgreSQL needs it: the
/// executor is through with a row, or has copied it, before it asks for the next.
#[derive(Debug)]
pub struct Varlena(*const u8);

pgrx::impl_sql_translatable!(Varlena, "bytea");

// SAFETY: a datum of the type that the function's SQL declares.
unsafe impl BoxRet for Varlena {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the datum of a void result, or one that lives in the caller's memory context.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

/// The lines of pieces, one after another.
pub struct TextRows<I> {
    pieces: I,
    /// Kept until its last line is used.
    piece: OutputBlock,
    next: usize,
}

impl<I> TextRows<I> {
    /// One row for each value of each piece.
    pub fn new(pieces: I) -> TextRows<I> {
        TextRows { pieces, piece: OutputBlock::default(), next: 0 }
    }
}

impl<I: Iterator<Item = OutputBlock>> Iterator for TextRows<I> {
    type Item = Varlena;

    fn next(&mut self) -> Option<Varlena> {
        while self.next == self.piece.values.len() {
            self.piece = confined(&mut self.pieces)?;
            self.next = 0;
        }
        let start = self.piece.values[self.next];
        self.next += 1;
        Some(Varlena(self.piece.bytes[start..].as_ptr()))
    }
}

/// The next piece. What a query calls meanwhile cannot become another role, between the pieces the caller can.
fn confined(pieces: &mut impl Iterator<Item = OutputBlock>) -> Option<OutputBlock> {
    let _confined = Confined::enter();
    pieces.next()
}

/// Bytes of a chunk.
const CHUNK: usize = 64 * 1024;

/// The bytes of pieces of any size as chunks of one size; only the last may be smaller.
pub struct Chunks<I> {
    pieces: I,
    piece: OutputBlock,
    /// Bytes of the piece that were given out.
    given: usize,
    chunk: Vec<u8>,
}

impl<I> Chunks<I> {
    /// Chunks of 64 KiB.
    pub fn new(pieces: I) -> Chunks<I> {
        Chunks { pieces, piece: OutputBlock::default(), given: 0, chunk: Vec::with_capacity(varlena::HEADER + CHUNK) }
    }
}

impl<I: Iterator<Item = OutputBlock>> Iterator for Chunks<I> {
    type Item = Varlena;

    fn next(&mut self) -> Option<Varlena> {
        self.chunk.clear();
        self.chunk.extend_from_slice(&[0; varlena::HEADER]);
        while self.chunk.len() < varlena::HEADER + CHUNK {
            if self.given == self.piece.bytes.len() {
                let Some(piece) = confined(&mut self.pieces) else { break };
                self.piece = piece;
                self.given = 0;
            }
            let wanted = varlena::HEADER + CHUNK - self.chunk.len();
            let rest = &self.piece.bytes[self.given..];
            let part = &rest[..rest.len().min(wanted)];
            self.chunk.extend_from_slice(part);
            self.given += part.len();
        }
        let whole = self.chunk.len() > varlena::HEADER && varlena::close(&mut self.chunk);
        whole.then_some(Varlena(self.chunk.as_ptr()))
    }
}
