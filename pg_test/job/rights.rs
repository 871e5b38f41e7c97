//! Whom a job works for: the role that asked, and nothing of it for another.

use crate::support::cluster::shared;
use crate::support::imports::{PLAIN, call, patient_input, wait};
use crate::support::jobs::{hold, outcome, patients, stuck, validated};
use crate::support::source::Slow;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;
use serde_json::json;

parts!(SERVER);

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
    assert_eq!(outcome(&mut plain, &id), "done 20 2");
    // A role that cannot log in, assumed by one that can; and as PostgreSQL's own session.
    let mut gate = database.connect_as(&format!("gate_{name}"));
    gate.batch_execute(&format!("set role \"No Login {name}\"")).unwrap();
    let (id, _) = validated(&mut gate, "'Patient'");
    assert_eq!(outcome(&mut gate, &id), "done 20 2");
    client.batch_execute(&format!("set session authorization \"No Login {name}\"")).unwrap();
    client.batch_execute("delete from said where who ~ 'No Login'").unwrap();
    let (id, _) = validated(&mut client, "'Patient'");
    assert_eq!(outcome(&mut client, &id), "done 20 2");
    client.batch_execute("reset session authorization").unwrap();
    // The rights are the definer's, as in any of its functions.
    let mut none = database.connect_as(&format!("none_{name}"));
    let (id, state) = validated(&mut none, "'Patient'");
    assert_eq!(state, "error");
    assert_eq!(outcome(&mut none, &id), "error 0 0 permission denied for table patient");
    let id = value(&mut none, "definer()");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "done");
    assert_eq!(outcome(&mut client, &id), "done 1000 100");
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
    assert_eq!(outcome(&mut client, &third), "done 1 1");
}

test!("doors count for a job as they stand when it works, what a session set only while its role may set it", doors);
fn doors() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    let asker = format!("asker_{name}");
    client
        .batch_execute(&format!(
            "create role {asker} login; grant bulk_remote to {asker}; create schema own authorization {asker}; grant create on database {name} to {asker}"
        ))
        .unwrap();
    let source = Slow::start(b"{\"id\": \"1\"}\n".to_vec(), PLAIN);
    // Asked for in a transaction, in which others change what it stands on, at whose end its worker starts.
    let mut round = 0;
    let mut outcome = |client: &mut Client, before: &str, session: &str, between: &str| {
        round += 1;
        client.batch_execute(before).unwrap();
        let mut asking = database.connect_as(&asker);
        asking.batch_execute(&format!("set search_path = own, public; {session}; begin")).unwrap();
        let id = format!("door-{round}");
        let answer = call(&mut asking, &json!({"id": id, "inputs": patient_input(&source.url())}));
        assert_eq!(answer.0, 200, "{answer:?}");
        client.batch_execute(between).unwrap();
        asking.batch_execute("commit").unwrap();
        wait(&mut asking, &id)
    };
    let (on, off) = ("set bulk.allowed_hosts = '127.0.0.1'", "reset bulk.allowed_hosts");
    for place in [format!("alter database {name}"), format!("alter role {asker}"), format!("alter role {asker} in database {name}")] {
        assert_eq!(outcome(&mut client, &format!("{place} {on}"), "", ""), "done", "{place}");
        assert_eq!(outcome(&mut client, "", "", &format!("{place} {off}")), "error", "{place}");
        assert_eq!(outcome(&mut client, "", "", &format!("{place} {on}")), "done", "{place}");
        client.batch_execute(&format!("{place} {off}")).unwrap();
    }
    let grant = format!("grant set on parameter bulk.allowed_hosts to {asker}");
    let revoke = format!("revoke set on parameter bulk.allowed_hosts from {asker}");
    assert_eq!(outcome(&mut client, &grant, on, ""), "done");
    assert_eq!(outcome(&mut client, "", on, &revoke), "error");
    // A function of the asker's that somebody else's session runs has not that session's rights.
    let request = json!({"id": "definer", "inputs": patient_input(&source.url())}).to_string();
    client
        .batch_execute(&format!(
            "set role {asker}; create function own.definer() returns int language sql security definer set search_path = own, public as \
                $$ select (bulk.import('{request}')).status $$; reset role; {on}"
        ))
        .unwrap();
    assert_eq!(value(&mut client, "own.definer()"), "200");
    assert_eq!(value(&mut client, "bulk.wait('definer', '60 s')"), "error");
    client.batch_execute(off).unwrap();
    // Sizes are doors too, and a job of a session that set none finds the present one.
    client.batch_execute(&format!("alter database {name} {on}")).unwrap();
    assert_eq!(outcome(&mut client, "", "", &format!("alter role {asker} set bulk.max_line_size = '1kB'")), "done");
    source.replace(format!("{{\"id\": \"1\", \"text\": \"{}\"}}\n", "x".repeat(2000)).into_bytes(), "second");
    assert_eq!(outcome(&mut client, "", "", ""), "error");
    assert_eq!(outcome(&mut client, "", "", &format!("alter role {asker} reset bulk.max_line_size")), "done");
    client.batch_execute(&format!("drop owned by {asker} cascade; drop role {asker}")).unwrap();
}
