//! Ready pieces to gzip, a member each.

use crate::error::Error;
use crate::pipeline::output_block::{self, Piece};
use crate::pipeline::parallel_map::Make;

#[derive(Debug)]
pub struct Gzip;

impl Make<Piece> for Gzip {
    type Made = Piece;
    type Tools = ();

    fn make(&self, block: &Piece, (): &mut ()) -> Result<Piece, Error> {
        Ok(Piece { bytes: output_block::gzip(&block.bytes)?, values: Vec::new() })
    }
}
