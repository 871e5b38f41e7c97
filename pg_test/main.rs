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

use libtest_mimic::{Arguments, Trial};

/// A test by the sentence that it shows to hold.
fn test(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    // The shared cluster has room for the sessions and workers of so many at once.
    arguments.test_threads = arguments.test_threads.or(Some(std::thread::available_parallelism().map_or(2, |count| count.get().min(4))));
    let tests = [
        bucket::tests(),
        compartment::tests(),
        convert::tests(),
        crash::tests(),
        documents::tests(),
        dump::tests(),
        dump_csv::tests(),
        dump_sql::tests(),
        errors::tests(),
        export::tests(),
        export_faults::tests(),
        export_guide::tests(),
        fast::tests(),
        gateway::tests(),
        http::tests(),
        import::tests(),
        indexes::tests(),
        job::tests(),
        load::tests(),
        memory::tests(),
        operations::tests(),
        options::tests(),
        postgrest::tests(),
        readme::tests(),
        reject::tests(),
        rights::tests(),
        rpc::tests(),
        roundtrip::tests(),
        shutdown::tests(),
        store::tests(),
        straight::tests(),
        validate::tests(),
    ];
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().flatten().collect());
    cluster::stop_shared();
    conclusion.exit();
}
