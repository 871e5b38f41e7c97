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

/// The tests that a version of PostgreSQL is to pass of which only the server-facing half is run: those that meet its catalogs, its storage, its
/// executor and its processes. The rest (HTTP layers, documents, object stores, what the text of a request may be) is the same on all.
fn server_facing() -> Vec<Vec<Trial>> {
    vec![
        convert::tests(),
        crash::tests(),
        dump::tests(),
        dump_csv::tests(),
        dump_sql::tests(),
        errors::tests(),
        export::tests(),
        fast::tests(),
        import::tests(),
        indexes::tests(),
        job::tests(),
        load::tests(),
        options::tests(),
        reject::tests(),
        rights::tests(),
        shutdown::tests(),
        straight::tests(),
        validate::tests(),
        version::tests(),
    ]
}

fn others() -> Vec<Vec<Trial>> {
    vec![
        bucket::tests(),
        compartment::tests(),
        documents::tests(),
        export_faults::tests(),
        export_guide::tests(),
        gateway::tests(),
        http::tests(),
        memory::tests(),
        operations::tests(),
        postgrest::tests(),
        readme::tests(),
        roundtrip::tests(),
        rpc::tests(),
        store::tests(),
    ]
}

fn main() {
    let mut arguments = Arguments::from_args();
    // The shared cluster has room for the sessions and workers of so many at once.
    arguments.test_threads = arguments.test_threads.or(Some(std::thread::available_parallelism().map_or(2, |count| count.get().min(4))));
    let mut tests = server_facing();
    // `server`, else all.
    if std::env::var("BULK_TEST_PART").as_deref() != Ok("server") {
        tests.extend(others());
    }
    let began = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().flatten().collect());
    cluster::stop_shared();
    let mut took = std::mem::take(&mut *TOOK.lock().unwrap());
    took.sort_by(|one, other| other.0.total_cmp(&one.0));
    println!("{:.0} s, of which the slowest tests took:", began.elapsed().as_secs_f64());
    took.iter().take(12).for_each(|(seconds, name)| println!("{seconds:7.1} s  {name}"));
    conclusion.exit();
}
