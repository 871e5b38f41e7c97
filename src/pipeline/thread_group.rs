//! The threads of one operation. They never see a signal (those are the main thread's), and they end when the operation
//! does, however it ends.

use crate::error::Error;
use crate::store::interrupt::Interrupt;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How long ending waits for threads. One that hangs in a connect or a name look-up, which nothing can interrupt, is left
/// behind and ends with that: it owns all that it uses.
const EXIT_TIMEOUT: Duration = Duration::from_millis(300);
/// How much lower the threads' priority is than the main thread's.
const NICENESS: i32 = 10;
/// Deep JSON is parsed on these.
const STACK: usize = 8 * 1024 * 1024;

/// The crews of this process that may still run, for `stop_all`.
static CREWS: Mutex<Vec<Weak<GroupState>>> = Mutex::new(Vec::new());

struct GroupState {
    count: Mutex<usize>,
    ended: Condvar,
    interrupt: Interrupt,
    /// Wakes threads of the operation that wait for one another.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// Threads that end when this is dropped.
pub struct ThreadGroup(Arc<GroupState>);

impl ThreadGroup {
    /// A crew without threads. `wake` is called by `stop` after the interrupt is set.
    pub fn new(interrupt: Interrupt, wake: impl Fn() + Send + Sync + 'static) -> ThreadGroup {
        let alive = Arc::new(GroupState { count: Mutex::new(0), ended: Condvar::new(), interrupt, wake: Box::new(wake) });
        let mut crews = CREWS.lock().unwrap_or_else(PoisonError::into_inner);
        crews.retain(|group| group.strong_count() > 0);
        crews.push(Arc::downgrade(&alive));
        ThreadGroup(alive)
    }

    /// Starts a thread with all signals blocked from its first instruction, so that what it starts has them blocked too.
    ///
    /// # Errors
    /// `Internal` where the system has no thread left.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal(format!("could not start a thread: {error}"));
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|error| internal(&error))?;
        *self.0.lock() += 1;
        let leaving = ExitGuard(Arc::clone(&self.0));
        let spawned = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            let _leaving = leaving;
            // Where threads are more than processors, the main thread, on which all wait, must not wait for them. Not worth an error.
            let _ = rustix::process::nice(NICENESS);
            work();
        });
        before.thread_set_mask().map_err(|error| internal(&error))?;
        spawned.map(drop).map_err(|error| internal(&error))
    }
}

impl GroupState {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.interrupt.stop();
        (self.wake)();
        let deadline = Instant::now() + EXIT_TIMEOUT;
        let mut count = self.lock();
        while *count > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            count = self.ended.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Counts a thread out, also when it panics or never started.
struct ExitGuard(Arc<GroupState>);

impl Drop for ExitGuard {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.ended.notify_all();
    }
}

impl Drop for ThreadGroup {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Ends all threads of this process: for an exit that unwinds nothing.
pub fn stop_all() {
    let crews: Vec<_> = CREWS.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    for group in crews.iter().filter_map(Weak::upgrade) {
        group.stop();
    }
}
