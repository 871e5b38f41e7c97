//! A library and SQL objects of different versions, as after an upgrade of one of them: noticed at every entry, and nothing is done.

use crate::support::cluster::{Cluster, Database, bin, checked, shared};
use crate::support::source::File;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;
use std::fs;
use std::os::unix::fs::MetadataExt;

parts!(SERVER);

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

test!("every function of the library refuses SQL of another version and says what to do", entries);
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
    // The arguments of another version may be fewer, and of other types: none is read.
    client
        .batch_execute(
            "create function one_less(text, boolean) returns bigint language c as '$libdir/bulk', 'load_wrapper';
             create function other_types(bigint, bigint, bigint, bigint) returns bigint language c as '$libdir/bulk', 'load_wrapper'",
        )
        .unwrap();
    pretend(&mut client, "0.9");
    for call in ["select one_less('x', false)", "select other_types(1, 2, 3, 4)"] {
        assert_eq!(failure(&mut client, call).code, "0A000", "{call}");
    }
    pretend(&mut client, &own);
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "0");
    assert_eq!(value(&mut client, "select bulk.create_resource_table('Patient')"), "patient");
}

test!("the extension can be altered and dropped whatever the library's version", passes);
fn passes() {
    let database = shared().database();
    let mut client = database.connect();
    // Triggers of such statements may call what they like.
    client
        .batch_execute(
            "create function called() returns event_trigger language plpgsql as $$ begin
                 if to_regprocedure('bulk.last_load_id()') is not null then perform bulk.last_load_id(); end if; end $$;
             create event trigger before on ddl_command_start execute function called(); create event trigger after on ddl_command_end execute function called()",
        )
        .unwrap();
    pretend(&mut client, "0.9");
    assert_eq!(failure(&mut client, "create table no_extension (a int)").code, "0A000");
    client.batch_execute("drop event trigger after").unwrap();
    client.batch_execute("alter extension bulk drop function bulk.last_load_id(); alter extension bulk add function bulk.last_load_id(); drop extension bulk; create extension bulk").unwrap();
    assert_eq!(value(&mut client, "select bulk.create_resource_table('Patient')"), "patient");
}

test!("an installation renames its files into place, below DESTDIR, and is removed without a rest", installation);
/// An installation takes the place of a library that processes have mapped, and says who may do it where its caller may not.
fn installation() {
    let root = tempfile::tempdir().unwrap();
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(manifest.join("scripts/install.sh"));
        command.arg(arguments[0]).arg(bin().join("pg_config")).args(&arguments[1..]).current_dir(manifest);
        checked(command.env("DESTDIR", root.path()))
    };
    let library = root.path().join("libbulk.so");
    let script = root.path().join("bulk--1.0.sql");
    fs::write(&script, "select 1").unwrap();
    let mut inodes = Vec::new();
    for content in ["one", "another"] {
        fs::write(&library, content).unwrap();
        run(&["install", library.to_str().unwrap(), "bulk.control", script.to_str().unwrap()]);
        let said = checked(std::process::Command::new("find").arg(root.path()).args(["-mindepth", "2", "-type", "f"]));
        let mut files: Vec<String> = String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect();
        files.sort_by_key(|file| file.rsplit('/').next().unwrap().to_owned());
        assert_eq!(files.len(), 3, "{files:?}");
        for (file, end) in files.iter().zip(["extension/bulk--1.0.sql", "extension/bulk.control", "bulk.so"]) {
            assert!(file.ends_with(end), "{files:?}");
        }
        assert_eq!(fs::read_to_string(&files[2]).unwrap(), content);
        inodes.push(fs::metadata(&files[2]).unwrap().ino());
    }
    assert_ne!(inodes[0], inodes[1], "a mapped library is written over");
    run(&["uninstall"]);
    let left = checked(std::process::Command::new("find").arg(root.path()).args(["-mindepth", "2", "-type", "f"]));
    assert_eq!(String::from_utf8(left.stdout).unwrap(), "");
}

/// What a worker says in the server's log.
fn refusals(cluster: &Cluster) -> usize {
    cluster.log().matches("the extension of this database has version 0.9").count()
}

test!("a worker does nothing in a database whose SQL is of another version", workers);
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
