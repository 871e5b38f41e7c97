//! Tests that need a server: real clusters, real web servers, real signals. `BULK_TEST_BIN` is the directory of the
//! PostgreSQL binaries whose installation holds the extension; `make test` sets it.

// A test ends by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bucket;
mod cluster;
mod compartment;
mod convert;
mod crash;
mod documents;
mod dump;
mod dump_csv;
mod dump_sql;
mod errors;
mod export;
mod export_faults;
mod export_guide;
mod fast;
mod front;
mod gateway;
mod http;
mod import;
mod indexes;
mod integrity;
mod job;
mod load;
mod memory;
mod operations;
mod options;
mod postgrest;
mod proxy;
mod readme;
mod reject;
mod rights;
mod roundtrip;
mod rpc;
mod servers;
mod shutdown;
mod source;
mod store;
mod straight;
mod validate;
mod version;

use libtest_mimic::{Arguments, Trial};
use std::sync::Mutex;
use std::time::Instant;

/// How long each test took that has ended, in seconds.
static TOOK: Mutex<Vec<(f64, String)>> = Mutex::new(Vec::new());

/// A test by the sentence that it shows to hold.
fn test(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    let named = name.to_owned();
    Trial::test(name, move || {
        let began = Instant::now();
        run();
        TOOK.lock().unwrap().push((began.elapsed().as_secs_f64(), named));
        Ok(())
    })
}

/// A part of the tests, by the name that `BULK_TEST_PART` has.
type Part = &'static str;
/// Those that meet the server's catalogs, its storage, its executor and its processes, for versions of PostgreSQL of which only these are run. The rest
/// (HTTP layers, documents, object stores, what the text of a request may be) is the same on all.
const SERVER: Part = "server";
/// Those that write rows, for other ways of writing them.
const WRITING: Part = "writing";

/// All tests, a file each, with the parts that these belong to.
fn tests() -> Vec<(Vec<Trial>, &'static [Part])> {
    vec![
        (bucket::tests(), &[WRITING]),
        (compartment::tests(), &[]),
        (convert::tests(), &[SERVER, WRITING]),
        (crash::tests(), &[SERVER, WRITING]),
        (documents::tests(), &[]),
        (dump::tests(), &[SERVER]),
        (dump_csv::tests(), &[SERVER]),
        (dump_sql::tests(), &[SERVER]),
        (errors::tests(), &[SERVER, WRITING]),
        (export::tests(), &[SERVER]),
        (export_faults::tests(), &[]),
        (export_guide::tests(), &[]),
        (fast::tests(), &[SERVER, WRITING]),
        (gateway::tests(), &[]),
        (http::tests(), &[]),
        (import::tests(), &[SERVER, WRITING]),
        (indexes::tests(), &[SERVER, WRITING]),
        (job::tests(), &[SERVER, WRITING]),
        (load::tests(), &[SERVER, WRITING]),
        (memory::tests(), &[WRITING]),
        (operations::tests(), &[]),
        (options::tests(), &[SERVER, WRITING]),
        (postgrest::tests(), &[]),
        (readme::tests(), &[]),
        (reject::tests(), &[SERVER, WRITING]),
        (rights::tests(), &[SERVER, WRITING]),
        (roundtrip::tests(), &[WRITING]),
        (rpc::tests(), &[]),
        (shutdown::tests(), &[SERVER, WRITING]),
        (store::tests(), &[]),
        (straight::tests(), &[SERVER, WRITING]),
        (validate::tests(), &[SERVER]),
        (version::tests(), &[SERVER]),
    ]
}

fn main() {
    let mut arguments = Arguments::from_args();
    // The shared cluster has room for the sessions and workers of so many at once.
    arguments.test_threads = arguments.test_threads.or(Some(std::thread::available_parallelism().map_or(2, |count| count.get().min(4))));
    let wanted = std::env::var("BULK_TEST_PART").unwrap_or_else(|_| "all".to_owned());
    assert!(["all", SERVER, WRITING].contains(&wanted.as_str()), "there is no part {wanted} of the tests");
    let tests = tests().into_iter().filter(|(_, parts)| wanted == "all" || parts.contains(&wanted.as_str()));
    let began = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, tests.flat_map(|(tests, _)| tests).collect());
    cluster::stop_shared();
    let mut took = std::mem::take(&mut *TOOK.lock().unwrap());
    took.sort_by(|one, other| other.0.total_cmp(&one.0));
    println!("{:.0} s, of which the slowest tests took:", began.elapsed().as_secs_f64());
    took.iter().take(12).for_each(|(seconds, name)| println!("{seconds:7.1} s  {name}"));
    conclusion.exit();
}
