//! Files of the database server.

use crate::error::SourceFault;
use crate::store::open_source::{Identity, Opened};
use nix::fcntl::OFlag;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file at a byte; a pipe or a device could hang the thread for ever.
///
/// # Errors
/// `NoSuchFile`, `NotAFile`, `FileDenied`, `Read`.
pub fn open(path: &Path, from: u64) -> Result<Opened, SourceFault> {
    // Without waiting, should it be a pipe; of the open file, so that nobody can put another in its place.
    let mut file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(fault)?;
    let facts = file.metadata().map_err(fault)?;
    if !facts.is_file() {
        return Err(SourceFault::NotAFile);
    }
    file.seek(SeekFrom::Start(from)).map_err(fault)?;
    Ok(Opened { reader: Box::new(file), delimited: true, ranged: true, identity: identity(&facts) })
}

/// What tells a file's content from another.
pub fn identity(facts: &Metadata) -> Identity {
    let modified = facts.modified().ok().map(httpdate::fmt_http_date);
    let etag = format!("{:x}-{:x}-{:x}-{:x}.{:x}", facts.dev(), facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec());
    Identity { length: Some(facts.len()), etag: Some(etag), modified, inode_changed: Some((facts.ctime(), facts.ctime_nsec())) }
}

/// What an error of the operating system means.
pub fn fault(error: std::io::Error) -> SourceFault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SourceFault::NoSuchFile,
        ErrorKind::PermissionDenied => SourceFault::FileDenied,
        _ => SourceFault::Read(error.to_string()),
    }
}
