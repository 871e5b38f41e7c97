//! The memory of a backend, at its peak.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Highest RssAnon of a process, sampled until dropped.
pub struct Peak {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
}

impl Peak {
    pub fn watch(pid: i32) -> Peak {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, highest) = (Arc::clone(&stop), Arc::clone(&peak));
        thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                highest.fetch_max(rss_anon(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Peak { stop, peak }
    }

    pub fn bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub fn rss_anon(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}
