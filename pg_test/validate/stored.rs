//! `bulk.validate`: what is stored, looked at by background workers.

use crate::support::cluster::{cache, shared};
use crate::support::jobs::{hold, outcome, patients, stuck, validated};
use crate::support::source::File;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;

parts!(SERVER, WRITING);

test!("bulk.validate finds in stored resources what a load would have refused", finds);
fn finds() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 50_000);
    client.batch_execute("insert into patient (id, txid, status, resource) values ('not an id', 1, 'created', '{}'), ('gone', 2, 'deleted', '{\"x\": 1}')").unwrap();
    let (id, state) = validated(&mut client, "'patient'");
    assert_eq!((state.as_str(), outcome(&mut client, &id).as_str()), ("done", "done 50001 5001"));
    let found = format!(
        "select string_agg(distinct concat_ws(' ', source, coalesce(line, byte_offset), resource_type, sqlstate, path, message, raw), '; ') from bulk.load_error where load_id = '{id}'"
    );
    assert_eq!(
        value(&mut client, &found),
        "public.patient Patient 23514 id id: is no id; public.patient Patient 23514 name name: expected array"
    );
    assert_eq!(
        value(
            &mut client,
            &format!("select count(distinct e.id) from bulk.load_error e where load_id = '{id}' and e.id::int % 10 = 0 and path = 'name'")
        ),
        "5000"
    );
    let part = format!(
        "select concat_ws(' ', source, resource_type, state, position = size and size > 500, read, rejected, pid) from bulk.job_file where job_id = '{id}'"
    );
    assert_eq!(value(&mut client, &part), "public.patient Patient done t 50001 5001");
    assert_eq!(value(&mut client, "select count(*) from bulk.progress"), "0");
    // As many as may be wrong, the findings so far stay.
    let (id, state) = validated(&mut client, r#"'Patient', options => '{"max-errors": 100}'"#);
    assert_eq!(state, "error");
    assert_eq!(value(&mut client, &format!("select message from bulk.job where id = '{id}'")), "more than 100 resources are invalid");
    assert_eq!(
        value(
            &mut client,
            &format!(
                "select rejected between 101 and 5000 and rejected = (select count(*) from bulk.load_error e where e.load_id = j.id) from bulk.job j where id = '{id}'"
            )
        ),
        "true"
    );
    // Tables that hold FHIR, a table of partitions, a view, a type without definition, a type without table.
    client
        .batch_execute(
            "create table goal (id text, txid bigint, ts timestamptz, cts timestamptz, status resource_status, resource_type text, resource jsonb) partition by list (id);
            create table goal_1 partition of goal default;
            insert into goal (id, txid, status, resource) values ('g1', 1, 'created', '{\"lifecycleStatus\": \"active\", \"description\": {\"text\": \"x\"}, \"subject\": {\"display\": \"x\"}, \"startDate\": \"2020-01-01\"}');
            select bulk.create_resource_table('Custom');
            insert into custom (id, txid, status, resource) values ('1', 1, 'created', '{\"whatever\": [[]]}') ; 
            create view encounter as select id, txid, ts, cts, status, resource_type, resource from patient where id in ('10', '20', '21')",
        )
        .unwrap();
    let (id, _) = validated(&mut client, "'Goal'");
    assert_eq!(outcome(&mut client, &id), "done 1 1");
    client.batch_execute("set bulk.resource_format = fhir").unwrap();
    let (id, _) = validated(&mut client, "'Goal'");
    assert_eq!(outcome(&mut client, &id), "done 1 0");
    client.batch_execute("reset bulk.resource_format").unwrap();
    let (id, _) = validated(&mut client, "'Custom'");
    assert_eq!(outcome(&mut client, &id), "done 1 0");
    let (id, _) = validated(&mut client, "'Encounter'");
    assert_eq!(value(&mut client, &format!("select read from bulk.job where id = '{id}'")), "3");
    let (id, state) = validated(&mut client, "'Medication'");
    assert_eq!((state.as_str(), outcome(&mut client, &id).as_str()), ("done", "done"));
}

test!("bulk.validate looks for what references refer to", references);
fn references() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 3000);
    client
        .batch_execute(
            "select bulk.create_resource_table('Observation');
            insert into observation (id, txid, status, resource)
            select n::text, n, 'created', jsonb_build_object('status', 'final', 'code', '{\"text\": \"x\"}'::jsonb,
                'subject', jsonb_build_object('resourceType', 'Patient', 'id', (n + n % 3 / 2 * 10000)::text),
                'encounter', case when n = 1 then '{\"resourceType\": \"Encounter\", \"id\": \"none\"}'::jsonb end)
                - (case when n = 1 then '' else 'encounter' end)
            from generate_series(1, 3000) n;
            update observation set resource = resource || '{\"wrong\": 1}' where id in ('2', '3')",
        )
        .unwrap();
    let of = |id: &str| {
        format!(
            "select string_agg(path || ' ' || sqlstate || ' ' || n, ', ' order by path) from (select path, sqlstate, count(*) n from bulk.load_error where load_id = '{id}' group by 1, 2) x"
        )
    };
    let (id, _) = validated(&mut client, "'Observation', 'refs'");
    assert_eq!(outcome(&mut client, &id), "done 3000 1001");
    assert_eq!(value(&mut client, &of(&id)), "encounter 23503 1, subject 23503 1000");
    // A resource counts once, whatever is wrong with it.
    let (id, _) = validated(&mut client, "'Observation', 'all'");
    assert_eq!(outcome(&mut client, &id), "done 3000 1002");
    assert_eq!(value(&mut client, &of(&id)), "encounter 23503 1, subject 23503 1000, wrong 23514 2");
}

test!("the official examples are as valid in their tables as in their files", examples);
fn examples() {
    let database = shared().database();
    let mut client = database.connect();
    let source = format!("file://{}", cache().join("examples/all.ndjson.gz").display());
    let options = r#"{"validation": {"enable": "on"}, "max-errors": 1000, "create-tables": true}"#;
    client.batch_execute(&format!("select bulk.load('{source}', fhir => true, options => '{options}')")).unwrap();
    let found = "select coalesce(string_agg(distinct concat_ws(' ', resource_type, id, message), e'\\n' order by concat_ws(' ', resource_type, id, message)), '') from bulk_internal.load_error where load_id in ";
    let refused = value(&mut client, &format!("{found} (bulk.last_load_id())"));
    assert_eq!(refused.lines().count(), 13);
    // The same, stored all the same.
    let options = r#"{"validation": {"enable": "async"}}"#;
    client.batch_execute(&format!("select bulk.load('{source}', fhir => true, options => '{options}')")).unwrap();
    let id = value(&mut client, "select id from bulk.job where request->>'load' = bulk.last_load_id()");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '100 s')")), "done");
    let state = outcome(&mut client, &id);
    assert!(state.starts_with("done 5305 13"), "{state}");
    let first = "select string_agg(m, e'\\n' order by m) from (select distinct on (resource_type, id) concat_ws(' ', resource_type, id, message) m from bulk_internal.load_error where load_id = ";
    let stored = value(&mut client, &format!("{first} '{id}' order by resource_type, id, ctid) x"));
    assert_eq!(stored, refused);
}

test!("a load leaves validation to a worker, of its own rows, once it commits", later);
fn later() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 100);
    let file = File::new(b"{\"id\":\"a\",\"name\":[{\"given\":\"x\"}]}\n{\"id\":\"b\"}\n{\"id\":\"1\",\"nonsense\":1,\"foolishness\":2}\n");
    let load = |options: &str| format!("bulk.load('{}', 'Patient', true, '{options}')", file.url());
    let options = r#"{"validation": {"enable": "async"}}"#;
    // Rolled back, there is nothing to validate and no one to do it.
    client.batch_execute(&format!("begin; select {}; savepoint s; rollback", load(options))).unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "0");
    client.batch_execute(&format!("begin; savepoint s; select {}; rollback to s; commit", load(options))).unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "0");
    client.batch_execute("begin").unwrap();
    assert_eq!(value(&mut client, &load(options)), r#"{"total": 3}"#);
    let id = value(&mut client, "select id from bulk.job where request->>'load' = bulk.last_load_id()");
    assert_eq!(value(&mut client, &format!("select state from bulk.job where id = '{id}'")), "waiting");
    assert_eq!(failure(&mut client, &format!("select bulk.wait('{id}')")).code, "55000");
    client.batch_execute("rollback").unwrap();
    client.batch_execute(&format!("select {}", load(options))).unwrap();
    assert_eq!(
        value(
            &mut client,
            "select message = 'validation is job ' || (select id from bulk.job where kind = 'validate') from bulk.job where kind = 'load'"
        ),
        "true"
    );
    let id = value(&mut client, "select id from bulk.job where kind = 'validate'");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "done");
    assert_eq!(outcome(&mut client, &id), "done 3 2");
    let found = format!("select string_agg(id || ' ' || message, ', ' order by id, message) from bulk.load_error where load_id = '{id}'");
    assert_eq!(value(&mut client, &found), "1 foolishness: unknown element, 1 nonsense: unknown element, a name[0].given: expected array");
    // Rows that take the time of their lines are not told apart from others.
    let dated = File::new(b"{\"id\":\"1\",\"meta\":{\"lastUpdated\":\"2999-01-01T00:00:00Z\"},\"nonsense\":1}\n");
    let newer = r#"{"validation": {"enable": "async"}, "on-conflict": "newer"}"#;
    client.batch_execute(&format!("select bulk.load('{}', 'Patient', true, '{newer}')", dated.url())).unwrap();
    let id = value(&mut client, "select id from bulk.job where request->>'load' = bulk.last_load_id()");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "done");
    assert_eq!(outcome(&mut client, &id), "done 102 12");
    let error = failure(&mut client, &format!("select {}", load(r#"{"validation": {"enable": "async"}, "temp_table": "s"}"#)));
    assert_eq!(error.code, "22023");
    let (mut tabled, name) = (database.connect(), "prepared");
    tabled.batch_execute(&format!("begin; select {}", load(options))).unwrap();
    // Prepared transactions may be switched off, which is refused later.
    assert_eq!(failure(&mut tabled, &format!("prepare transaction '{name}'")).code, if prepared(&mut client) { "0A000" } else { "55000" });
}

fn prepared(client: &mut Client) -> bool {
    value(client, "select current_setting('max_prepared_transactions')::int > 0") == "true"
}

test!("a resource with very many references is validated in flat memory", flat);
fn flat() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Group');
            insert into \"group\" (id, txid, status, resource)
            select n::text, n, 'created', jsonb_build_object('type', 'person', 'actual', true, 'member', (
                select jsonb_agg(jsonb_build_object('entity', jsonb_build_object('resourceType', 'Patient', 'id', n || '-' || m))) from generate_series(1, 20000) m))
            from generate_series(1, 15) n",
        )
        .unwrap();
    let mut holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Group', 'all')");
    let pid = stuck(&mut client, &id);
    let peak = crate::support::memory_peak::Peak::watch(pid);
    holder.batch_execute("rollback").unwrap();
    client.batch_execute(&format!("select bulk.wait('{id}', '100 s')")).unwrap();
    assert_eq!(outcome(&mut client, &id), "done 15 15");
    assert_eq!(value(&mut client, &format!("select count(*) from bulk.load_error where load_id = '{id}'")), "300000");
    assert!(peak.bytes() < 128 << 20, "{}", peak.bytes());
}
