//! Files of the database server.

use super::opened::Opened;
use crate::error::SourceFault;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file; a pipe or a device could hang the thread for ever.
pub fn open(path: &Path) -> Result<Opened, SourceFault> {
    // Without waiting, should it be a pipe; of the open file, so that nobody can put another in its place.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(fault)?;
    if !file.metadata().map_err(fault)?.is_file() {
        return Err(SourceFault::NotAFile);
    }
    Ok(Opened { reader: Box::new(file), delimited: true })
}

fn fault(error: std::io::Error) -> SourceFault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SourceFault::NoSuchFile,
        ErrorKind::PermissionDenied => SourceFault::FileDenied,
        _ => SourceFault::Read(error.to_string()),
    }
}
