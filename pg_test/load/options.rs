//! The options of a load: what they do to its lines, and how its source is asked.

use crate::support::cluster::{server_directory, shared};
use crate::support::source::{Faulty, File, Nginx, Then, gzip};
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

parts!(SERVER, WRITING);

test!("merge lays an object over every resource, strip-nulls takes nulls out, as the server's own functions do", changes);
fn changes() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = [
        r#"{"id":"1","resourceType":"Patient"}"#,
        r#"{"id":"2","resourceType":"Patient","a":null,"n":1.10,"deep":{"x":null,"y":[null,{"z":null,"k":"v"}]},"managingOrganization":{"reference":"Organization/9"}}"#,
        r#"{"id":"3","resourceType":"Patient","a":1,"a":null,"b":null,"b":2,"extra":{"x":1}}"#,
        r#"{"id":"4","resourceType":"Patient","meta":{"profile":["p"],"versionId":"7"},"deceasedBoolean":true}"#,
    ];
    let file = File::new(lines.join("\n").as_bytes());
    let merge = r#"{"extra": {"n": 12345678901234567890.1230, "none": null}, "a": [1.10, "é\n"], "b": null}"#;
    for fast in ["on", "off"] {
        client.batch_execute(&format!("set bulk.fast_path = {fast}")).unwrap();
        for (options, expected) in [
            (format!(r#"{{"merge": {merge}}}"#), format!("line || '{merge}'")),
            (r#"{"strip-nulls": true}"#.to_owned(), "jsonb_strip_nulls(line)".to_owned()),
            (format!(r#"{{"strip-nulls": true, "merge": {merge}}}"#), format!("jsonb_strip_nulls(line || '{merge}')")),
            (r#"{"strip-nulls": false, "merge": null}"#.to_owned(), "line".to_owned()),
        ] {
            for call in [
                format!("bulk.load('{}', 'Patient', options => '{options}')", file.url()),
                format!("bulk.load('{{\"source\": \"{}\", {}', 'Patient')", file.url(), &options[1..]),
                format!("bulk.load('{{\"source\": \"{}\", \"resourceType\": \"Patient\", {}'::jsonb)", file.url(), &options[1..]),
            ] {
                client.batch_execute("drop table if exists patient, patient_history").unwrap();
                assert_eq!(value(&mut client, &call), r#"{"total": 4}"#, "{call}");
                for line in lines {
                    let wanted = value(
                        &mut client,
                        &format!(
                            "select (({expected}) #- '{{meta,versionId}}') - 'id' - 'resourceType' from (select '{line}'::jsonb as line) x"
                        ),
                    );
                    let id = value(&mut client, &format!("select '{line}'::jsonb->>'id'"));
                    assert_eq!(value(&mut client, &format!("select resource from patient where id = '{id}'")), wanted, "{call}: {line}");
                }
            }
        }
    }
    // What is laid over is in the format of the lines.
    let options = r#"{"merge": {"managingOrganization": {"reference": "Organization/1"}, "deceasedDateTime": "2020"}}"#;
    client.batch_execute(&format!("select bulk.load('{}', fhir => true, options => '{options}')", file.url())).unwrap();
    let stored = value(&mut client, "select resource from patient where id = '1'");
    assert_eq!(stored, r#"{"deceased": {"dateTime": "2020"}, "managingOrganization": {"id": "1", "resourceType": "Organization"}}"#);
}

test!("wrong options are errors that say what is expected", wrong);
fn wrong() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    for options in [
        r#"{"merge": []}"#,
        r#"{"merge": "x"}"#,
        r#"{"merge": {"id": "1"}}"#,
        r#"{"merge": {"resourceType": "Goal"}}"#,
        r#"{"strip-nulls": "yes"}"#,
        r#"{"headers": ["x"]}"#,
        r#"{"headers": {"x": 1}}"#,
        r#"{"headers": {"x y": "1"}}"#,
        r#"{"headers": {"x": "1\r\nHost: evil"}}"#,
        r#"{"headers": {"Host": "evil"}}"#,
        r#"{"headers": {"content-length": "5"}}"#,
        r#"{"connect-timeout": -1}"#,
        r#"{"read-timeout": 1.5}"#,
        r#"{"retries": 101}"#,
        r#"{"retries": "3"}"#,
        r#"{"max-errors": -1}"#,
        r#"{"max-errors": "all"}"#,
        r#"{"method": 1}"#,
        r#"{"temp_table": ["x"]}"#,
        r#"{"keep-meta": 1}"#,
        r#"{"on-conflict": "latest"}"#,
        r#"{"validation": "on"}"#,
        r#"{"validation": {"enable": "maybe"}}"#,
        r#"{"validation": {"checks": "none"}}"#,
        r#"{"validation": {"on": true}}"#,
        r#"{"unknown": 1}"#,
        "[]",
        "null",
    ] {
        let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{options}')", file.url()));
        assert_eq!(error.code, "22023", "{options}: {error:?}");
    }
    // Deeper than a request may be, and no panic.
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{deep}')", file.url()));
    assert_eq!(error.code, "22023", "{error:?}");
    let error = failure(
        &mut client,
        &format!("select bulk.load('{}', 'Patient', options => '{{\"merge\": {{\"x\": \"\\u0000\"}}}}'::text::jsonb)", file.url()),
    );
    assert_eq!(error.code, "22P05", "{error:?}");
}

test!("options beside a request count where it does not say otherwise", beside);
/// Options beside a request.
fn beside() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    let load = |request: &str, options: &str| {
        format!("bulk.load('{{\"source\": \"{}\", \"resourceType\": \"Patient\"{request}}}', options => '{options}')", file.url())
    };
    assert_eq!(value(&mut client, &load("", "{}")), r#"{"total": 1}"#);
    assert_eq!(failure(&mut client, &format!("select {}", load(r#", "update": true"#, r#"{"on-conflict": "error"}"#))).code, "23505");
    assert_eq!(value(&mut client, &load(r#", "on-conflict": "overwrite""#, r#"{"on-conflict": "error"}"#)), r#"{"total": 1}"#);
    assert_eq!(value(&mut client, &load(r#", "merge": {"a": 1.10}"#, r#"{"merge": {"b": 2}, "update": true}"#)), r#"{"total": 1}"#);
    assert_eq!(value(&mut client, "select row(resource, (select count(*) from patient_history)) from patient"), r#"("{""a"": 1.10}",1)"#);
}

fn lines(count: u64, ids: u64, version: &str) -> String {
    (0..count).map(|line| format!("{{\"id\":\"{}\",\"line\":{line},\"version\":\"{version}\"}}\n", line % ids)).collect()
}

test!("update keeps every version in the history, also those that the load itself replaces", versions);
fn versions() {
    let database = shared().database();
    let mut client = database.connect();
    let load = |lines: &str, options: &str| {
        let file = File::new(lines.as_bytes());
        (format!("bulk.load('{}', 'Patient', options => '{options}')", file.url()), file)
    };
    let (first, _kept) = load(&lines(3000, 3000, "a"), "{}");
    client
        .batch_execute(&format!(
            "select {first}; create table before as table patient; update patient set cts = '2001-01-01', ts = '2002-02-02' where id = '7'"
        ))
        .unwrap();
    let (second, _kept) = load(&lines(2000, 2000, "b"), r#"{"update": true}"#);
    assert_eq!(value(&mut client, &second), r#"{"total": 2000}"#);
    assert_eq!(value(&mut client, "select count(*) from patient_history"), "2000");
    let same = "select count(*) from patient_history h join before b using (id, txid) where h.resource = b.resource and h.status = 'created' and h.resource_type = 'Patient'";
    assert_eq!(value(&mut client, same), "2000");
    assert_eq!(
        value(&mut client, "select row(cts, ts) from patient_history where id = '7'").replace("+00", ""),
        r#"("2001-01-01 00:00:00","2002-02-02 00:00:00")"#
    );
    assert_eq!(
        value(
            &mut client,
            "select row(count(*), count(distinct txid), min(txid) > (select max(txid) from patient_history)) from patient where resource->>'version' = 'b' and status = 'updated'"
        ),
        "(2000,2000,t)"
    );
    assert_eq!(value(&mut client, "select cts = '2001-01-01' and ts > '2020-01-01' from patient where id = '7'"), "true");
    // Lines of one id, near and far: each was a version. Ids 3000 to 3999 are new.
    let (third, _kept) = load(&lines(12_000, 4000, "c"), r#"{"update": true, "on-conflict": "overwrite"}"#);
    assert_eq!(value(&mut client, &third), r#"{"total": 12000}"#);
    assert_eq!(
        value(
            &mut client,
            "select row(count(*), min((resource->>'line')::int), count(distinct txid)) from patient where resource->>'version' = 'c'"
        ),
        "(4000,8000,4000)"
    );
    let chain = "select count(*) from (select id, txid, (resource->>'line')::int as line, lag((resource->>'line')::int) over (partition by id order by txid) as before
        from (select * from patient union all select * from patient_history) x where resource->>'version' = 'c') y";
    assert_eq!(value(&mut client, chain), "12000");
    assert_eq!(value(&mut client, &format!("{chain} where line <> before + 4000")), "0");
    let states = "select string_agg(status::text, ' ' order by txid) from (select * from patient union all select * from patient_history) x where id = 'ID'";
    assert_eq!(value(&mut client, &states.replace("ID", "5")), "created updated updated updated updated");
    assert_eq!(value(&mut client, &states.replace("ID", "3500")), "created updated updated");
    // Deleted as Aidbox does it.
    client.batch_execute("with gone as (delete from patient where id = '5' returning *) insert into patient_history select id, nextval('transaction_id_seq'), cts, now(), resource_type, 'deleted', resource from gone").unwrap();
    let (fourth, _kept) = load("{\"id\":\"5\"}\n{\"id\":\"5\",\"again\":1}\n", r#"{"update": true}"#);
    assert_eq!(value(&mut client, &fourth), r#"{"total": 2}"#);
    assert!(value(&mut client, &states.replace("ID", "5")).ends_with("deleted recreated updated"));
    // By default history is left alone.
    let before = value(&mut client, "select count(*) from patient_history");
    client.batch_execute(&format!("select {first}")).unwrap();
    assert_eq!(value(&mut client, "select count(*) from patient_history"), before);
}

test!("no version is lost when sessions update the same ids at once", versions_at_once);
fn versions_at_once() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let files: Vec<File> = (0..4).map(|session| File::new(lines(9000, 1500, &session.to_string()).as_bytes())).collect();
    std::thread::scope(|scope| {
        for file in &files {
            let mut client = database.connect();
            scope.spawn(move || {
                client.batch_execute(&format!("select bulk.load('{}', 'Patient', options => '{{\"update\": true}}')", file.url())).unwrap()
            });
        }
    });
    assert_eq!(value(&mut client, "select count(*) from patient"), "1500");
    let all = "(select * from patient union all select * from patient_history) x";
    assert_eq!(
        value(
            &mut client,
            &format!("select row(count(*), count(distinct txid), count(distinct (resource->>'version', resource->>'line'))) from {all}")
        ),
        "(36000,36000,36000)"
    );
    // Each session's versions of an id are one behind another: a whole load is one transaction.
    assert_eq!(value(&mut client, &format!("select count(*) from {all} where status = 'created'")), "1500");
}

test!("on-conflict: ids that exist are refused with their line, or passed over", conflicts);
fn conflicts() {
    let database = shared().database();
    let mut client = database.connect();
    let load = |file: &File, mode: &str| format!("bulk.load('{}', 'Patient', options => '{{\"on-conflict\": \"{mode}\"}}')", file.url());
    let first = File::new(lines(1000, 1000, "a").as_bytes());
    assert_eq!(value(&mut client, &load(&first, "error")), r#"{"total": 1000}"#);
    let more = File::new(format!("{}{}", lines(5, 5, "x").replace("\"id\":\"", "\"id\":\"new-"), lines(3, 3, "b")).as_bytes());
    let error = failure(&mut client, &format!("select {}", load(&more, "error")));
    assert_eq!((error.code.as_str(), error.message.as_str()), ("23505", "resource with this id exists already"));
    assert_eq!(error.detail.matches("byte 1: resource with this id exists already").count(), 3, "{error:?}");
    assert!(error.detail.lines().next().unwrap().contains("line 6, byte 1:"), "{error:?}");
    assert_eq!(value(&mut client, "select count(*) from patient"), "1000");
    let twice = File::new(lines(3000, 2900, "n").replace("\"id\":\"", "\"id\":\"twice-").as_bytes());
    let error = failure(&mut client, &format!("select {}", load(&twice, "error")));
    assert!(error.code == "23505" && error.detail.lines().next().unwrap().contains("line 2901, byte 1:"), "{error:?}");
    assert_eq!(value(&mut client, &load(&more, "skip")), r#"{"total": 5}"#);
    assert_eq!(value(&mut client, "select row(count(*), count(*) filter (where resource->>'version' = 'b')) from patient"), "(1005,0)");
    // The first line of an id is the one that is stored.
    assert_eq!(value(&mut client, &load(&twice, "skip")), r#"{"total": 2900}"#);
    assert_eq!(value(&mut client, "select max((resource->>'line')::int) from patient where id like 'twice-%'"), "2899");
    assert_eq!(value(&mut client, "select count(*) from patient_history"), "0");
    assert_eq!(failure(&mut client, &format!("select {}", load(&more, "ignore"))).code, "22023");
    assert_eq!(
        value(
            &mut client,
            &format!("bulk.load('{{\"source\": \"{}\", \"on-conflict\": \"skip\", \"resourceType\": \"Patient\"}}')", more.url())
        ),
        r#"{"total": 0}"#
    );
}

test!("odd tables keep versions and refuse ids as others do", odd_tables);
fn odd_tables() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(lines(10, 5, "a").as_bytes());
    let load = |options: &str| format!("bulk.load('{}', 'Patient', options => '{options}')", file.url());
    let update = load(r#"{"update": true}"#);
    // Partitioned, with other columns in another order; what a trigger keeps from being stored is nobody's version.
    client
        .batch_execute(
            "create type resource_status as enum ('created', 'updated', 'deleted', 'recreated');
             create table patient (note text default 'x', resource jsonb not null, id text primary key, status resource_status not null, txid bigint not null, ts timestamptz, size int generated always as (length(id)) stored) partition by hash (id);
             create table patient_0 partition of patient for values with (modulus 2, remainder 0); create table patient_1 partition of patient for values with (modulus 2, remainder 1);
             create table patient_history (id text, txid bigint, status resource_status, resource jsonb, ts timestamptz, note text, primary key (id, txid));
             create function swallow() returns trigger language plpgsql as 'begin if new.id = ''3'' then return null; end if; return new; end';
             create trigger swallow before insert on patient for each row execute function swallow()",
        )
        .unwrap();
    assert_eq!(value(&mut client, &update), r#"{"total": 10}"#);
    assert_eq!(value(&mut client, "select row(count(*), min((resource->>'line')::int)) from patient"), "(4,5)");
    assert_eq!(value(&mut client, "select row(count(*), max((resource->>'line')::int), min(note)) from patient_history"), "(4,4,x)");
    assert_eq!(value(&mut client, &load(r#"{"on-conflict": "skip"}"#)), r#"{"total": 0}"#);
    assert_eq!(failure(&mut client, &format!("select {}", load(r#"{"on-conflict": "error"}"#))).code, "23505");
    // Whoever may not write the history keeps none.
    let role = format!("writer_{}", database.name);
    client.batch_execute(&format!("create role {role} login; grant pg_read_server_files to {role}; grant select, insert, update on patient to {role}; grant select on patient_history to {role}; grant usage on sequence transaction_id_seq to {role}")).unwrap();
    let mut writer = database.connect_as(&role);
    assert_eq!(failure(&mut writer, &format!("select {update}")).code, "42501");
    client.batch_execute("drop table patient_history").unwrap();
    let error = failure(&mut client, &format!("select {update}"));
    assert!(error.code == "42P01" && error.hint.contains("create_resource_table"), "{error:?}");
}

test!("newer keeps what is newer, and takes its time from the lines", newer);
fn newer() {
    let database = shared().database();
    let mut client = database.connect();
    let line =
        |id: &str, time: &str, note: &str| format!("{{\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"{time}\"}},\"note\":\"{note}\"}}\n");
    let first = ["a", "b", "c", "d"].map(|id| line(id, "2020-01-01T00:00:00Z", "first")).concat();
    let second = line("a", "2019-01-01T00:00:00Z", "older")
        + &line("b", "2020-01-01T01:00:00+01:00", "same")
        + &line("c", "2020-01-01T00:00:00.000001Z", "newer")
        + &line("d", "2022-01-01T00:00:00Z", "newest")
        + &line("d", "2021-01-01T00:00:00Z", "between")
        + &line("e", "1999-01-01T00:00:00Z", "new");
    let (first, second) = (File::new(first.as_bytes()), File::new(second.as_bytes()));
    let load = |file: &File, options: &str| format!("bulk.load('{}', 'Patient', options => '{options}')", file.url());
    let notes =
        "select string_agg(concat_ws(' ', id, resource->>'note', to_char(ts at time zone 'utc', 'YYYY')), ', ' order by id) from patient";
    for (options, kept) in [(r#"{"on-conflict": "newer"}"#, "0"), (r#"{"on-conflict": "newer", "update": true}"#, "2")] {
        client.batch_execute("drop table if exists patient, patient_history").unwrap();
        assert_eq!(value(&mut client, &load(&first, options)), r#"{"total": 4}"#);
        assert_eq!(value(&mut client, &load(&second, options)), r#"{"total": 3}"#);
        assert_eq!(
            value(&mut client, "select concat_ws(' ', read, stored, skipped, rejected) from bulk.job where id = bulk.last_load_id()"),
            "6 3 3 0"
        );
        assert_eq!(value(&mut client, notes), "a first 2020, b first 2020, c newer 2020, d newest 2022, e new 1999");
        assert_eq!(value(&mut client, "select count(*) from patient_history"), kept);
        assert_eq!(value(&mut client, "select count(*) from patient where cts > now() - interval '1 hour'"), "5");
    }
    client.batch_execute("update patient set ts = null where id = 'a'").unwrap();
    assert_eq!(value(&mut client, &load(&second, r#"{"on-conflict": "newer"}"#)), r#"{"total": 1}"#);
    let undated = File::new(b"{\"id\":\"x\",\"meta\":{\"lastUpdated\":\"2020\"}}\n{\"id\":\"y\"}\n");
    let error = failure(&mut client, &format!("select {}", load(&undated, r#"{"on-conflict": "newer"}"#)));
    assert!(error.code == "22007" && error.detail.lines().count() == 2, "{error:?}");
    client.batch_execute("alter table patient drop column ts").unwrap();
    assert_eq!(failure(&mut client, &format!("select {}", load(&first, r#"{"on-conflict": "newer"}"#))).code, "42703");
}

test!("keep-meta takes versions and times from the lines, and the sequence goes on behind them", keep_meta);
fn keep_meta() {
    let database = shared().database();
    let mut client = database.connect();
    let aidbox = r#"{"id":"1","meta":{"versionId":"500000","lastUpdated":"2020-02-03T04:05:06.789Z","createdAt":"2019-01-01T00:00:00Z","tag":[{"code":"x"}]}}
{"id":"2","meta":{"lastUpdated":"2020-01-01T00:00:00Z"}}
{"id":"3"}
{"id":"4","meta":{"versionId":7}}
"#;
    let file = File::new(aidbox.as_bytes());
    let load = |file: &File, fhir: bool| format!("bulk.load('{}', 'Patient', {fhir}, '{{\"keep-meta\": true}}')", file.url());
    let facts = |id: &str| {
        format!(
            "select concat_ws(' ', txid, status, to_char(ts at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.MS'), to_char(cts at time zone 'utc', 'YYYY-MM-DD'), resource) from patient where id = '{id}'"
        )
    };
    for fast in ["on", "off"] {
        client
            .batch_execute(&format!(
                "set bulk.fast_path = {fast}; drop table if exists patient, patient_history; drop sequence if exists transaction_id_seq"
            ))
            .unwrap();
        assert_eq!(value(&mut client, &load(&file, false)), r#"{"total": 4}"#);
        assert_eq!(
            value(&mut client, &facts("1")),
            r#"500000 created 2020-02-03 04:05:06.789 2019-01-01 {"meta": {"tag": [{"code": "x"}]}}"#
        );
        assert_eq!(
            value(
                &mut client,
                "select to_char(ts at time zone 'utc', 'YYYY') || (cts > now() - interval '1 hour') from patient where id = '2'"
            ),
            "2020true"
        );
        assert_eq!(value(&mut client, "select ts > now() - interval '1 hour' and txid < 100 from patient where id = '3'"), "true");
        assert_eq!(value(&mut client, "select txid from patient where id = '4'"), "7");
        assert_eq!(value(&mut client, "select nextval('transaction_id_seq') > 500000"), "true");
    }
    // What is dumped and loaded elsewhere is the same; what a line does not say of a row that exists stays.
    client.batch_execute("update patient set ts = '2001-02-03 04:05:06.000007+00', cts = '2000-01-01' where id = '3'").unwrap();
    for fhir in [false, true] {
        let lines: Vec<String> =
            client.query("select bulk.dump('Patient', fhir => $1)", &[&fhir]).unwrap().iter().map(|row| row.get(0)).collect();
        let dumped = File::new(lines.join("\n").as_bytes());
        client.batch_execute("drop table if exists before; create table before as table patient; truncate patient").unwrap();
        client.batch_execute(&format!("select {}", load(&dumped, fhir))).unwrap();
        let same = "select count(*) from patient p join before b using (id, txid, ts, cts, resource)";
        assert_eq!(value(&mut client, same), "4");
    }
    let again = File::new(b"{\"id\":\"3\",\"meta\":{\"lastUpdated\":\"2030-01-01T00:00:00Z\"}}\n");
    client.batch_execute(&format!("select {}", load(&again, false))).unwrap();
    assert_eq!(
        value(&mut client, "select concat_ws(' ', status, extract(year from ts), extract(year from cts)) from patient where id = '3'"),
        "updated 2030 2000"
    );
    for (line, code) in [
        (r#"{"id":"1","meta":{"versionId":"abc"}}"#, "22023"),
        (r#"{"id":"1","meta":{"versionId":"0"}}"#, "22023"),
        (r#"{"id":"1","meta":{"versionId":"9223372036854775807"}}"#, "22023"),
        (r#"{"id":"1","meta":{"lastUpdated":"yesterday"}}"#, "22007"),
        (r#"{"id":"1","meta":{"createdAt":5}}"#, "22007"),
    ] {
        let file = File::new(line.as_bytes());
        let error = failure(&mut client, &format!("select {}", load(&file, false)));
        assert_eq!(error.code, code, "{line}");
    }
    let role = format!("keeper_{}", database.name);
    client.batch_execute(&format!("create role {role} login; grant pg_read_server_files to {role}; grant all on patient, patient_history to {role}; grant all on sequence transaction_id_seq to {role}")).unwrap();
    let mut keeper = database.connect_as(&role);
    assert_eq!(failure(&mut keeper, &format!("select {}", load(&again, false))).code, "42501");
    client.batch_execute(&format!("grant bulk_admin to {role}")).unwrap();
    // Again and again: a version that is stored anew is no earlier one.
    let versioned = File::new(b"{\"id\":\"v\",\"meta\":{\"versionId\":\"600000\"}}\n");
    for _ in 0..3 {
        let load = format!("bulk.load('{}', 'Patient', options => '{{\"keep-meta\": true, \"update\": true}}')", versioned.url());
        assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
    }
    assert_eq!(value(&mut client, "select count(*) from patient_history where id = 'v'"), "0");
    assert_eq!(value(&mut keeper, &load(&again, false)), r#"{"total": 1}"#);
}

test!("method insert gives what copy gives", methods);
fn methods() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(lines(5000, 4000, "a").as_bytes());
    for method in ["copy", "insert"] {
        client.batch_execute(&format!("select bulk.load('{}', 'Patient', options => '{{\"method\": \"{method}\"}}'); alter table patient rename to {method}; drop table patient_history", file.url())).unwrap();
    }
    assert_eq!(value(&mut client, "select count(*) from copy join insert using (id, status, resource)"), "4000");
    client.batch_execute("set client_min_messages = debug1").unwrap();
    assert_eq!(
        failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"method\": \"guess\"}}')", file.url())).code,
        "22023"
    );
}

test!("a stage of a load without a type is of the first line's", stages_by_line);
fn stages_by_line() {
    let database = shared().database();
    let mut client = database.connect();
    let patient = |id: u32| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    let goal = "{\"resourceType\":\"Goal\",\"id\":\"1\"}\n";
    let load = |file: &File, options: &str| format!("bulk.load('{}', options => '{{\"temp_table\": \"_stage\"{options}}}')", file.url());
    let patients = File::new((1..=2000).map(patient).collect::<String>().as_bytes());
    for _ in 0..2 {
        assert_eq!(value(&mut client, &load(&patients, "")), r#"{"Patient": 2000}"#);
    }
    let mixed = File::new(format!("{}{goal}{}", patient(1), patient(2001)).as_bytes());
    let error = failure(&mut client, &format!("select {}", load(&mixed, "")));
    assert_eq!((error.code.as_str(), error.detail.contains("line 2")), ("42809", true), "{error:?}");
    assert_eq!(value(&mut client, &load(&mixed, r#", "max-errors": 1"#)), r#"{"Patient": 2}"#);
    assert_eq!(
        value(&mut client, "select count(*) || ' ' || coalesce(to_regclass('patient'), to_regclass('goal'), 'pg_class')::text from _stage"),
        "2001 pg_class"
    );
    assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), r#"{"total": 2001}"#);
    let nothing = File::new(b"");
    assert_eq!(value(&mut client, &format!("bulk.load('{}', options => '{{\"temp_table\": \"_other\"}}')", nothing.url())), "{}");
    assert_eq!(value(&mut client, "to_regclass('_other')"), "null");
}

test!("a stage is filled, looked at, merged as the load said, and dropped", stages);
fn stages() {
    let database = shared().database();
    let mut client = database.connect();
    let load = |lines: &str, options: &str| {
        let file = File::new(lines.as_bytes());
        (format!("bulk.load('{}', 'patient', options => '{{\"temp_table\": \"_stage\"{options}}}')", file.url()), file)
    };
    let (first, _kept) = load(&lines(3000, 2000, "a"), "");
    assert_eq!(value(&mut client, &first), r#"{"total": 3000}"#);
    assert_eq!(value(&mut client, "to_regclass('patient')"), "null");
    assert_eq!(value(&mut client, "select count(*) from _stage"), "2000");
    assert_eq!(
        value(
            &mut client,
            "select concat_ws(' ', relpersistence, resource_type, on_conflict, keep_history, keep_meta) from pg_class c \
             join bulk_internal.staging_table s on s.relation = c.oid where relname = '_stage'"
        ),
        "u Patient overwrite f f"
    );
    assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), r#"{"total": 2000}"#);
    assert_eq!(
        value(&mut client, "select row(count(*), count(distinct txid), min(status)) from patient where resource_type = 'Patient'"),
        "(2000,2000,created)"
    );
    // The stage is still there, and takes more.
    let (second, _kept) = load(&lines(10, 10, "b"), r#", "update": true"#);
    assert_eq!(value(&mut client, &second), r#"{"total": 10}"#);
    assert_eq!(value(&mut client, "bulk.stage_merge('public._stage')"), r#"{"total": 2000}"#);
    assert_eq!(
        value(
            &mut client,
            "select row(count(*), count(*) filter (where resource->>'version' = 'b')) from patient where status = 'updated'"
        ),
        "(2000,10)"
    );
    assert_eq!(value(&mut client, "select count(*) from patient_history"), "2000");
    client.batch_execute("select bulk.stage_drop('_stage'); delete from patient where id <> '1'").unwrap();
    assert_eq!(value(&mut client, "to_regclass('_stage')"), "null");
    for (conflict, merged) in [("skip", r#"{"total": 9}"#), ("overwrite", r#"{"total": 10}"#), ("newer", r#"{"total": 9}"#)] {
        let dated = lines(10, 10, "c").replace("\"line\"", "\"meta\":{\"lastUpdated\":\"2001-01-01T00:00:00Z\"},\"line\"");
        let (third, _kept) = load(&dated, &format!(r#", "on-conflict": "{conflict}""#));
        client.batch_execute(&format!("begin; select {third}")).unwrap();
        assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), merged, "{conflict}");
        let untouched = if conflict == "overwrite" { "c" } else { "b" };
        assert_eq!(value(&mut client, "select resource->>'version' from patient where id = '1'"), untouched);
        let time = if conflict == "newer" { "2001" } else { "now" };
        assert_eq!(
            value(
                &mut client,
                "select case when ts > now() - interval '1 hour' then 'now' else to_char(ts, 'YYYY') end from patient where id = '2'"
            ),
            time
        );
        client.batch_execute("rollback").unwrap();
    }
    let (fourth, _kept) = load(&lines(3, 3, "d"), r#", "on-conflict": "error""#);
    client.batch_execute(&format!("select {fourth}")).unwrap();
    assert_eq!(failure(&mut client, "select bulk.stage_merge('_stage')").code, "23505");
    assert_eq!(failure(&mut client, &format!("select {fourth}")).code, "23505");
    assert_eq!(failure(&mut client, &format!("select {}", fourth.replace("'patient'", "'Goal'"))).code, "42809");
    assert_eq!(failure(&mut client, &format!("select {}", fourth.replace("_stage", "patient"))).code, "42809");
    assert_eq!(failure(&mut client, &format!("select {}", fourth.replace("'patient'", "null"))).code, "23502");
    for (call, code) in [
        ("bulk.stage_merge('nothing')", "42809"),
        ("bulk.stage_drop('patient')", "42809"),
        ("bulk.stage_drop('a.b.c')", "42602"),
        ("bulk.stage_drop('no_schema.x')", "3F000"),
    ] {
        assert_eq!(failure(&mut client, &format!("select {call}")).code, code, "{call}");
    }
    assert_eq!(value(&mut client, "select count(*) from patient"), "1");
    // What a line does not say stays as it is; versions go on behind what is merged.
    client.batch_execute("update patient set cts = '2001-01-01', ts = '2001-01-01'; select bulk.stage_drop('_stage')").unwrap();
    let kept = "{\"id\":\"1\",\"meta\":{\"versionId\":\"700000\"}}\n{\"id\":\"2\",\"meta\":{\"createdAt\":\"2002-01-01T00:00:00Z\"}}\n";
    let (fifth, _kept) = load(kept, r#", "keep-meta": true, "update": true"#);
    client.batch_execute(&format!("select {fifth}")).unwrap();
    for _ in 0..3 {
        assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), r#"{"total": 2}"#);
    }
    assert_eq!(
        value(
            &mut client,
            "select string_agg(concat_ws(' ', id, txid > 600000, extract(year from cts), ts > now() - interval '1 hour'), ', ' order by id) from patient"
        ),
        "1 t 2001 t, 2 t 2002 t"
    );
    assert_eq!(value(&mut client, "select nextval('transaction_id_seq') > 700000"), "true");
    // A table that somebody else laid there is no stage.
    let role = format!("squatter_{}", database.name);
    client.batch_execute(&format!("create role {role}; create schema theirs authorization {role}; grant select on _stage to {role}; set role {role}; set search_path = theirs, public;
        create unlogged table bait (like public._stage including all); reset role;
        insert into bulk_internal.staging_table values ('theirs.bait'::regclass, 'Patient', 'overwrite', false, false)")).unwrap();
    for call in [
        "bulk.stage_merge('bait')".to_owned(),
        "bulk.stage_drop('theirs.bait')".to_owned(),
        fifth.replace("_stage", "bait"),
        fifth.replace("_stage", "patient_history"),
    ] {
        assert_eq!(failure(&mut client, &format!("select {call}")).code, "42809", "{call}");
    }
    client.batch_execute("reset search_path; create trigger t before insert on _stage for each row execute function suppress_redundant_updates_trigger()").unwrap();
    assert_eq!(failure(&mut client, "select bulk.stage_merge('_stage')").code, "42809");
}

test!("patterns of files are loaded in the order of their names", patterns);
fn patterns() {
    let directory = server_directory();
    for (name, lines) in [
        ("b.ndjson", "{\"id\":\"1\",\"from\":\"b\"}\n"),
        ("a.ndjson", "{\"id\":\"1\",\"from\":\"a\"}\n"),
        ("c.txt", "]"),
        ("x[1].ndjson", "{\"id\":\"2\"}\n"),
    ] {
        fs::write(directory.path().join(name), lines).unwrap();
    }
    fs::create_dir(directory.path().join("d.ndjson")).unwrap();
    let database = shared().database();
    let mut client = database.connect();
    let path = directory.path().display();
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/?.ndjson', 'Patient')")), r#"{"total": 2}"#);
    assert_eq!(value(&mut client, "select resource->>'from' from patient"), "b");
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/*.ndjson', 'Patient')")), r#"{"total": 3}"#);
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/x[1].ndjson', 'Patient')")), r#"{"total": 1}"#);
    assert_eq!(value(&mut client, &format!("bulk.load('{{\"source\": [\"{path}/a*\", \"{path}/x*\"]}}', 'Patient')")), r#"{"total": 2}"#);
    assert_eq!(
        value(&mut client, "select request->'source' from bulk.job where id = bulk.last_load_id()"),
        format!("[\"file://{path}/a*\", \"file://{path}/x*\"]")
    );
    assert_eq!(failure(&mut client, &format!("select bulk.load('{path}/*.nothing', 'Patient')")).code, "58P01");
}

test!("headers go to the source, and never to where a redirect leads", headers);
fn headers() {
    let directory = server_directory();
    fs::write(directory.path().join("lines"), gzip(b"{\"id\":\"1\"}\n")).unwrap();
    let guarded = "location / { if ($http_x_key != 'k 1') { return 403; } if ($http_authorization != 'Bearer t') { return 401; } }";
    let nginx = Nginx::start(directory.path(), &format!("{guarded} location /inside {{ return 302 /lines; }}"));
    let other =
        Nginx::start(directory.path(), "location /lines { if ($http_x_key) { return 418; } if ($http_authorization) { return 418; } }");
    let gate = Nginx::start(directory.path(), &format!("location / {{ return 307 {}; }}", other.url("lines")));
    let database = shared().database();
    let mut client = database.connect();
    let options = r#"{"headers": {"X-Key": "k 1", "authorization": "Bearer t"}}"#;
    let load = |url: String, options: &str| format!("bulk.load('{url}', 'Patient', options => '{options}')");
    assert_eq!(failure(&mut client, &format!("select {}", load(nginx.url("lines"), "{}"))).code, "08004");
    for url in [nginx.url("lines"), nginx.url("inside"), gate.url("lines")] {
        assert_eq!(value(&mut client, &load(url, options)), r#"{"total": 1}"#);
    }
    assert_eq!(failure(&mut client, &format!("select {}", load(other.url("lines"), options))).code, "08006");
}

test!("what passes is tried again as often as asked, when the server asks", retries);
fn retries() {
    let database = shared().database();
    let mut client = database.connect();
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"id\":\"1\"}\n".to_vec();
    let status = |head: &str| format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let failing = [
        status("503 Busy"),
        status("429 Slow\r\nRetry-After: 1"),
        Vec::new(),
        status("500 Oops\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
    ];
    for (retries, requests) in [(4, 5), (10, 5)] {
        let server = Faulty::in_turn([&failing[..], std::slice::from_ref(&good)].concat(), Then::Close);
        let began = Instant::now();
        let load = format!("bulk.load('{}', 'Patient', options => '{{\"retries\": {retries}}}')", server.url());
        assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
        assert_eq!(server.requests.load(Ordering::Relaxed), requests);
        assert!(began.elapsed() >= Duration::from_secs(1), "the server asked for a second");
    }
    for (answer, retries, requests, code) in [
        (status("503 Busy"), 0, 1, "08006"),
        (status("503 Busy"), 2, 3, "08006"),
        (status("404 No"), 5, 1, "58P01"),
        (status("403 No"), 5, 1, "08004"),
        (status("418 No"), 5, 1, "08006"),
    ] {
        let server = Faulty::start(answer, Then::Close);
        let error =
            failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": {retries}}}')", server.url()));
        assert_eq!((error.code.as_str(), server.requests.load(Ordering::Relaxed)), (code, requests), "{error:?}");
    }
    // A body that breaks is not asked for twice: its rows would be.
    let server = Faulty::start(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"id\":\"1\"}\n".to_vec(), Then::Close);
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": 3}}')", server.url()));
    assert_eq!((error.code.as_str(), server.requests.load(Ordering::Relaxed)), ("22P04", 1));
    // A cancel does not wait for the pause, which is longer than this bound.
    let server = Faulty::start(status("503 Busy\r\nRetry-After: 50"), Then::Close);
    let began = Instant::now();
    client.batch_execute("set statement_timeout = '300ms'").unwrap();
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": 3}}')", server.url()));
    assert_eq!(error.code, "57014");
    assert!(began.elapsed() < Duration::from_secs(50));
}

test!("a server that keeps silent ends in an error after the timeouts", timeouts);
fn timeouts() {
    let database = shared().database();
    let mut client = database.connect();
    // Whoever hung would end in 57014.
    client.batch_execute("set statement_timeout = '30s'").unwrap();
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"id\":\"1\"}\n"] {
        let server = Faulty::start(answer.as_bytes().to_vec(), Then::Hang);
        let error =
            failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"read-timeout\": 200}}')", server.url()));
        assert_eq!((error.code.as_str(), error.message.as_str()), ("08006", "timed out"), "{error:?}");
    }
    // Its queue is full: whoever comes next waits for ever.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let _waiting: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100))).collect();
    let error =
        failure(&mut client, &format!("select bulk.load('http://{address}/x', 'Patient', options => '{{\"connect-timeout\": 300}}')"));
    assert_eq!(error.code, "08006", "{error:?}");
    // A slow server is none that keeps silent.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 311\r\n\r\n";
    let body = format!("{{\"id\":\"1\",\"x\":\"{}\"}}\n", "x".repeat(311 - 18));
    let server = Faulty::start([head, &body].concat().into_bytes(), Then::Trickle(head.len()));
    let load = format!("bulk.load('{}', 'Patient', options => '{{\"read-timeout\": 700, \"connect-timeout\": 1000}}')", server.url());
    assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
}
