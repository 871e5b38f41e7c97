//! Objects on their way to a store: a thread writes what the main thread hands it, and the bytes that wait are bounded.

use crate::error::{Error, SourceFault};
use crate::pipeline::ordered_queue::{Next, Queue};
use crate::pipeline::thread_group::ThreadGroup;
use crate::pipeline::wait_control::WaitControl;
use crate::store::bucket::Bucket;
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::object::object_store::Upload;
use std::sync::Arc;

/// Bytes that wait.
const BUDGET: usize = 4 << 20;

enum UploadCommand {
    Open(String),
    Bytes(Vec<u8>),
    Close,
}

/// A store's thread. Dropped, it leaves no object that is not whole.
pub struct Uploader {
    queue: Arc<Queue<UploadCommand, ()>>,
    _crew: ThreadGroup,
}

impl Uploader {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Internal` where no thread or file descriptor is left.
    pub fn new(bucket: Bucket, access: ClientConfig) -> Result<Uploader, Error> {
        let queue = Arc::new(Queue::new(BUDGET)?);
        let (waker, worker) = (Arc::clone(&queue), Arc::clone(&queue));
        let interrupt = Interrupt::new();
        let group = ThreadGroup::new(interrupt.clone(), move || waker.stop());
        group.spawn("bulk write", move || {
            let url = bucket.url();
            let fault = |fault: SourceFault| Error::source(&url, fault);
            // Kept until the end: a client's connections are its own.
            let store = bucket.store(&access, &interrupt);
            let mut upload: Option<Box<dyn Upload + '_>> = None;
            worker.work(|parcel| {
                let store = store.as_ref().map_err(|error| fault(error.clone()))?;
                match (parcel, upload.take()) {
                    (UploadCommand::Open(key), _) => upload = Some(store.put(key).map_err(fault)?),
                    (UploadCommand::Bytes(bytes), Some(mut open)) => {
                        open.write(bytes).map_err(fault)?;
                        upload = Some(open);
                    }
                    (UploadCommand::Close, Some(open)) => open.finish().map_err(fault)?,
                    // Behind an error, which comes out before this one.
                    (_, None) => return Err(Error::Internal("nothing is being written".to_owned())),
                }
                Ok(())
            });
        })?;
        Ok(Uploader { queue, _crew: group })
    }

    /// Begins an object.
    ///
    /// # Errors
    /// `Source` where the store failed, of this or an earlier command.
    pub fn open(&mut self, control: &mut dyn WaitControl, key: &str) -> Result<(), Error> {
        self.put(control, UploadCommand::Open(key.to_owned()), 0)
    }

    /// Adds to it, once there is room for more.
    ///
    /// # Errors
    /// As `open`.
    pub fn write(&mut self, control: &mut dyn WaitControl, bytes: Vec<u8>) -> Result<(), Error> {
        let size = bytes.len();
        self.put(control, UploadCommand::Bytes(bytes), size)
    }

    /// Ends it: it will be there.
    ///
    /// # Errors
    /// As `open`.
    pub fn close(&mut self, control: &mut dyn WaitControl) -> Result<(), Error> {
        self.put(control, UploadCommand::Close, 0)
    }

    fn put(&mut self, control: &mut dyn WaitControl, parcel: UploadCommand, size: usize) -> Result<(), Error> {
        loop {
            match self.queue.next()? {
                Next::Ready((), size) => self.queue.release(size),
                Next::Wait if self.queue.has_room() => break,
                Next::Wait => control.wait(self.queue.event())?,
                Next::End => return Err(Error::Internal("a thread ended".to_owned())),
            }
        }
        self.queue.push(parcel, size);
        Ok(())
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// As `open`.
    pub fn finish(self, control: &mut dyn WaitControl) -> Result<(), Error> {
        self.queue.end(Ok(()));
        loop {
            match self.queue.next()? {
                Next::Ready((), size) => self.queue.release(size),
                Next::Wait => control.wait(self.queue.event())?,
                Next::End => return Ok(()),
            }
        }
    }
}
