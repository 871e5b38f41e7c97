//! Background workers: jobs that validate what is stored, and whatever can happen to a worker.

use crate::support::cluster::{Cluster, Database, cache, checked, replay, server_directory, shared};
use crate::support::exports::directory;
use crate::support::faults::{Fault, happen};
use crate::support::source::File;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::json;

parts!(SERVER, WRITING);

/// Enters patients; every tenth is invalid.
fn patients(client: &mut Client, count: u32) {
    client
        .batch_execute(&format!(
            "select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource)
            select n::text, n, 'created', case when n % 10 = 0 then '{{\"name\": {{\"family\": \"F\"}}}}'::jsonb
                else jsonb_build_object('active', true, 'name', jsonb_build_array(jsonb_build_object('family', repeat('x', n % 500)))) end
            from generate_series(1, {count}) n"
        ))
        .unwrap();
}

fn counts(client: &mut Client, id: &str) -> String {
    value(client, &format!("select concat_ws(' ', state, read, stored, skipped, rejected, message) from bulk.job where id = '{id}'"))
}

/// Asks for a validation and waits for its end.
fn validated(client: &mut Client, arguments: &str) -> (String, String) {
    let id = value(client, &format!("bulk.validate({arguments})"));
    let state = value(client, &format!("bulk.wait('{id}', '60 s')"));
    (id, state)
}

test!("bulk.validate finds in stored resources what a load would have refused", finds);
fn finds() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 50_000);
    client.batch_execute("insert into patient (id, txid, status, resource) values ('not an id', 1, 'created', '{}'), ('gone', 2, 'deleted', '{\"x\": 1}')").unwrap();
    let (id, state) = validated(&mut client, "'patient'");
    assert_eq!((state.as_str(), counts(&mut client, &id).as_str()), ("done", "done 50001 5001"));
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
    assert_eq!(counts(&mut client, &id), "done 1 1");
    client.batch_execute("set bulk.resource_format = fhir").unwrap();
    let (id, _) = validated(&mut client, "'Goal'");
    assert_eq!(counts(&mut client, &id), "done 1 0");
    client.batch_execute("reset bulk.resource_format").unwrap();
    let (id, _) = validated(&mut client, "'Custom'");
    assert_eq!(counts(&mut client, &id), "done 1 0");
    let (id, _) = validated(&mut client, "'Encounter'");
    assert_eq!(value(&mut client, &format!("select read from bulk.job where id = '{id}'")), "3");
    let (id, state) = validated(&mut client, "'Medication'");
    assert_eq!((state.as_str(), counts(&mut client, &id).as_str()), ("done", "done"));
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
    assert_eq!(counts(&mut client, &id), "done 3000 1001");
    assert_eq!(value(&mut client, &of(&id)), "encounter 23503 1, subject 23503 1000");
    // A resource counts once, whatever is wrong with it.
    let (id, _) = validated(&mut client, "'Observation', 'all'");
    assert_eq!(counts(&mut client, &id), "done 3000 1002");
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
    let state = counts(&mut client, &id);
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
    assert_eq!(counts(&mut client, &id), "done 3 2");
    let found = format!("select string_agg(id || ' ' || message, ', ' order by id, message) from bulk.load_error where load_id = '{id}'");
    assert_eq!(value(&mut client, &found), "1 foolishness: unknown element, 1 nonsense: unknown element, a name[0].given: expected array");
    // Rows that take the time of their lines are not told apart from others.
    let dated = File::new(b"{\"id\":\"1\",\"meta\":{\"lastUpdated\":\"2999-01-01T00:00:00Z\"},\"nonsense\":1}\n");
    let newer = r#"{"validation": {"enable": "async"}, "on-conflict": "newer"}"#;
    client.batch_execute(&format!("select bulk.load('{}', 'Patient', true, '{newer}')", dated.url())).unwrap();
    let id = value(&mut client, "select id from bulk.job where request->>'load' = bulk.last_load_id()");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "done");
    assert_eq!(counts(&mut client, &id), "done 102 12");
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

test!("what bulk.validate, bulk.wait and bulk.cancel cannot do is refused", refused);
fn refused() {
    let database = shared().database();
    let mut client = database.connect();
    for (call, code) in [
        ("bulk.validate('Nonsense')", "42P01"),
        ("bulk.validate('a b')", "22023"),
        ("bulk.validate(null)", "22004"),
        ("bulk.validate('Patient', 'everything')", "22023"),
        ("bulk.validate('Patient', options => '{\"max-errors\": -1}')", "22023"),
        ("bulk.validate('Patient', options => '{\"most\": 1}')", "22023"),
        ("bulk.wait('none')", "42704"),
        ("bulk.wait(null)", "22004"),
    ] {
        assert_eq!(failure(&mut client, &format!("select {call}")).code, code, "{call}");
    }
    assert_eq!(value(&mut client, "bulk.cancel('none')"), "false");
    let id = value(&mut client, "bulk.validate('Patient')");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "done");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{id}')")), "false");
    let error = failure(&mut client, &format!("begin isolation level repeatable read; select bulk.wait('{id}')"));
    assert_eq!(error.code, "25000");
    client.batch_execute("rollback").unwrap();
    assert_eq!(failure(&mut client, "begin read only; select bulk.validate('Patient')").code, "25006");
    client.batch_execute("rollback").unwrap();
    // Another's job.
    let name = format!("other_{}", database.name);
    client.batch_execute(&format!("create role {name} login")).unwrap();
    let mut other = database.connect_as(&name);
    for call in ["bulk.wait", "bulk.cancel"] {
        assert_eq!(failure(&mut other, &format!("select {call}('{id}')")).code, "42501");
    }
    assert_eq!(value(&mut other, "select count(*) from bulk.resume_interrupted()"), "0");
    for relation in ["job", "job_file", "progress", "load_error"] {
        assert_eq!(value(&mut other, &format!("select count(*) from bulk.{relation}")), "0", "{relation}");
    }
    assert_eq!(failure(&mut other, "select * from bulk_internal.job_spec").code, "42501");
    client.batch_execute(&format!("grant bulk_admin to {name}")).unwrap();
    assert_eq!(value(&mut other, &format!("bulk.wait('{id}')")), "done");
}

test!("a job works as the role that asked, whatever connected it, and nothing that it calls leaves the role", roles);
fn roles() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let name = &database.name;
    // Each sees what its policy shows it; whoever reads is told by a function that tries to become somebody else.
    client
        .batch_execute(&format!(
            "create role plain_{name} login; create role \"No Login {name}\" nologin; create role none_{name} login;
            create role gate_{name} login; grant \"No Login {name}\" to gate_{name};
            grant select on patient to plain_{name}, \"No Login {name}\";
            create table said (who text, session text, what text);
            grant all on said to public;
            create function escape(what text) returns text language plpgsql security definer set search_path = public as $$ begin return what; end $$;
            create function watched() returns boolean language plpgsql volatile as $$
            declare outcome text := 'stayed';
            begin
                begin reset role; outcome := 'left'; exception when insufficient_privilege then null; end;
                begin set role postgres; outcome := 'left'; exception when insufficient_privilege then null; end;
                begin reset session authorization; outcome := 'left'; exception when insufficient_privilege then null; end;
                begin set session authorization postgres; outcome := 'left'; exception when insufficient_privilege then null; end;
                if current_user = 'postgres' then outcome := 'is postgres'; end if;
                insert into said select current_user, session_user, outcome where not exists (select from said where who = current_user);
                return true;
            end $$;
            alter table patient enable row level security;
            create policy few on patient using (id::int <= 20 and watched());
            create function definer() returns text language sql security definer as $$ select bulk.validate('Patient') $$"
        ))
        .unwrap();
    let mut plain = database.connect_as(&format!("plain_{name}"));
    let (id, _) = validated(&mut plain, "'Patient'");
    assert_eq!(counts(&mut plain, &id), "done 20 2");
    // A role that cannot log in, assumed by one that can; and as PostgreSQL's own session.
    let mut gate = database.connect_as(&format!("gate_{name}"));
    gate.batch_execute(&format!("set role \"No Login {name}\"")).unwrap();
    let (id, _) = validated(&mut gate, "'Patient'");
    assert_eq!(counts(&mut gate, &id), "done 20 2");
    client.batch_execute(&format!("set session authorization \"No Login {name}\"")).unwrap();
    client.batch_execute("delete from said where who ~ 'No Login'").unwrap();
    let (id, _) = validated(&mut client, "'Patient'");
    assert_eq!(counts(&mut client, &id), "done 20 2");
    client.batch_execute("reset session authorization").unwrap();
    // The rights are the definer's, as in any of its functions.
    let mut none = database.connect_as(&format!("none_{name}"));
    let (id, state) = validated(&mut none, "'Patient'");
    assert_eq!(state, "error");
    assert_eq!(counts(&mut none, &id), "error 0 0 permission denied for table patient");
    let id = value(&mut none, "definer()");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "done");
    assert_eq!(counts(&mut client, &id), "done 1000 100");
    assert_eq!(failure(&mut none, &format!("select bulk.wait('{id}')")).code, "42501");
    assert_eq!(
        value(&mut client, "select string_agg(concat_ws(' ', who, session, what), ', ' order by who) from said"),
        format!("No Login {name} No Login {name} stayed, plain_{name} plain_{name} stayed")
    );
}

test!("operators and functions of the caller's path are not run with the extension's rights", hijack);
fn hijack() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 100);
    let name = format!("evil_{}", database.name);
    client
        .batch_execute(&format!(
            "create role {name} login; create schema evil authorization {name}; grant select on patient to {name}; alter role {name} set search_path = evil, pg_catalog, public"
        ))
        .unwrap();
    let mut evil = database.connect_as(&name);
    let operators = ["text", "bigint", "name", "oid", "boolean"].map(|kind| {
        format!(
            "create function evil.f(a {kind}, b {kind}) returns boolean language plpgsql as
                $$ begin execute 'alter role {name} superuser'; return a operator(pg_catalog.=) b; exception when insufficient_privilege then return a operator(pg_catalog.=) b; end $$;
            create operator evil.= (leftarg = {kind}, rightarg = {kind}, function = evil.f);"
        )
    });
    evil.batch_execute(&format!(
        "{}
        create function evil.g(state bigint, x anyelement) returns bigint language plpgsql as
            $$ begin execute 'alter role {name} superuser'; return 0; exception when insufficient_privilege then return 0; end $$;
        create function evil.unnest(x text[]) returns setof text language plpgsql as
            $$ begin execute 'alter role {name} superuser'; return query select pg_catalog.unnest(x); end $$;
        create function evil.h(state bigint) returns bigint language plpgsql as
            $$ begin execute 'alter role {name} superuser'; return 0; exception when insufficient_privilege then return 0; end $$;
        create aggregate evil.count(*) (sfunc = evil.h, stype = bigint);
        create function evil.now() returns timestamptz language plpgsql as
            $$ begin execute 'alter role {name} superuser'; return pg_catalog.now(); end $$",
        operators.join("\n")
    ))
    .unwrap();
    evil.batch_execute("set search_path = evil, pg_catalog, public").unwrap();
    // Also while somebody is at work.
    let holder = hold(&database);
    let busy = value(&mut client, "bulk.validate('Patient')");
    stuck(&mut client, &busy);
    let id: String = evil.query_one("select bulk.validate('Patient')", &[]).unwrap().get(0);
    for statement in [
        format!("select bulk.wait('{id}', '10 ms')"),
        format!("select bulk.cancel('{id}')"),
        "select bulk.resume_interrupted()".to_owned(),
        "select bulk.validate('Patient', 'all')".to_owned(),
        r#"select bulk.import('{"id": "evil", "inputs": [{"type": "Patient", "url": "http://127.0.0.1:1/"}]}')"#.to_owned(),
        "select bulk.import_status('evil'), bulk.import_status_v2('evil')".to_owned(),
        "select j.state, j.message from bulk.job j, bulk.job_file, bulk.progress".to_owned(),
    ] {
        evil.simple_query(&statement).unwrap();
    }
    drop(holder);
    let ids = client.query("select id from bulk.job where state in ('waiting', 'in-progress')", &[]).unwrap();
    for row in ids {
        client.batch_execute(&format!("select bulk.wait('{}', '20 s')", row.get::<_, String>(0))).unwrap();
    }
    assert_eq!(value(&mut client, &format!("select rolsuper from pg_roles where rolname = '{name}'")), "false");
}

test!("what a job of one role leaves behind in a process meets no job of another", apart);
fn apart() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 100);
    let name = format!("first_{}", database.name);
    // A job of one role that leaves a table of its own in front of the real one, for the next job of the same session.
    client
        .batch_execute(&format!(
            "create role {name}; create schema {name} authorization {name}; grant usage on schema public to {name}; grant create, temporary on database {db} to {name};
            create table who (name text); grant insert on who to {name};
            select bulk.create_resource_table('Observation');
            insert into observation (id, txid, status, resource) values ('1', 1, 'created', '{{\"status\": \"final\", \"code\": {{\"text\": \"x\"}}, \"subject\": {{\"resourceType\": \"Practitioner\", \"id\": \"1\"}}}}');
            set role {name};
            create function {name}.spy() returns boolean language plpgsql as $$ begin insert into public.who values (current_user); return true; end $$;
            create function {name}.leave() returns jsonb language plpgsql as $$ begin
                create temp table if not exists practitioner (id text, txid bigint, status text, resource jsonb);
                create or replace temp view practitioner_view as select 1;
                drop table practitioner;
                create temp view practitioner as select '1'::text as id, 1::bigint as txid, 'created'::text as status, '{{}}'::jsonb as resource where {name}.spy();
                perform set_config('row_security', 'off', false);
                return '{{}}'; end $$;
            create view {name}.basic as select 'b'::text as id, 1::bigint as txid, 'created'::text as status, {name}.leave() as resource;
            reset role",
            db = database.name
        ))
        .unwrap();
    let holder = hold(&database);
    let first = value(&mut client, "bulk.validate('Patient')");
    stuck(&mut client, &first);
    client.batch_execute(&format!("begin; set role {name}; set search_path = {name}, public")).unwrap();
    let second = value(&mut client, "bulk.validate('Basic')");
    client.batch_execute("commit; reset role; reset search_path").unwrap();
    let third = value(&mut client, "bulk.validate('Observation', 'refs')");
    drop(holder);
    for id in [&first, &second, &third] {
        assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '20 s')")), "done");
    }
    assert_eq!(value(&mut client, "select coalesce(string_agg(distinct name, ' '), '') from who"), "");
    assert_eq!(counts(&mut client, &third), "done 1 1");
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
    assert_eq!(counts(&mut client, &id), "done 15 15");
    assert_eq!(value(&mut client, &format!("select count(*) from bulk.load_error where load_id = '{id}'")), "300000");
    assert!(peak.bytes() < 128 << 20, "{}", peak.bytes());
}

test!("a cancel that is rolled back cancels nothing", not_cancelled);
fn not_cancelled() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let mut holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Patient')");
    stuck(&mut client, &id);
    client
        .batch_execute(&format!("begin; savepoint s; select bulk.cancel('{id}'); rollback to s; savepoint t; release t; commit"))
        .unwrap();
    client
        .batch_execute(&format!(
            "do $$ begin perform bulk.cancel('{id}'); raise exception 'no'; exception when raise_exception then null; end $$"
        ))
        .unwrap();
    client.batch_execute(&format!("begin; select bulk.cancel('{id}'); rollback")).unwrap();
    holder.batch_execute("rollback").unwrap();
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '20 s')")), "done");
    // Jobs of a subtransaction that is taken back are none.
    client.batch_execute("begin; savepoint s; select bulk.validate('Patient'); rollback to s; savepoint t; select bulk.validate('Patient'); release t; commit").unwrap();
    let states = "select string_agg(distinct state, ' ') from bulk.job";
    wait_until("both are done", || value(&mut client, states) == "done");
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "2");
}

/// A session that keeps a job's worker from writing down what it found.
fn hold(database: &Database) -> Client {
    let mut holder = database.connect();
    holder.batch_execute("begin; lock table bulk_internal.load_error in exclusive mode").unwrap();
    holder
}

/// The worker of a job that waits for a lock.
fn stuck(client: &mut Client, id: &str) -> i32 {
    let query = format!(
        "select coalesce(max(f.pid), 0) from bulk.job_file f join pg_stat_activity a using (pid) where f.job_id = '{id}' and a.wait_event_type = 'Lock'"
    );
    wait_until("the worker waits for the lock", || value(client, &query) != "0");
    value(client, &query).parse().unwrap()
}

fn is_gone(pid: i32) {
    wait_until("the worker is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

test!("a cancelled job ends at once, by whoever may", cancelled);
fn cancelled() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let mut holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Patient')");
    let pid = stuck(&mut client, &id);
    let shown = format!("select concat_ws(' ', usename, backend_type, state, query) from pg_stat_activity where pid = {pid}");
    assert_eq!(value(&mut client, &shown), format!("postgres bulk worker active bulk.validate of public.patient, job {id}"));
    assert_eq!(
        value(&mut client, &format!("select concat_ws(' ', phase, rows, kind) from bulk.progress where job_id = '{id}'")),
        "in-progress 0 validate"
    );
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '50 ms')")), "in-progress");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{id}')")), "true");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "cancelled");
    is_gone(pid);
    assert_eq!(counts(&mut client, &id), "cancelled 0 0");
    assert_eq!(value(&mut client, &format!("select state from bulk.job_file where job_id = '{id}'")), "cancelled");
    holder.batch_execute("rollback").unwrap();
    // What waits, too, and what the same transaction asked for.
    client.batch_execute("begin").unwrap();
    let id = value(&mut client, "bulk.validate('Patient')");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{id}')")), "true");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "cancelled");
    client.batch_execute("commit").unwrap();
    assert_eq!(counts(&mut client, &id), "cancelled 0 0");
    // PostgreSQL's own cancel is an error of the part.
    let holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Patient')");
    let pid = stuck(&mut client, &id);
    client.batch_execute(&format!("select pg_cancel_backend({pid})")).unwrap();
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "error");
    assert_eq!(value(&mut client, &format!("select message from bulk.job where id = '{id}'")), "canceling statement due to user request");
    drop(holder);
}

test!("a job whose worker is ended or killed is interrupted, and goes on where it was", interrupted);
fn interrupted() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    patients(&mut client, 60_000);
    let mut killed = 0;
    for round in 0..6_usize {
        let mut holder = hold(&database);
        let id = value(&mut client, "bulk.validate('Patient')");
        let mut pid = stuck(&mut client, &id);
        if round > 1 {
            // In the middle of the table.
            holder.batch_execute("rollback").unwrap();
            let some = format!("select read > 0 from bulk.job where id = '{id}'");
            wait_until("something is read", || value(&mut client, &some) == "true");
            holder = hold(&database);
            pid = value(&mut client, &format!("select coalesce(max(pid), 0) from bulk.job_file where job_id = '{id}'")).parse().unwrap();
        }
        if pid != 0 {
            if round % 2 == 0 {
                client.batch_execute(&format!("select pg_terminate_backend({pid})")).unwrap();
                is_gone(pid);
                drop(holder);
            } else {
                killed += u32::from(happen(Fault::WorkerKilled, &pid.to_string(), &database, &mut client));
                drop(holder);
            }
        }
        let mut state = String::new();
        // A part may be over and its job not yet.
        wait_until("its worker is gone or done", || {
            state = value(&mut client, &format!("select state from bulk.job where id = '{id}'"));
            state != "in-progress"
        });
        if state != "done" {
            assert_eq!(state, "interrupted");
            assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "interrupted");
            assert_eq!(value(&mut client, "select string_agg(x, ' ') from bulk.resume_interrupted() x"), id);
        } else {
            assert!(round > 1, "a worker that is held cannot be done");
        }
        wait_until("the job goes on", || value(&mut client, &format!("select state from bulk.job where id = '{id}'")) != "interrupted");
        assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '60 s')")), "done");
        assert_eq!(counts(&mut client, &id), "done 60000 6000");
        assert_eq!(value(&mut client, &format!("select count(*) from bulk.load_error where load_id = '{id}'")), "6000");
    }
    // Two of three were to be in the middle of the table, where a worker may be faster than its killer.
    println!("{killed} of 3 killed");
    assert!(killed >= 1, "{killed}");
    assert_eq!(value(&mut client, "select count(*) from bulk.resume_interrupted()"), "0");
}

test!("jobs wait for a place, say why, and start when there is one", waiting);
fn waiting() {
    let cluster = Cluster::start_with("max_worker_processes = 4\nbulk.max_workers = 1\n");
    let database = cluster.database();
    let mut client = database.connect();
    patients(&mut client, 100);
    let mut holder = hold(&database);
    // Workers that are asked for at once may begin in any order.
    let first = value(&mut client, "bulk.validate('Patient')");
    stuck(&mut client, &first);
    let ids = [first, value(&mut client, "bulk.validate('Patient')"), value(&mut client, "bulk.validate('Patient')")];
    let reason = |client: &mut Client, id: &str| {
        value(client, &format!("select state || ': ' || coalesce(message, '') from bulk.job where id = '{id}'"))
    };
    let expected = "waiting: bulk.max_workers workers are at work";
    wait_until("the second job waits for the first", || reason(&mut client, &ids[1]) == expected);
    assert_eq!(reason(&mut client, &ids[2]), expected);
    // Whoever ends starts the next.
    holder.batch_execute("rollback").unwrap();
    for id in &ids {
        assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '20 s')")), "done");
    }
    // All of the server's places are taken: by workers of another database.
    let other = cluster.database();
    let mut busy = other.connect();
    client.batch_execute("alter system set bulk.max_workers = 10").unwrap();
    client.batch_execute("select pg_reload_conf()").unwrap();
    wait_until("the setting is known", || value(&mut busy, "current_setting('bulk.max_workers')") == "10");
    patients(&mut busy, 100);
    let mut holder = hold(&other);
    let others: Vec<String> = (0..4).map(|_| value(&mut busy, "bulk.validate('Patient')")).collect();
    // The launcher of logical replication has one place.
    let working = "select count(*) from pg_stat_activity where backend_type = 'bulk worker'";
    wait_until("three are at work", || value(&mut busy, working) == "3");
    let id = value(&mut client, "bulk.validate('Patient')");
    assert_eq!(reason(&mut client, &id), "waiting: max_worker_processes is used up");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '1.5 s')")), "waiting");
    holder.batch_execute("rollback").unwrap();
    for id in &others {
        assert_eq!(value(&mut busy, &format!("bulk.wait('{id}', '20 s')")), "done");
    }
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '20 s')")), "done");
    wait_until("no worker is left", || value(&mut busy, working) == "0");
}

test!("a job whose role cannot connect says so", unreachable);
fn unreachable() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 10);
    let name = &database.name;
    client.batch_execute(&format!("create role away_{name} login; grant select on patient to away_{name}; revoke connect on database {name} from public; grant connect on database {name} to away_{name}")).unwrap();
    let mut away = database.connect_as(&format!("away_{name}"));
    away.batch_execute("begin").unwrap();
    let id = value(&mut away, "bulk.validate('Patient')");
    client.batch_execute(&format!("revoke connect on database {name} from away_{name}")).unwrap();
    away.batch_execute("commit").unwrap();
    drop(away);
    let state = format!("select state || ': ' || message from bulk.job where id = '{id}'");
    wait_until("the worker has failed", || {
        value(&mut client, &state) == format!("waiting: role \"away_{name}\" may not connect to the database")
    });
    client.batch_execute(&format!("revoke select on patient from away_{name}; drop role away_{name}")).unwrap();
    assert_eq!(value(&mut client, &state), format!("waiting: role \"away_{name}\" does not exist"));
    assert_eq!(value(&mut client, &format!("bulk.cancel('{id}')")), "true");
}

test!("dropping the extension or the database and stopping the server end the workers", dropped);
fn dropped() {
    let cluster = Cluster::start();
    let mut admin = cluster.connect("postgres", "postgres");
    for round in 0..4 {
        let database = cluster.database();
        let mut client = database.connect();
        patients(&mut client, 1000);
        let mut holder = hold(&database);
        let id = value(&mut client, "bulk.validate('Patient')");
        let pid = stuck(&mut client, &id);
        match round {
            0 => {
                // It waits until the worker has let go, which has nothing more to do then.
                let mut dropping = database.connect();
                let drop_it = std::thread::spawn(move || dropping.batch_execute("drop extension bulk"));
                wait_until("the extension's drop waits", || {
                    value(&mut client, "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'") == "1"
                });
                holder.batch_execute("rollback").unwrap();
                drop_it.join().unwrap().unwrap();
            }
            1 => admin.batch_execute(&format!("drop database {} with (force)", database.name)).unwrap(),
            2 => {
                cluster.stop("fast");
                cluster.boot();
                admin = cluster.connect("postgres", "postgres");
            }
            _ => {
                cluster.stop("immediate");
                cluster.boot();
                admin = cluster.connect("postgres", "postgres");
            }
        }
        is_gone(pid);
        assert_eq!(value(&mut admin, "select count(*) from pg_stat_activity where backend_type = 'bulk worker'"), "0");
    }
    let log = cluster.log();
    for sign in ["terminated by signal 6", "terminated by signal 11", "PANIC"] {
        assert!(!log.contains(sign), "the log says {sign}");
    }
}

test!("on a standby there is all to see, and nothing waits or works", standby);
fn standby() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let (done, _) = validated(&mut client, "'Patient'");
    let _holder = hold(&database);
    let open = value(&mut client, "bulk.validate('Patient')");
    stuck(&mut client, &open);
    let standby = cluster.standby();
    let mut reader = standby.connect(&database.name, "postgres");
    let states = "select string_agg(state, ' ' order by created) from bulk.job";
    wait_until("it has caught up", || value(&mut reader, states) == "done in-progress");
    assert_eq!(counts(&mut reader, &done), "done 1000 100");
    assert_eq!(value(&mut reader, &format!("select phase from bulk.progress where job_id = '{open}'")), "in-progress");
    assert_eq!(value(&mut reader, "select count(*) from bulk.dump('Patient')"), "1000");
    for refused in [
        format!("select bulk.wait('{done}')"),
        format!("select bulk.cancel('{open}')"),
        "select bulk.validate('Patient')".to_owned(),
        "select bulk.load('file:///tmp/x')".to_owned(),
        "select * from bulk.resume_interrupted()".to_owned(),
        "select bulk.import('{}')".to_owned(),
        r#"select bulk.rpc('{"method": "aidbox.bulk/import-cancel"}')"#.to_owned(),
    ] {
        assert_eq!(failure(&mut reader, &refused).code, "25006", "{refused}");
    }
    let status = r#"select bulk.rpc('{"method": "aidbox.bulk/import-status"}')#>>'{error,message}'"#;
    assert_eq!(value(&mut reader, status), "No active imports");
}

test!("a restored database has the jobs of the dumped one and does not go on with them by itself", restored);
fn restored() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let (id, _) = validated(&mut client, "'Patient'");
    let holder = hold(&database);
    let open = value(&mut client, "bulk.validate('Patient')");
    let pid = stuck(&mut client, &open);
    client.batch_execute(&format!("select pg_terminate_backend({pid})")).unwrap();
    is_gone(pid);
    drop(holder);
    // One that waits: its place is taken by nobody, but it cannot be known.
    client.batch_execute("insert into bulk_internal.job (id, kind, role, session_role, database_identity, state) select 'waits', kind, role, session_role, database_identity, 'waiting' from bulk_internal.job limit 1; insert into bulk_internal.job_spec select e.number, p.spec from bulk_internal.job e, bulk_internal.job_spec p where e.id = 'waits' limit 1").unwrap();
    let dump = checked(cluster.client("pg_dump", &database.name).args(["--no-sync"])).stdout;
    client.batch_execute("select pg_sleep(0)").unwrap();
    cluster.connect("postgres", "postgres").batch_execute("create database copy").unwrap();
    replay(&mut cluster.psql("copy"), &dump);
    let mut copy = cluster.connect("copy", "postgres");
    assert_eq!(counts(&mut copy, &id), "done 1000 100");
    assert_eq!(value(&mut copy, &format!("select count(*) from bulk.load_error where load_id = '{id}'")), "100");
    assert_eq!(value(&mut copy, &format!("select state from bulk.job where id = '{open}'")), "interrupted");
    // New jobs have numbers of their own.
    let (new, _) = validated(&mut copy, "'Patient'");
    assert_eq!(counts(&mut copy, &new), "done 1000 100");
    assert_eq!(value(&mut copy, "select state from bulk.job where id = 'waits'"), "interrupted");
    // What was found in another file of the table is found again, once.
    copy.batch_execute("vacuum full patient").unwrap();
    assert_eq!(value(&mut copy, "select count(*) from bulk.resume_interrupted()"), "2");
    assert_eq!(value(&mut copy, "bulk.wait('waits', '20 s')"), "done");
    assert_eq!(value(&mut copy, &format!("bulk.wait('{open}', '20 s')")), "done");
    assert_eq!(counts(&mut copy, &open), "done 1000 100");
    assert_eq!(value(&mut client, &format!("select state from bulk.job where id = '{open}'")), "interrupted");
}

test!("a cancel that arrives when its worker is at the next job ends no task of that job", late_cancel);
fn late_cancel() {
    let cluster = Cluster::start_with("bulk.max_workers = 1\n");
    let database = cluster.database();
    let mut client = database.connect();
    patients(&mut client, 20);
    client.batch_execute("select bulk.create_resource_table('Basic'); insert into basic (id, txid, resource, status) values ('x', 1, '{\"name\": 1}', 'created')").unwrap();
    let lines = File::new(b"{\"id\": \"p-1\"}\n{\"id\": \"p-2\"}\n");
    let files = server_directory();
    std::fs::write(files.path().join("Patient-1.ndjson"), "{\"id\": \"b-1\"}\n").unwrap();
    let storage = directory(&mut client);
    let import =
        |id: &str, mode: &str| json!({"id": id, "mode": mode, "inputs": [{"resourceType": "Patient", "url": lines.url()}]}).to_string();
    let kinds = [
        ("an import", format!("bulk.import('{}')", import("bulk", "bulk")), "done", "error"),
        ("an import in one transaction", format!("bulk.import('{}')", import("one", "transaction")), "done", "error"),
        ("a bucket", format!("bulk.load_from_bucket('{{\"bucket\": \"{}\"}}')", files.path().display()), "completed", "completed"),
        ("a validation", "bulk.validate('Patient')".to_owned(), "done", "error"),
        ("an export", "bulk.export('system', '{\"_type\": \"Patient\"}')".to_owned(), "completed", "error"),
    ];
    for (kind, call, expected, failed) in &kinds {
        for cancels in [1, 2] {
            client.batch_execute("delete from bulk.job where id in ('bulk', 'one'); delete from bulk.loader_file").unwrap();
            // The worker goes from one job to the next, which waits for a table.
            let (mut first, mut second) = (hold(&database), database.connect());
            let before = value(&mut client, "bulk.validate('Basic')");
            let pid = stuck(&mut client, &before);
            client.batch_execute(&format!("select {call}")).unwrap();
            let id = value(&mut client, "select id from bulk.job order by created desc limit 1");
            second.batch_execute("begin; lock table patient in access exclusive mode").unwrap();
            first.batch_execute("rollback").unwrap();
            let waits = format!(
                "select coalesce(max(xact_start)::text, '') from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock' \
                 and exists (select from bulk.job where id = '{id}' and state = 'in-progress')"
            );
            let mut began = String::new();
            for _ in 0..cancels {
                let mut now = String::new();
                wait_until(kind, || {
                    now = value(&mut client, &waits);
                    !now.is_empty() && now != began
                });
                began = now;
                client.batch_execute(&format!("select pg_cancel_backend({pid})")).unwrap();
            }
            if cancels == 2 {
                wait_until(kind, || value(&mut client, &format!("select finished is not null from bulk.job where id = '{id}'")) == "true");
            }
            second.batch_execute("rollback").unwrap();
            let state = value(&mut client, &format!("bulk.wait('{id}', '60 s')"));
            assert_eq!(&state, if cancels == 1 { expected } else { failed }, "{kind}, cancels: {cancels}");
            if *kind == "a bucket" {
                let file = value(&mut client, "select concat_ws(' ', status, error->>'code') from bulk.loader_file");
                assert_eq!(file, if cancels == 1 { "done" } else { "error 57014" });
            }
            assert_eq!(value(&mut client, &format!("bulk.wait('{before}', '60 s')")), "done");
        }
    }
    drop(storage);
}
