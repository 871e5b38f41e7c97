//! What `bulk.load` does with good input, on every kind of table.

use crate::support::cluster::shared;
use crate::support::source::{Faulty, File, Nginx, Then, gzip};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};

parts!(SERVER, WRITING);

test!("gzip or plain, members, line ends and a byte order mark make no difference", framing);
fn framing() {
    let database = shared().database();
    let mut client = database.connect();
    let (one, two) =
        (br#"{"resourceType":"Patient","id":"1"}"#.as_slice(), br#"{"resourceType":"Patient","id":"2","active":true}"#.as_slice());
    let plain = [one, b"\r\n\n   \n", two].concat();
    let contents = [
        plain.clone(),
        [b"\xEF\xBB\xBF".as_slice(), &plain].concat(),
        [plain.as_slice(), b"\n\n"].concat(),
        gzip(&plain),
        [gzip(one), gzip(b"\r"), gzip(b"\n"), gzip(two)].concat(),
        gzip(&[b"\xEF\xBB\xBF".as_slice(), &plain].concat()),
    ];
    for content in contents {
        client.batch_execute("drop table if exists patient").unwrap();
        let file = File::new(&content);
        assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", file.url())), r#"{"total": 2}"#);
        assert_eq!(value(&mut client, "select string_agg(id || resource, ' ' order by id) from patient"), r#"1{} 2{"active": true}"#);
    }
    let empty = File::new(b"");
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", empty.url())), r#"{"total": 0}"#);
    assert_eq!(value(&mut client, &format!("bulk.load('{}')", empty.url())), "{}");
}

test!("mixed lines go to the table of their type and are counted by type", mixed);
fn mixed() {
    let database = shared().database();
    let mut client = database.connect();
    let mut lines = String::new();
    for id in 0..3000 {
        let kind = ["Patient", "Goal", "Claim"][id % 3];
        lines.push_str(&format!("{{\"id\":\"{id}\",\"resourceType\":\"{kind}\",\"n\":{id}}}\n"));
    }
    let file = File::new(lines.as_bytes());
    assert_eq!(value(&mut client, &format!("bulk.load('{}')", file.url())), r#"{"Goal": 1000, "Claim": 1000, "Patient": 1000}"#);
    assert_eq!(value(&mut client, "select sum((resource->>'n')::int) from goal"), "1499500");
}

test!("both signatures and an untyped request literal load the same", signatures);
fn signatures() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"resourceType\":\"Patient\",\"id\":\"1\",\"deceasedBoolean\":true}\n");
    let url = file.url();
    for call in [
        format!("bulk.load('{url}', 'Patient', true)"),
        format!("bulk.load('{url}', 'patient', fhir => true, options => '{{\"create-tables\": true}}')"),
        format!("bulk.load('{{\"source\": \"{url}\", \"resourceType\": \"Patient\"}}', fhir => true)"),
        format!("bulk.load('{{\"source\": \"{url}\"}}'::jsonb - 'x' || '{{\"resourceType\": \"Patient\"}}', true)"),
        format!("bulk.load(source => '{url}', resource_type => 'Patient', fhir => true)"),
    ] {
        assert_eq!(value(&mut client, &call), r#"{"total": 1}"#, "{call}");
        assert_eq!(value(&mut client, "select resource from patient"), r#"{"deceased": {"boolean": true}}"#);
    }
    assert_eq!(value(&mut client, &format!("bulk.load('{{\"source\": [\"{url}\", \"{url}\"]}}')")), r#"{"Patient": 2}"#);
    let text: String = client.query_one("select bulk.load($1::text)::text", &[&url]).unwrap().get(0);
    assert_eq!(text, r#"{"Patient": 1}"#);
}

test!("an existing id is overwritten: status updated, new txid, cts kept", overwritten);
fn overwritten() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\",\"n\":1}\n");
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    client.batch_execute("update patient set cts = '2001-01-01', ts = '2001-01-01', txid = 7").unwrap();
    let file = File::new(b"{\"id\":\"1\",\"m\":2}\n{\"id\":\"2\"}\n");
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    let row = value(
        &mut client,
        "select row(status, cts = '2001-01-01', ts > '2020-01-01', txid <> 7, resource, resource_type) from patient where id = '1'",
    );
    assert_eq!(row, r#"(updated,t,t,t,"{""m"": 2}",Patient)"#);
    assert_eq!(value(&mut client, "select row(status, cts = ts) from patient where id = '2'"), "(created,t)");
    assert_eq!(value(&mut client, "select count(*) from patient_history"), "0");
    assert_eq!(value(&mut client, "select count(distinct txid) from patient"), "2");
}

test!("a repeated id counts each time, its last line wins and is an update", repeated);
fn repeated() {
    let database = shared().database();
    let mut client = database.connect();
    let lines: String = (0..1000).map(|n| format!("{{\"id\":\"{}\",\"n\":{n}}}\n", n % 10)).collect();
    let file = File::new(lines.as_bytes());
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", file.url())), r#"{"total": 1000}"#);
    assert_eq!(
        value(&mut client, "select row(count(*), min((resource->>'n')::int), max(resource->>'n'), min(status), max(status)) from patient"),
        "(10,990,999,updated,updated)"
    );
}

test!("an id whose last version was deleted is recreated", recreated);
fn recreated() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
             insert into patient_history (id, txid, status, resource) values ('1', 1, 'created', '{}'), ('1', 2, 'deleted', '{}'), ('2', 3, 'deleted', '{}'), ('2', 4, 'recreated', '{}')",
        )
        .unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}\n");
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    assert_eq!(value(&mut client, "select string_agg(status::text, ',' order by id) from patient"), "recreated,created,created");
}

test!("missing tables are created once, whoever creates them at once", created);
fn created() {
    let database = shared().database();
    let url = File::new(b"{\"resourceType\":\"Patient\",\"id\":\"1\"}\n{\"resourceType\":\"Goal\",\"id\":\"1\"}\n");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = database.connect();
                client.batch_execute(&format!("select bulk.load('{}'); select bulk.create_resource_table('Slot')", url.url())).unwrap();
            });
        }
    });
    // What all types share is there once, too: whoever waits for another finds it.
    let fresh = shared().database();
    let (mut first, mut second) = (fresh.connect(), fresh.connect());
    first.batch_execute("begin; select bulk.create_resource_table('Patient')").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| second.batch_execute("select bulk.create_resource_table('Goal')"));
        wait_until("the second waits", || {
            value(
                &mut first,
                "select count(*) from pg_locks where not granted and locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
            ) == "1"
        });
        first.batch_execute("commit").unwrap();
        waiting.join().unwrap().unwrap();
    });
    let mut client = database.connect();
    assert_eq!(
        value(
            &mut client,
            "select string_agg(relname, ',' order by relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        ),
        "goal,goal_history,patient,patient_history,slot,slot_history"
    );
    assert_eq!(value(&mut client, "bulk.create_resource_table('Patient')"), "patient");
    assert_eq!(value(&mut client, "bulk.create_resource_table('MyOwnType')"), "myowntype");
    // A key word as a name, another schema first in the path, a schema with a strange name.
    client.batch_execute("create schema \"Odd \"\"one\"; set search_path = \"Odd \"\"one\", public").unwrap();
    assert_eq!(value(&mut client, "bulk.create_resource_table('Group')"), "\"group\"");
    assert_eq!(value(&mut client, "'\"Odd \"\"one\".\"group\"'::regclass = bulk.create_resource_table('Group')"), "true");
    assert_eq!(value(&mut client, "select count(*) from pg_type where typname = 'resource_status'"), "1");
    client.batch_execute("set search_path = ''").unwrap();
    assert_eq!(failure(&mut client, "select bulk.create_resource_table('Patient')").code, "3F000");
}

test!("a partitioned table gets its rows", partitioned);
fn partitioned() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Goal');
             create table patient (id text primary key, txid bigint not null, cts timestamptz, ts timestamptz, resource_type text, status resource_status not null, resource jsonb not null)
                 partition by hash (id);
             create table patient_0 partition of patient for values with (modulus 2, remainder 0);
             create table patient_1 partition of patient for values with (modulus 2, remainder 1)",
        )
        .unwrap();
    let lines: String = (0..500).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect();
    let file = File::new(lines.as_bytes());
    for _ in 0..2 {
        assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", file.url())), r#"{"total": 500}"#);
    }
    assert_eq!(value(&mut client, "select row(count(*), min(status), count(distinct tableoid)) from patient"), "(500,updated,2)");
    assert_eq!(value(&mut client, "select count(*) from (select bulk.dump('Patient')) x"), "500");
}

test!("triggers fire and foreign keys hold", triggers);
fn triggers() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
             create table seen (what text);
             create table known (id text primary key);
             insert into known values ('1'), ('2');
             create function note() returns trigger language plpgsql as $$ begin insert into seen values (tg_op || new.id); return new; end $$;
             create trigger note before insert or update on patient for each row execute function note();
             alter table patient add constraint only_known foreign key (id) references known (id) deferrable initially immediate;
             alter table patient add constraint no_bad check (not resource ? 'bad')",
        )
        .unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n{\"id\":\"2\"}\n");
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    assert_eq!(value(&mut client, "select string_agg(what, ',') from seen"), "INSERT1,INSERT2");
    let file = File::new(b"{\"id\":\"3\"}\n");
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("23503", "only_known"), "{error:?}");
    let file = File::new(b"{\"id\":\"1\",\"bad\":1}\n");
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("23514", "no_bad"), "{error:?}");
    // Inside an exception block, again and again: nothing of the first error clings to the second.
    client.batch_execute("create or replace function note() returns trigger language plpgsql as $$ begin raise exception 'refused' using errcode = 'P0042', column = 'col'; end $$").unwrap();
    let caught = format!(
        "do $$ begin for i in 1..20 loop begin perform bulk.load('{}', 'Patient'); exception when sqlstate 'P0042' then null; end; end loop; end $$",
        file.url()
    );
    client.batch_execute(&caught).unwrap();
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("P0042", ""), "{error:?}");
    assert!(error.context.contains("note()"), "{error:?}");
}

test!("row security decides what is written and read", row_security);
fn row_security() {
    let database = shared().database();
    let mut client = database.connect();
    let role = format!("{}_clerk", database.name);
    client
        .batch_execute(&format!(
            "create role {role} login; grant pg_read_server_files to {role};
             select bulk.create_resource_table('Patient');
             grant select, insert, update on patient to {role}; grant usage on transaction_id_seq to {role};
             alter table patient enable row level security;
             create policy own on patient to {role} using (resource->>'ward' = 'a') with check (resource->>'ward' = 'a')"
        ))
        .unwrap();
    let mut clerk = database.connect_as(&role);
    let file = File::new(b"{\"id\":\"1\",\"ward\":\"a\"}\n");
    assert_eq!(value(&mut clerk, &format!("bulk.load('{}', 'Patient')", file.url())), r#"{"total": 1}"#);
    let file = File::new(b"{\"id\":\"2\",\"ward\":\"b\"}\n");
    assert_eq!(failure(&mut clerk, &format!("select bulk.load('{}', 'Patient')", file.url())).code, "42501");
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    assert_eq!(value(&mut clerk, "select string_agg(l::jsonb->>'id', ',') from (select bulk.dump('Patient') as l) x"), "1");
    assert_eq!(value(&mut client, "select count(*) from (select bulk.dump('Patient') as l) x"), "2");
    client.batch_execute(&format!("drop owned by {role}")).unwrap();
}

test!("tables of fhirbase and of another column order work", other_tables);
fn other_tables() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "create type resource_status as enum ('created', 'updated', 'deleted', 'recreated');
             create table transaction (id serial primary key, ts timestamptz default current_timestamp, resource jsonb);
             create table patient (id text primary key, txid bigint not null, ts timestamptz default current_timestamp, resource_type text default 'Patient',
                 status resource_status not null, resource jsonb not null);
             create table goal (resource jsonb not null, extra int default 5, status resource_status not null, dropped text, ts timestamptz, id text primary key, txid bigint not null);
             alter table goal drop column dropped",
        )
        .unwrap();
    let file = File::new(b"{\"id\":\"1\",\"resourceType\":\"Patient\"}\n{\"id\":\"1\",\"resourceType\":\"Goal\"}\n");
    for _ in 0..2 {
        assert_eq!(value(&mut client, &format!("bulk.load('{}')", file.url())), r#"{"Goal": 1, "Patient": 1}"#);
    }
    let keys =
        "select string_agg(k, ',') from (select jsonb_object_keys(l::jsonb->'meta') as k from (select bulk.dump('Patient') as l) x) y";
    assert_eq!(value(&mut client, keys), "versionId,lastUpdated");
    assert_eq!(value(&mut client, "select row(extra, status) from goal"), "(5,updated)");
    assert_eq!(value(&mut client, "select l::jsonb->>'resourceType' from (select bulk.dump('Goal') as l) x"), "Goal");
    assert_eq!(failure(&mut client, "select bulk.dump('Patient', since => now())").code, "42703");
}

test!("what the server owns is taken from the columns, not from the JSON", envelope);
fn envelope() {
    let database = shared().database();
    let mut client = database.connect();
    let line = r#"{"id":"1","resourceType":"Patient","meta":{"versionId":"9","lastUpdated":"2001-01-01T00:00:00Z","profile":["p"],"extension":[{"url":"ex:createdAt","valueInstant":"2001-01-01T00:00:00Z"},{"url":"other"}]}}"#;
    let file = File::new(line.as_bytes());
    client.batch_execute(&format!("select bulk.load('{}', fhir => true)", file.url())).unwrap();
    assert_eq!(value(&mut client, "select resource from patient"), r#"{"meta": {"profile": ["p"], "extension": [{"url": "other"}]}}"#);
    // Rows that carry id, type and meta inside, and null columns.
    client
        .batch_execute(
            r#"truncate patient; insert into patient (id, txid, cts, ts, resource_type, status, resource) values
               ('1', 5, null, null, null, 'created', '{"id": "other", "resourceType": "Other", "meta": {"versionId": "1", "tag": [1]}}')"#,
        )
        .unwrap();
    assert_eq!(
        value(&mut client, "bulk.dump('Patient')"),
        r#"{"id": "1", "meta": {"tag": [1], "versionId": "5"}, "resourceType": "Patient"}"#
    );
    assert_eq!(
        value(&mut client, "bulk.dump('Patient', fhir => true)"),
        r#"{"id":"1","meta":{"tag":[1],"versionId":"5"},"resourceType":"Patient"}"#
    );
    client.batch_execute("set bulk.created_at_url = 'https://aidbox.app/ex/createdAt'; update patient set cts = '2021-06-10 08:26:10.5+00', resource = '{}'").unwrap();
    assert_eq!(
        value(&mut client, "bulk.dump('Patient', fhir => true)::jsonb#>>'{meta,extension}'"),
        r#"[{"url": "https://aidbox.app/ex/createdAt", "valueInstant": "2021-06-10T08:26:10.500000Z"}]"#
    );
    client.batch_execute("update patient set resource = '[1]'").unwrap();
    let error = failure(&mut client, "select bulk.dump('Patient')");
    assert_eq!(error.code, "2203C");
    assert!(error.message.contains("row \"1\" of table \"patient\""), "{error:?}");
}

test!("a load and a dump see what their transaction sees", transaction);
fn transaction() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    client.batch_execute("begin").unwrap();
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    assert_eq!(value(&mut client, "select count(*) from (select bulk.dump('Patient')) x"), "1");
    client.batch_execute("rollback").unwrap();
    assert_eq!(value(&mut client, "to_regclass('patient') is null"), "true");
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    let error = failure(&mut client, &format!("begin read only; select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!(error.code, "25006");
    client.batch_execute("rollback; begin isolation level repeatable read; select 1 from patient").unwrap();
    let mut other = database.connect();
    let second = File::new(b"{\"id\":\"2\"}\n");
    other.batch_execute(&format!("select bulk.load('{}', 'Patient')", second.url())).unwrap();
    assert_eq!(value(&mut client, "select count(*) from (select bulk.dump('Patient')) x"), "1");
    client.batch_execute("commit").unwrap();
    assert_eq!(value(&mut client, "select count(*) from (select bulk.dump('Patient')) x"), "2");
}

test!("a cancel during a load from a source that hangs ends it, and its threads", cancel);
fn cancel() {
    let database = shared().database();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n{\"id\":\"1\",\"resourceType\":\"Patient\"}\r\n".to_vec();
    let mut watch = database.connect();
    for answer in [Vec::new(), b"HTTP/1.1 200 OK\r\n".to_vec(), head] {
        for _ in 0..3 {
            let server = Faulty::start(answer.clone(), Then::Hang);
            let mut client = database.connect();
            let token = client.cancel_token();
            let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
            // Nothing but the cancel ends it within this test.
            let load = format!("select bulk.load('{}', options => '{{\"read-timeout\": 600000}}')", server.url());
            let loading = std::thread::spawn(move || {
                let error = client.batch_execute(&load).unwrap_err();
                (error.code().unwrap().code().to_owned(), client)
            });
            wait_until("the request has come", || server.requests.load(std::sync::atomic::Ordering::Relaxed) > 0);
            let waits = format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'Extension'");
            wait_until("the load waits for its source", || value(&mut watch, &waits) == "1");
            token.cancel_query(postgres::NoTls).unwrap();
            wait_until("the load has ended", || loading.is_finished());
            let (code, _client) = loading.join().unwrap();
            assert_eq!(code, "57014");
            wait_until("no thread is left", || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() == 1);
        }
    }
    // The good server still works in the same way.
    let directory = crate::support::cluster::server_directory();
    std::fs::write(directory.path().join("a"), "{\"id\":\"1\"}\n").unwrap();
    let nginx = Nginx::start(directory.path(), "");
    assert_eq!(value(&mut database.connect(), &format!("bulk.load('{}', 'Patient')", nginx.url("a"))), r#"{"total": 1}"#);
}

test!("a load and a dump show how far they are, and count as COPY does", progress);
fn progress() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let lines: String =
        (0..30_000).map(|id| format!("{{\"id\":\"{id}\",\"resourceType\":\"Patient\",\"note\":\"{}\"}}\n", "x".repeat(300))).collect();
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    answer.extend_from_slice(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes());
    let source = Faulty::start(answer, Then::Hang);
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let mut watch = database.connect();
    let shown = format!(
        "select command || ' ' || relid::regclass || ' ' || type from pg_stat_progress_copy where pid = {pid} and tuples_processed > 1000 and bytes_processed > 30000"
    );
    let canceller = client.cancel_token();
    let url = source.url();
    let running = std::thread::spawn(move || {
        client.batch_execute(&format!("select bulk.load('{url}', 'Patient')")).unwrap_err();
        client
    });
    wait_until("the load shows rows", || watch.query(&shown, &[]).unwrap().len() == 1);
    assert_eq!(value(&mut watch, &shown), "COPY FROM patient CALLBACK");
    canceller.cancel_query(postgres::NoTls).unwrap();
    let mut client = running.join().unwrap();
    // The server sends an error before it ends the transaction; an answer to the next statement says that it has.
    client.batch_execute("select 1").unwrap();
    let none = format!("select count(*) from pg_stat_progress_copy where pid = {pid}");
    assert_eq!(value(&mut watch, &none), "0");
    let file = File::new(lines.as_bytes());
    client.batch_execute(&format!("select bulk.load('{}'); select bulk.load('{}')", file.url(), file.url())).unwrap();
    assert_eq!(value(&mut watch, &none), "0");
    // A dump, as far as its cursor was read.
    client.batch_execute("begin; declare c cursor for select bulk.dump('Patient'); fetch 500 from c").unwrap();
    assert_eq!(value(&mut watch, &shown.replace("> 1000", ">= 500").replace("> 30000", "> 5000")), "COPY TO patient CALLBACK");
    client.batch_execute("close c; commit").unwrap();
    assert_eq!(value(&mut watch, &none), "0");
    // Inside a COPY that is shown by itself.
    client.batch_execute("copy (select bulk.dump('Patient')) to '/dev/null'; analyze patient").unwrap();
    assert_eq!(value(&mut watch, &none), "0");
    let devices = File::new(lines.replace("Patient", "Device").as_bytes());
    let load = format!("select bulk.load('{}')", devices.url());
    client.batch_execute(&format!("{load}; {load}; select pg_stat_force_next_flush(); select 1")).unwrap();
    let counters = "select n_tup_ins || ' ' || n_tup_upd || ' ' || n_live_tup from pg_stat_user_tables where relname = 'device'";
    wait_until("the counters are right", || value(&mut watch, counters) == "30000 30000 30000");
}

test!("loads that overlap write in one order, and a deadlock with others says what to do", overlapping);
fn overlapping() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
            create function nothing() returns trigger language plpgsql as 'begin return new; end'",
        )
        .unwrap();
    let lines = |ids: Vec<u32>| -> Vec<u8> { ids.iter().map(|id| format!("{{\"id\":\"{id}\"}}\n")).collect::<String>().into_bytes() };
    let (up, down) = (File::new(&lines((0..500).collect())), File::new(&lines((0..500).rev().collect())));
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", up.url())).unwrap();
    for (trigger, options) in [(false, "{}"), (false, "{\"update\": true}"), (true, "{}"), (true, "{\"on-conflict\": \"skip\"}")] {
        client.batch_execute("drop trigger if exists t on patient").unwrap();
        if trigger {
            client.batch_execute("create trigger t before insert or update on patient for each row execute function nothing()").unwrap();
        }
        let loads: Vec<_> = [up.url(), down.url(), up.url(), down.url()]
            .into_iter()
            .map(|url| {
                let (mut client, load) = (database.connect(), format!("select bulk.load('{url}', 'Patient', options => '{options}')"));
                std::thread::spawn(move || (0..20).try_for_each(|_| client.batch_execute(&load)))
            })
            .collect();
        for load in loads {
            load.join().unwrap().unwrap_or_else(|error| panic!("{trigger} {options}: {error:?}"));
        }
    }
    // Whoever takes rows in another order can meet any load; it is the load's turn to be ended.
    client.batch_execute("drop trigger if exists t on patient").unwrap();
    let mut other = database.connect();
    other.batch_execute("set deadlock_timeout = '60s'; begin; update patient set txid = txid where id = '499'").unwrap();
    let (mut loading, url) = (database.connect(), up.url());
    let pid: i32 = loading.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let load = std::thread::spawn(move || failure(&mut loading, &format!("select bulk.load('{url}', 'Patient')")));
    let waits = format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock'");
    wait_until("the load waits for the other", || value(&mut client, &waits) == "1");
    let _ = other.batch_execute("update patient set txid = txid where id = '0'; commit");
    let error = load.join().unwrap();
    assert_eq!(error.code, "40P01");
    assert!(error.hint.contains("bulk.import"), "{error:?}");
}
