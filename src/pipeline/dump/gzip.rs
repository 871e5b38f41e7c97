//! Ready pieces to gzip, a member each.

use crate::error::Error;
use crate::pipeline::output_block::{self, OutputBlock};
use crate::pipeline::parallel_map::BlockTransform;

/// Compresses a piece to one gzip member.
#[derive(Debug)]
pub struct Gzip;

impl BlockTransform<OutputBlock> for Gzip {
    type Made = OutputBlock;
    type Tools = ();

    fn transform(&self, block: &OutputBlock, (): &mut ()) -> Result<OutputBlock, Error> {
        Ok(OutputBlock { bytes: output_block::gzip(&block.bytes)?, values: Vec::new() })
    }
}
