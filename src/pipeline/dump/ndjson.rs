//! Dump: blocks of rows to NDJSON, as lines or as a body.

use crate::error::{Error, Fault};
use crate::pipeline::dump::render::{Recipe, Writer};
use crate::pipeline::dump::stored_rows::RowBlock;
use crate::pipeline::output_block::{Form, Piece};
use crate::pipeline::parallel_map::Make;

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
