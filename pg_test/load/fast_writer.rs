//! The straight way against what other sessions, other roles and odd tables do meanwhile: it must leave what INSERT … ON CONFLICT leaves, or
//! say why not.

use crate::support::cluster::{Database, shared};
use crate::support::memory_peak::rss_anon;
use crate::support::source::File;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;

parts!(SERVER, WRITING);

fn load(client: &mut Client, lines: &str, arguments: &str) -> String {
    let file = File::new(lines.as_bytes());
    value(client, &format!("bulk.load('{}'{arguments})", file.url()))
}

test!("a table that a load makes has its key, whatever repeats in it", made);
fn made() {
    let database = shared().database();
    let mut client = database.connect();
    // Repeats within a batch and far apart, more than are put off, and none at all.
    let many: String = (0..60_000).map(|n| format!("{{\"id\":\"{}\",\"n\":{n},\"x\":\"{}\"}}\n", n % 25_000, "y".repeat(n % 50))).collect();
    let few: String = (0..30_000).map(|n| format!("{{\"id\":\"{}\",\"n\":{n}}}\n", if n % 3000 == 0 { 7 } else { n })).collect();
    let none: String = (0..30_000).map(|n| format!("{{\"id\":\"{n}\",\"n\":{n}}}\n")).collect();
    for (kind, lines) in [("Patient", many), ("Device", few), ("Goal", none)] {
        let (file, table) = (File::new(lines.as_bytes()), kind.to_lowercase());
        for schema in ["fast", "general"] {
            client.batch_execute(&format!("create schema if not exists {schema}; set search_path = {schema}")).unwrap();
            client.batch_execute(&format!("set bulk.fast_path = {}", schema == "fast")).unwrap();
            assert_eq!(
                value(&mut client, &format!("bulk.load('{}', '{kind}')", file.url())),
                format!("{{\"total\": {}}}", lines.lines().count())
            );
        }
        let different = format!(
            "select count(*) from fast.{table} f full join general.{table} g using (id) where f.id is null or g.id is null or f.resource <> g.resource
             or f.status::text <> g.status::text"
        );
        assert_eq!(value(&mut client, &different), "0", "{kind}");
        let definition = |schema: &str| {
            format!(
                "select string_agg(pg_get_constraintdef(c.oid) || c.conname, ',' order by conname) || string_agg(distinct a.attname || a.attnotnull, ',')
                 from pg_constraint c, pg_attribute a where c.conrelid = '{schema}.{table}'::regclass and a.attrelid = c.conrelid and a.attnum > 0"
            )
        };
        assert_eq!(value(&mut client, &definition("fast")), value(&mut client, &definition("general")), "{kind}");
    }
}

/// Whether a session waits for a lock.
fn waits(watch: &mut Client, pid: i32) -> bool {
    value(watch, &format!("select wait_event_type from pg_stat_activity where pid = {pid}")) == "Lock"
}

test!("a table cannot be altered between the look at it and the writing", altered);
fn altered() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let (mut first, mut second, mut watch) = (database.connect(), database.connect(), database.connect());
    first.batch_execute("begin; lock table patient in share mode").unwrap();
    second.batch_execute("begin; lock table patient_history in access exclusive mode").unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n");
    let url = file.url();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let loading = std::thread::spawn(move || client.batch_execute(&format!("select bulk.load('{url}', 'Patient')")));
    wait_until("the load waits for the table", || waits(&mut watch, pid));
    let mut other = database.connect();
    let other_pid: i32 = other.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    first.batch_execute("commit").unwrap();
    wait_until("the load waits for the history", || waits(&mut watch, pid));
    // From here on the table is the load's: a column waits for its end.
    let altering = std::thread::spawn(move || other.batch_execute("alter table patient add column note text not null default 'x'"));
    wait_until("the other session waits", || waits(&mut watch, other_pid));
    second.batch_execute("commit").unwrap();
    loading.join().unwrap().unwrap();
    altering.join().unwrap().unwrap();
    assert_eq!(value(&mut watch, "select id || note from patient"), "1x");
}

test!("what triggers write into other tables of the load is written over", triggers);
fn triggers() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Basic'), bulk.create_resource_table('Goal');
             create function also() returns trigger language plpgsql as $$ begin
                 insert into goal (id, txid, status, resource) values (new.id, 0, 'created', '{\"by\": \"trigger\"}') on conflict (id) do nothing;
                 insert into device (id, txid, status, resource) values (new.id, 0, 'created', '{\"by\": \"trigger\"}') on conflict (id) do nothing;
                 return new;
             end $$;
             create trigger also after insert on basic for each row execute function also()",
        )
        .unwrap();
    // Devices have no table yet: it is made before the trigger needs it, and must have its key by then.
    let line = |kind: &str, id: u32| format!("{{\"resourceType\":\"{kind}\",\"id\":\"{id}\",\"by\":\"load\"}}\n");
    let mut lines = line("Device", 1000) + &line("Goal", 1000);
    lines.extend((0..20_000).map(|id| line(["Basic", "Goal", "Device"][id as usize % 3], id / 3)));
    load(&mut client, &lines, "");
    for table in ["goal", "device"] {
        let by = value(&mut client, &format!("select count(*) filter (where resource->>'by' = 'load') || ' ' || count(*) from {table}"));
        let (load, all) = by.split_once(' ').unwrap();
        assert!(load.parse::<u32>().unwrap() >= 6666 && all.parse::<u32>().unwrap() <= 6668, "{table}: {by}");
    }
}

test!("a trigger that appears in the middle of a load is an error, not passed over", appearing);
fn appearing() {
    let database = shared().database();
    let mut client = database.connect();
    if value(&mut client, "current_setting('bulk.fast_path')") == "off" {
        return;
    }
    client
        .batch_execute(
            "select bulk.create_resource_table('Basic'), bulk.create_resource_table('Goal');
             create function nothing() returns trigger language plpgsql as $$ begin return null; end $$;
             create function arm() returns trigger language plpgsql as $$ begin
                 create trigger t before insert on goal for each row execute function nothing(); return new;
             end $$;
             create trigger arm after insert on basic for each row execute function arm()",
        )
        .unwrap();
    let goals =
        |range: std::ops::Range<u32>| range.map(|id| format!("{{\"resourceType\":\"Goal\",\"id\":\"{id}\"}}\n")).collect::<String>();
    let lines = goals(0..50_000) + "{\"resourceType\":\"Basic\",\"id\":\"b\"}\n" + &goals(50_000..100_000);
    let file = File::new(lines.as_bytes());
    let error = failure(&mut client, &format!("select bulk.load('{}')", file.url()));
    assert_eq!(error.code, "42809", "{error:?}");
    assert!(error.message.contains("altered"), "{error:?}");
}

test!("children, spellings, collations: odd tables get the rows that INSERT would give them", odd_tables);
fn odd_tables() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient'), bulk.create_resource_table('Device'), bulk.create_resource_table('Goal')",
        )
        .unwrap();
    // A child's row is another table's.
    client
        .batch_execute(
            "create table child () inherits (patient); insert into child (id, txid, status, resource) values ('a', 1, 'created', '{\"of\": \"child\"}');
             insert into patient (id, txid, status, resource) values ('b', 1, 'created', '{}')",
        )
        .unwrap();
    load(&mut client, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n", ", 'Patient'");
    assert_eq!(value(&mut client, "select string_agg(id || status, ',' order by id) from only patient"), "acreated,bupdated");
    assert_eq!(value(&mut client, "select id || (resource->>'of') from child"), "achild");
    // A key by another order than the column's own.
    client.batch_execute("alter table device drop constraint device_pkey; create unique index on device (id collate \"C\")").unwrap();
    load(&mut client, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"a\"}\n", ", 'Device'");
    load(&mut client, "{\"id\":\"b\"}\n{\"id\":\"c\"}\n", ", 'Device'");
    assert_eq!(value(&mut client, "select string_agg(id || status, ',' order by id) from device"), "aupdated,bupdated,ccreated");
    // Two spellings of one table.
    client.batch_execute("create table foo (like goal including all)").unwrap();
    let file = File::new(b"{\"resourceType\":\"Foo\",\"id\":\"1\"}\n{\"resourceType\":\"foo\",\"id\":\"1\"}\n");
    let error = failure(&mut client, &format!("select bulk.load('{}')", file.url()));
    assert_eq!(error.code, "22023", "{error:?}");
    // Ids that are equal though they differ. Some builds of PostgreSQL come without ICU.
    if client.batch_execute("create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)").is_ok() {
        client.batch_execute("alter table goal alter id type text collate ci").unwrap();
        let lines: String = (0..30_000)
            .map(|n| format!("{{\"id\":\"{}\"}}\n", if n == 29_999 { "A".to_owned() } else { format!("a{n}").replace("a0", "a") }))
            .collect();
        load(&mut client, &lines, ", 'Goal'");
        assert_eq!(value(&mut client, "select count(*) || ' ' || max(status::text) from goal where id = 'a' collate ci"), "1 updated");
    }
}

test!("the rights that an upsert takes are enough, and no temporary table gets in between", rights);
fn rights() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient'), bulk.create_resource_table('Device'); create role clerk login; grant pg_read_server_files to clerk;
             grant insert, select, update (txid, ts, status, resource, resource_type) on patient to clerk;
             grant select, insert, update on device to clerk; grant usage on sequence transaction_id_seq to clerk; grant temporary on database \"{}\" to clerk;
             insert into patient_history (id, txid, status, resource) values ('gone', 1, 'deleted', '{}')"
                .replacen("{}", &database.name, 1)
                .as_str(),
        )
        .unwrap();
    let mut clerk = database.connect_as("clerk");
    // New rows and existing ones.
    for _ in 0..2 {
        load(&mut clerk, "{\"id\":\"a\"}\n{\"id\":\"gone\"}\n", ", 'Patient'");
    }
    assert_eq!(value(&mut client, "select string_agg(id || status, ',' order by id) from patient"), "aupdated,goneupdated");
    said_of_history(&database);
    // A function with its owner's rights looks for tables where its owner says, temporary ones last.
    let file = File::new(b"{\"id\":\"1\"}\n");
    client
        .batch_execute(&format!(
            "create function load_device() returns jsonb language sql security definer set search_path = public, pg_temp
             as $$ select bulk.load('{}', 'Device') $$",
            file.url()
        ))
        .unwrap();
    clerk.batch_execute("create temporary table device (like public.device including all); select load_device()").unwrap();
    assert_eq!(value(&mut clerk, "select (select count(*) from pg_temp.device) || ' ' || (select count(*) from public.device)"), "0 1");
    drop(clerk);
    client.batch_execute("drop owned by clerk; drop role clerk").unwrap();
}

/// Who may not read the history is told what that means.
fn said_of_history(database: &Database) {
    let file = File::new(b"{\"id\":\"b\"}\n");
    let mut psql = database.psql();
    let said = psql.args(["-c", "set role clerk", "-c", &format!("select bulk.load('{}', 'Patient')", file.url())]).output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("patient_history") && said.contains("recreated"), "{said}");
}

test!("keys that are shown hold no content of a resource", keys);
fn keys() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute("select bulk.create_resource_table('Patient'); create unique index by_number on patient ((resource->>'number'))")
        .unwrap();
    let file = File::new(b"{\"id\":\"1\",\"number\":\"123-45-6789\"}\n{\"id\":\"2\",\"number\":\"123-45-6789\"}\n");
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("23505", "by_number"));
    assert_eq!(error.detail, "The key is not shown.");
    assert!(!format!("{error:?}").contains("6789"), "{error:?}");
}

test!("a dump started again and again leaves no memory behind", restarted);
fn restarted() {
    let database = shared().database();
    let mut client = database.connect();
    load(&mut client, "{\"id\":\"1\"}\n{\"id\":\"2\"}\n", ", 'Patient'");
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let dumps = |count: u32| {
        format!(
            "select count(*) from (select (select bulk.dump('Patient', now() - g * interval '1 s') limit 1) from generate_series(1, {count}) g) x"
        )
    };
    client.query(&dumps(1000), &[]).unwrap();
    let before = rss_anon(pid);
    client.query(&dumps(20_000), &[]).unwrap();
    let grown = rss_anon(pid).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes");
}
