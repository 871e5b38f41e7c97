//! Tests that need a server: real clusters, real web servers, real signals. `BULK_TEST_BIN` is the directory of the
//! PostgreSQL binaries whose installation holds the extension; `make test` sets it.
//!
//! `support` has what tests share: clusters, servers, faults. Beside it a room a verb. A test is registered where it stands (`support::trial`).

// A test ends by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Some tell a long story.
#![allow(clippy::too_many_lines, clippy::excessive_nesting)]

mod bucket;
mod dump;
mod export;
mod http;
mod import;
mod job;
mod load;
mod server;
mod support;
mod validate;

use libtest_mimic::Arguments;
use std::time::Instant;
use support::{cluster, trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // The shared cluster has room for the sessions and workers of so many at once.
    arguments.test_threads = arguments.test_threads.or(Some(std::thread::available_parallelism().map_or(2, |count| count.get().min(4))));
    let part = std::env::var("BULK_TEST_PART").unwrap_or_else(|_| "all".to_owned());
    assert!(["all", trial::SERVER, trial::WRITING].contains(&part.as_str()), "there is no part {part} of the tests");
    let began = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trial::trials(&part));
    cluster::stop_shared();
    println!("{:.0} s, of which the slowest tests took:", began.elapsed().as_secs_f64());
    trial::slowest(12).iter().for_each(|(seconds, name)| println!("{seconds:7.1} s  {name}"));
    conclusion.exit();
}
