//! Ids that are there: which version stays, which goes to the history, which line is refused.

use crate::support::cluster::shared;
use crate::support::source::File;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};

parts!(SERVER, WRITING);

/// Observations as NDJSON: so many lines, of so many ids.
pub fn lines(count: u64, ids: u64, version: &str) -> String {
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
    assert_eq!(value(&mut client, &update), r#"{"total": 8}"#);
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
