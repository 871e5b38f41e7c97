//! Dump: blocks of rows to NDJSON, as lines or as a body.

use crate::error::{Error, Fault};
use crate::pipeline::dump::render::{RenderConfig, Writer};
use crate::pipeline::dump::stored_rows::RowBlock;
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use crate::pipeline::parallel_map::BlockTransform;

/// What lines are made by, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Ndjson {
    pub config: RenderConfig,
    pub form: OutputEncoding,
}

impl BlockTransform<RowBlock> for Ndjson {
    type Made = OutputBlock;
    type Tools = Writer;

    fn transform(&self, block: &RowBlock, writer: &mut Writer) -> Result<OutputBlock, Error> {
        let mut piece = OutputBlock::default();
        piece.reserve(block.size() + block.size() / 4 + 192 * block.len())?;
        for row in block.iter() {
            piece.begin(self.form);
            writer.line(&self.config, &row, &mut piece.bytes).map_err(|fault| row.error(&self.config.table, fault))?;
            if !piece.end(self.form) {
                return Err(row.error(&self.config.table, Fault::TooLarge));
            }
        }
        piece.finish(self.form)
    }
}
