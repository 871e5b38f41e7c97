//! A directory of the database server as a store: the files below it by their paths from it.

use crate::error::SourceFault;
use crate::store::file;
use crate::store::interrupt::Interrupt;
use crate::store::object::object_store::{Object, Store, Upload};
use crate::store::open_source::Opened;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use url::Url;
use walkdir::WalkDir;

/// What the name of a file that is still being written begins with.
const UNFINISHED: &str = ".bulk-";

/// A directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    interrupt: Interrupt,
}

impl Directory {
    /// A directory, which need not exist before something is put into it.
    pub fn new(path: &Path, interrupt: &Interrupt) -> Directory {
        Directory { path: path.to_owned(), interrupt: interrupt.clone() }
    }

    /// Every step of a walk asks: a directory may be larger than anybody waits for.
    fn require_running(&self) -> Result<(), SourceFault> {
        if self.interrupt.is_stopped() { Err(SourceFault::Read("interrupted".to_owned())) } else { Ok(()) }
    }

    /// The directory below which all keys of a prefix are.
    fn below(&self, prefix: &str) -> Result<PathBuf, SourceFault> {
        match prefix.rsplit_once('/') {
            Some((directory, _)) if Path::new(directory).components().all(|step| matches!(step, Component::Normal(_))) => {
                Ok(self.path.join(directory))
            }
            _ => Ok(self.path.clone()),
        }
    }

    /// The file of a key, which leads nowhere but below the directory.
    fn file(&self, key: &str) -> Result<PathBuf, SourceFault> {
        let plain = !key.is_empty() && Path::new(key).components().all(|step| matches!(step, Component::Normal(_)));
        if plain { Ok(self.path.join(key)) } else { Err(SourceFault::Unsupported) }
    }
}

impl Store for Directory {
    /// Links to files are files; links to directories are not followed.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> Result<(), SourceFault>) -> Result<(), SourceFault> {
        let mut keys = Vec::new();
        let start = self.below(prefix)?;
        if start != self.path && !start.is_dir() {
            return Ok(());
        }
        for entry in WalkDir::new(start) {
            self.require_running()?;
            let entry = entry.map_err(|error| error.into_io_error().map_or(SourceFault::NoSuchFile, file::fault))?;
            let is_hidden = entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            let is_file = entry.file_type().is_file() || (entry.path_is_symlink() && entry.path().is_file());
            // A path that is no text is no key.
            if let Some(key) = entry.path().strip_prefix(&self.path).ok().and_then(Path::to_str)
                && is_file
                && !is_hidden
                && key.starts_with(prefix)
            {
                keys.push(key.to_owned());
            }
        }
        keys.sort_unstable();
        for key in keys {
            self.require_running()?;
            match self.head(&key) {
                Ok(object) => each(object)?,
                // It went in the meantime.
                Err(SourceFault::NoSuchFile) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    fn head(&self, key: &str) -> Result<Object, SourceFault> {
        let identity = file::identity(&fs::metadata(self.file(key)?).map_err(file::fault)?);
        Ok(Object { key: key.to_owned(), size: identity.length.unwrap_or_default(), etag: identity.etag, modified: identity.modified })
    }

    fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault> {
        let opened = file::open(&self.file(key)?, from)?;
        if from > 0 && opened.identity.length.is_none_or(|length| from >= length) { Err(SourceFault::Changed) } else { Ok(opened) }
    }

    fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault> {
        let path = self.file(key)?;
        let directory = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(directory).map_err(file::fault)?;
        // Beside its place, so that it can be put there at once.
        let beside = directory.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4()));
        let file = File::options().write(true).create_new(true).open(&beside).map_err(file::fault)?;
        Ok(Box::new(FileUpload { path, beside, file }))
    }

    fn delete(&self, key: &str) -> Result<(), SourceFault> {
        match fs::remove_file(self.file(key)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(file::fault(error)),
            _ => Ok(()),
        }
    }

    fn sweep(&self, prefix: &str) -> Result<(), SourceFault> {
        let start = self.below(prefix)?;
        if start == self.path || !start.is_dir() {
            return Ok(());
        }
        for entry in WalkDir::new(&start).contents_first(true) {
            self.require_running()?;
            let entry = entry.map_err(|error| error.into_io_error().map_or(SourceFault::NoSuchFile, file::fault))?;
            if entry.file_type().is_file() && entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(file::fault)?;
            }
        }
        Ok(())
    }

    fn signed_url(&self, key: &str, _: Duration) -> Result<Url, SourceFault> {
        Url::from_file_path(self.file(key)?).map_err(|()| SourceFault::Unsupported)
    }
}

struct FileUpload {
    path: PathBuf,
    beside: PathBuf,
    file: File,
}

impl Upload for FileUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceFault> {
        self.file.write_all(bytes).map_err(file::fault)
    }

    fn finish(self: Box<Self>) -> Result<(), SourceFault> {
        self.file.sync_all().map_err(file::fault)?;
        fs::rename(&self.beside, &self.path).map_err(file::fault)?;
        // The name must last as the bytes do.
        let directory = self.path.parent().unwrap_or(&self.path);
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(file::fault)
    }

    fn abort(self: Box<Self>) -> Result<(), SourceFault> {
        Ok(())
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        // Once it is finished nothing is there.
        let _ = fs::remove_file(&self.beside);
    }
}
