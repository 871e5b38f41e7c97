//! Memory is bounded by the longest line, not by the source: measured as the peak of the backend's anonymous memory.

use crate::support::cluster::shared;
use crate::support::memory_peak::Peak;
use crate::support::source::Stream;
use crate::support::statement::value;
use crate::support::trial::{WRITING, parts, test};

parts!(WRITING);

/// How much of the work is done: all of it (1,000 lines of 5 MB, a stream of 5 GB) takes minutes and is asked for by `BULK_TEST_FULL`.
fn share() -> usize {
    if std::env::var_os("BULK_TEST_FULL").is_some() { 1 } else { 20 }
}

test!("a thousand lines of 5 MB pass in bounded memory, there and back", large_lines);
fn large_lines() {
    passes(5_000_000, 1000 / share());
}

test!("a stream of 5 GB passes in bounded memory, there and back", long_stream);
fn long_stream() {
    passes(16_000, 312_500 / share());
}

/// Loads and dumps so many lines of so many bytes.
fn passes(size: usize, lines: usize) {
    let database = shared().database();
    let mut client = database.connect();
    // Half of it noise, so that compression has something to do and cannot make nothing of it.
    let mut state = 1u64;
    let noise: String = (0..size / 2)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            char::from(b"ABCDEFGHIJKLMNOP"[(state >> 60) as usize])
        })
        .collect();
    let text = format!("{noise}{}", "word ".repeat(size / 10));
    let mut sent = 0;
    let source = Stream::start(move || {
        sent += 1;
        (sent <= lines).then(|| format!("{{\"id\":\"{sent}\",\"data\":\"{text}\"}}\n").into_bytes())
    });
    client.batch_execute("select bulk.create_resource_table('Binary')").unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let bound = 128 * 1024 * 1024 + 6 * size as u64;
    let peak = Peak::watch(pid);
    let answer = value(&mut client, &format!("bulk.load('{}', 'Binary')", source.url()));
    assert_eq!(answer, format!("{{\"total\": {lines}}}"));
    println!("{lines} lines of {size} bytes: peak RssAnon of the load {} MiB, bound {} MiB", peak.bytes() >> 20, bound >> 20);
    assert!(peak.bytes() > 0 && peak.bytes() <= bound, "{}", peak.bytes());
    let peak = Peak::watch(pid);
    let dumped = value(&mut client, "select sum(length(b)) > 0 from (select bulk.dump_bytes('Binary', fhir => true) as b) c");
    assert_eq!(dumped, "true");
    let lengths = value(&mut client, "select min(length(resource->>'data')) || ' ' || max(length(resource->>'data')) from \"binary\"");
    let expected = size / 2 + size / 10 * 5;
    assert_eq!(lengths, format!("{expected} {expected}"));
    println!("{lines} lines of {size} bytes: peak RssAnon of the dump {} MiB", peak.bytes() >> 20);
    assert!(peak.bytes() <= bound, "{}", peak.bytes());
}
