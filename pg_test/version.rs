//! A library and SQL objects of different versions, as after an upgrade of one of them: noticed at every entry, and nothing is done.

use crate::cluster::{Cluster, Database, failure, shared, value, wait_until};
use crate::source::File;
use crate::test;
use libtest_mimic::Trial;
use postgres::Client;

pub fn tests() -> Vec<Trial> {
    vec![
        test("every function of the library refuses SQL of another version and says what to do", entries),
        test("the extension can be altered and dropped whatever the library's version", passes),
        test("a worker does nothing in a database whose SQL is of another version", workers),
    ]
}

/// Has the catalog say another version than the library's.
fn pretend(client: &mut Client, version: &str) {
    client
        .batch_execute(&format!(
            "set allow_system_table_mods = on; update pg_catalog.pg_extension set extversion = '{version}' where extname = 'bulk'; reset allow_system_table_mods"
        ))
        .unwrap();
}

/// The version that the library serves, which is the one that it was installed with.
fn own(client: &mut Client) -> String {
    value(client, "select default_version from pg_available_extensions where name = 'bulk'")
}

/// A call of each C function of the extension, by the catalog, so that a new one is met too.
fn calls(client: &mut Client) -> Vec<String> {
    let query = "select format('select %s.%I(%s)', p.pronamespace::regnamespace, p.proname,
            (select string_agg(case when t.typcategory = 'B' then 'false' when t.typname = 'jsonb' then '''{}''' when t.typcategory in ('N') then '0'
                when t.typcategory = 'D' then '''2026-01-01''' when t.typcategory = 'T' then '''1 s''' else '''x''' end || '::' || format_type(t.oid, null), ', ' order by a.n)
             from unnest(p.proargtypes) with ordinality a(type, n) join pg_type t on t.oid = a.type))
        from pg_proc p join pg_language l on l.oid = p.prolang join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
        where l.lanname = 'c' and d.deptype = 'e' and d.refobjid = (select oid from pg_extension where extname = 'bulk') order by 1";
    client.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn entries() {
    let database = shared().database();
    let mut client = database.connect();
    let own = own(&mut client);
    let calls = calls(&mut client);
    assert!(calls.len() >= 31, "{calls:?}");
    for (version, hint) in [("0.9", "ALTER EXTENSION bulk UPDATE"), ("99.0", "Install the library of the extension's version")] {
        pretend(&mut client, version);
        for call in &calls {
            let error = failure(&mut client, call);
            assert_eq!(error.code, "0A000", "{call}: {error:?}");
            assert!(error.message.contains(version) && error.message.contains(&own), "{call}: {error:?}");
            assert!(error.hint.contains(hint), "{call}: {error:?}");
        }
        pretend(&mut client, &own);
    }
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "0");
    assert_eq!(value(&mut client, "select bulk.create_resource_table('Patient')"), "patient");
}

fn passes() {
    let database = shared().database();
    let mut client = database.connect();
    pretend(&mut client, "0.9");
    client.batch_execute("comment on extension bulk is 'altered'; alter extension bulk drop function bulk.last_load_id(); alter extension bulk add function bulk.last_load_id(); drop extension bulk; create extension bulk").unwrap();
    assert_eq!(value(&mut client, "select bulk.create_resource_table('Patient')"), "patient");
}

/// What a worker says in the server's log.
fn refusals(cluster: &Cluster) -> usize {
    cluster.log().matches("the extension of this database has version 0.9").count()
}

fn workers() {
    let cluster = Cluster::start();
    let database: Database = cluster.database();
    let mut client = database.connect();
    let own = own(&mut client);
    let file = File::new(b"{\"id\":\"1\",\"resourceType\":\"Patient\"}\n");
    // The worker starts at the commit, at which the versions no longer fit.
    client.batch_execute("begin").unwrap();
    let request = format!(
        "{{\"id\": \"later\", \"contentEncoding\": \"plain\", \"inputs\": [{{\"resourceType\": \"Patient\", \"url\": \"{}\"}}]}}",
        file.url()
    );
    client.query_one("select (bulk.import($1::text::jsonb)).status", &[&request]).unwrap();
    pretend(&mut client, "0.9");
    client.batch_execute("commit").unwrap();
    wait_until("a worker says why it does nothing", || refusals(&cluster) > 0);
    assert!(cluster.log().contains("Run ALTER EXTENSION bulk UPDATE"), "{}", cluster.log());
    pretend(&mut client, &own);
    assert_eq!(value(&mut client, "select count(*) from bulk.job_file where state = 'done'"), "0");
    // Then it goes on.
    client.batch_execute("select bulk.resume_interrupted()").unwrap();
    assert_eq!(value(&mut client, "bulk.wait('later', '1 min')"), "done");
    assert_eq!(value(&mut client, "select count(*) from patient"), "1");
}
