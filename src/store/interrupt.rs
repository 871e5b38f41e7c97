//! Ends what a thread waits for: sets a flag and shuts the sockets it may be reading from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a sleeper takes to see that it shall stop.
const NAP: Duration = Duration::from_millis(20);

/// Shared by the threads of one operation and the thread that may end it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stopped: AtomicBool,
    agents: Mutex<Vec<ureq::Agent>>,
}

impl Interrupt {
    /// One that nobody stopped.
    pub fn new() -> Interrupt {
        Interrupt::default()
    }

    /// Whether `stop` was called.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Sleeps; true at once when `stop` is or was called.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.is_stopped() || left.is_zero() {
                return self.is_stopped();
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Ends all work: readers see it at their next read, and a read that hangs on a socket returns.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        for agent in self.0.agents.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            agent.shutdown();
        }
    }

    /// Has an HTTP client shut down by `stop`, at once if that came first.
    pub fn watch(&self, agent: &ureq::Agent) {
        let mut agents = self.0.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.push(agent.clone());
        if self.is_stopped() {
            agent.clone().shutdown();
        }
    }
}
