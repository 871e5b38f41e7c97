//! Ready pieces to gzip, a member each.

use super::piece::{self, Piece};
use super::pipe::Make;
use crate::error::Error;

#[derive(Debug)]
pub struct Gzip;

impl Make<Piece> for Gzip {
    type Made = Piece;
    type Tools = ();

    fn make(&self, block: &Piece, (): &mut ()) -> Result<Piece, Error> {
        Ok(Piece { bytes: piece::gzip(&block.bytes)?, values: Vec::new() })
    }
}
