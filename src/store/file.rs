//! Files of the database server.

use super::source::Opened;
use crate::error::SourceFault;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

/// Opens a regular file; a pipe or a device could hang the thread for ever.
pub fn open(path: &Path) -> Result<Opened, SourceFault> {
    if !fs::metadata(path).map_err(fault)?.is_file() {
        return Err(SourceFault::NotAFile);
    }
    let file = File::open(path).map_err(fault)?;
    Ok(Opened { reader: Box::new(file), delimited: true })
}

fn fault(error: std::io::Error) -> SourceFault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SourceFault::NoSuchFile,
        ErrorKind::PermissionDenied => SourceFault::FileDenied,
        _ => SourceFault::Read(error.to_string()),
    }
}
