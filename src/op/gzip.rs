//! Ready pieces to gzip, a member each.

use crate::error::Error;
use crate::op::piece::{self, Piece};
use crate::op::pipe::Make;

#[derive(Debug)]
pub struct Gzip;

impl Make<Piece> for Gzip {
    type Made = Piece;
    type Tools = ();

    fn make(&self, block: &Piece, (): &mut ()) -> Result<Piece, Error> {
        Ok(Piece { bytes: piece::gzip(&block.bytes)?, values: Vec::new() })
    }
}
