//! The one retry policy: what may succeed when it is tried again, and how long to wait before.

use crate::error::SourceFault;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// SQLSTATEs of statements that may succeed when their transaction is tried again: serialization failures, deadlocks, locks that could not be had
/// at once or in time. <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const TRANSIENT_STATES: [&str; 3] = ["40001", "40P01", "55P03"];

/// Tries of a transaction beside others that may conflict, before it is tried while nobody else writes to its tables.
pub const TRIES_BESIDE_OTHERS: u32 = 3;

/// Whether a statement that failed with this SQLSTATE may succeed when its transaction is tried again.
pub fn is_transient_state(sqlstate: &str) -> bool {
    TRANSIENT_STATES.contains(&sqlstate)
}

/// Whether a source or a store may do better when it is asked again.
pub fn is_transient_source(fault: &SourceFault) -> bool {
    match fault {
        SourceFault::Unreachable(_) | SourceFault::Timeout | SourceFault::Read(_) | SourceFault::Truncated(_) => true,
        SourceFault::Status(status) => is_transient_status(*status),
        _ => false,
    }
}

/// Whether an HTTP server may do better when it is asked again.
pub fn is_transient_status(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// Pauses between tries: doubled each time up to the longest, half of each random, so that many who failed together do not come together again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// For sources and stores, and for locks that somebody may hold for long.
    pub const PATIENT: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(60) };
    /// For other transactions of this database.
    pub const QUICK: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_secs(5) };

    /// The longest pause, whatever somebody asks for.
    pub const fn longest(self) -> Duration {
        self.longest
    }

    /// The pause before the next try, after so many that failed.
    pub fn pause(self, failed: u32) -> Duration {
        let most = self.first.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.longest);
        let random = RandomState::new().hash_one(failed) as u32;
        most / 2 + (most / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_not_alike() {
        for backoff in [Backoff::PATIENT, Backoff::QUICK] {
            for failed in [1, 2, 5, 30, u32::MAX] {
                let most = backoff.first.saturating_mul(1 << (failed - 1).min(16)).min(backoff.longest);
                let pauses: Vec<Duration> = (0..50).map(|_| backoff.pause(failed)).collect();
                assert!(pauses.iter().all(|pause| *pause >= most / 2 && *pause <= most), "{pauses:?}");
                assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
            }
        }
    }

    #[test]
    fn the_table_of_what_is_transient() {
        assert!(["40001", "40P01", "55P03"].into_iter().all(is_transient_state));
        assert!(!["23505", "57014", "42501", ""].into_iter().any(is_transient_state));
        assert!(is_transient_source(&SourceFault::Timeout) && is_transient_source(&SourceFault::Status(503)));
        assert!(!is_transient_source(&SourceFault::Changed) && !is_transient_source(&SourceFault::Status(404)));
    }
}
