//! Dump: blocks of rows to NDJSON, as lines or as a body.

use crate::error::{Error, Fault};
use crate::op::line::{Recipe, Writer};
use crate::op::piece::{Form, Piece};
use crate::op::pipe::Make;
use crate::op::rows::RowBlock;

/// What lines are made by, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Ndjson {
    pub recipe: Recipe,
    pub form: Form,
}

impl Make<RowBlock> for Ndjson {
    type Made = Piece;
    type Tools = Writer;

    fn make(&self, block: &RowBlock, writer: &mut Writer) -> Result<Piece, Error> {
        let mut piece = Piece::default();
        piece.reserve(block.size() + block.size() / 4 + 192 * block.len())?;
        for row in block.iter() {
            piece.begin(self.form);
            writer.line(&self.recipe, &row, &mut piece.bytes).map_err(|fault| row.error(&self.recipe.table, fault))?;
            if !piece.end(self.form) {
                return Err(row.error(&self.recipe.table, Fault::TooLarge));
            }
        }
        piece.finish(self.form)
    }
}
