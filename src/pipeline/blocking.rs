//! What takes long and needs no database, on a thread of its own: the main thread waits for it, and can be ended meanwhile.

use crate::error::Error;
use crate::pipeline::thread_group::ThreadGroup;
use crate::pipeline::wait_control::WaitControl;
use crate::store::interrupt::Interrupt;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// What comes of `work`, which ends soon once it is interrupted.
///
/// # Errors
/// Those of `work`, and `Internal` where no thread is left. A cancel while it waits is raised.
pub fn run<T: Send + 'static>(
    control: &mut dyn WaitControl,
    work: impl FnOnce(&Interrupt) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|error| Error::Internal(format!("could not make an eventfd: {error}")))?;
    let shared = Arc::new((Mutex::new(None), event));
    let interrupt = Interrupt::new();
    let group = ThreadGroup::new(interrupt.clone(), || {});
    let answer = Arc::clone(&shared);
    group.spawn("bulk blocking", move || {
        let done = catch_unwind(AssertUnwindSafe(|| work(&interrupt)));
        let done = done.unwrap_or_else(|_| Err(Error::Internal("a thread panicked".to_owned())));
        *answer.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        // It fails only when the counter is full, which is readable.
        let _ = answer.1.write(1);
    })?;
    loop {
        if let Some(done) = shared.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return done;
        }
        control.wait(shared.1.as_fd())?;
    }
}
