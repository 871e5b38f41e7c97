//! What owners of tables, views, types and stages may try on whoever reads or writes them.

use crate::support::cluster::{Database, shared};
use crate::support::source::File;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use std::thread;

parts!(SERVER, WRITING);

/// A function of nobody's that tries to leave its role in all ways, and counts how often it was called.
fn make_escape(client: &mut Client, other: &str) {
    client
        .batch_execute(&format!(
            "create function escape() returns boolean language plpgsql volatile as $$
            declare way text;
            begin
                foreach way in array array['reset role', 'set role {other}', 'set local role {other}', 'reset session authorization',
                    'declare later cursor with hold for select 1', 'select set_config(''role'', ''{other}'', false)'] loop
                    begin
                        execute way;
                        raise exception 'left by: %', way using errcode = 'P0099';
                    exception when insufficient_privilege or feature_not_supported or invalid_parameter_value then null;
                    end;
                end loop;
                perform set_config('test.calls', (coalesce(nullif(current_setting('test.calls', true), ''), '0')::int + 1)::text, false);
                return true;
            end $$;
            create function escape_row() returns trigger language plpgsql as $$ begin perform escape(); return new; end $$"
        ))
        .unwrap();
}

test!("nothing that a table or a view runs leaves the role that the session took for a call", confined);
fn confined() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    let tenant = format!("tenant_{name}");
    make_escape(&mut client, &format!("other_{name}"));
    client
        .batch_execute(&format!(
            "create role gate_{name} login noinherit; create role {tenant} login; create role other_{name};
            grant {tenant}, other_{name} to gate_{name}; grant pg_read_server_files to {tenant};
            select bulk.create_resource_table('Patient'), bulk.create_resource_table('Goal'), bulk.create_resource_table('Basic');
            insert into basic (id, txid, status, resource) values ('1', 1, 'created', '{{}}');
            create view observation as select * from basic where escape();
            create trigger leave before insert or update on patient for each row execute function escape_row();
            create constraint trigger leave after insert on goal deferrable initially deferred for each row execute function escape_row();
            grant all on patient, goal, goal_history, patient_history, observation, transaction_id_seq to {tenant}; create schema own authorization {tenant}"
        ))
        .unwrap();
    let (one, two) = (File::new(b"{\"id\":\"1\"}\n"), File::new(b"{\"id\":\"1\", \"active\": true}\n"));
    let mut gate = database.connect_as(&format!("gate_{name}"));
    let mut before = 0;
    for (call, is_counted) in [
        (format!("bulk.load('{}', 'Patient')", one.url()), true),
        (format!("bulk.load('{}', 'Patient', options => '{{\"update\": true}}')", two.url()), true),
        (format!("bulk.load('{}', 'Patient', options => '{{\"max-errors\": 3}}')", two.url()), true),
        (format!("bulk.load('{}', 'Patient', options => '{{\"temp_table\": \"own.stage\"}}')", two.url()), false),
        ("bulk.stage_merge('own.stage')".to_owned(), true),
        ("bulk.dump('Observation')".to_owned(), true),
        ("bulk.dump_bytes('Observation')".to_owned(), true),
        ("bulk.dump_csv('Observation')".to_owned(), true),
        ("bulk.dump_csv_bytes('Observation')".to_owned(), true),
        ("bulk.dump_sql('select * from observation', 'ndjson')".to_owned(), false),
    ] {
        gate.batch_execute(&format!("begin; set local role {tenant}; select count(*) from (select {call}) x; commit"))
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
        let calls: u32 = value(&mut gate, "coalesce(nullif(current_setting('test.calls', true), ''), '0')").parse().unwrap();
        // What it sets stays, but for a query's.
        assert_eq!(calls > before, is_counted, "{call}");
        before = calls;
    }
    // What would run at the commit is refused where the session has left its role, and runs where it has not.
    let load = format!("select bulk.load('{}', 'Goal')", one.url());
    gate.batch_execute(&format!("begin; set local role {tenant}")).unwrap();
    assert_eq!(failure(&mut gate, &load).code, "42501");
    gate.batch_execute("rollback").unwrap();
    // There it is the tenant's own session, which nothing is hidden from.
    client.batch_execute("create or replace function escape() returns boolean language sql as 'select true'").unwrap();
    let mut own = database.connect_as(&tenant);
    own.batch_execute(&load).unwrap();
    drop_roles(&database, &mut client, &["gate", "tenant", "other"]);
}

fn drop_roles(database: &Database, client: &mut Client, roles: &[&str]) {
    for role in roles {
        client.batch_execute(&format!("drop owned by {role}_{0} cascade; drop role {role}_{0}", database.name)).unwrap();
    }
}

test!("a stage on which another's code would run is none", stages);
fn stages() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    client
        .batch_execute(&format!(
            "create role team_{name}; create role victim_{name} login in role team_{name}; create role evil_{name} login in role team_{name};
            grant pg_read_server_files to victim_{name}; create schema shop authorization team_{name};
            create function told(text) returns boolean immutable language plpgsql as $$ begin raise exception 'run as %', current_user using errcode = 'P0099'; end $$;
            create function asked(text) returns text immutable language plpgsql as $$ begin raise exception 'run as %', current_user using errcode = 'P0099'; end $$"
        ))
        .unwrap();
    let file = File::new(b"{\"id\":\"1\", \"resourceType\": \"Patient\"}\n");
    let (mut evil, mut victim) = (database.connect_as(&format!("evil_{name}")), database.connect_as(&format!("victim_{name}")));
    for session in [&mut evil, &mut victim] {
        session.batch_execute("set search_path = shop, public").unwrap();
    }
    let load = format!("select bulk.load('{}', 'Patient', options => '{{\"temp_table\": \"s\"}}')", file.url());
    let again = format!("drop schema shop cascade; create schema shop authorization team_{name}");
    // The victim's first load makes the stage, which then is given to the team.
    for change in [
        "alter table s add check (told(id))",
        "alter table s alter ts set default case when told('x') then now() end",
        "alter table s alter resource_type set default asked('Patient')",
        "alter table s add more text generated always as (asked(id)) stored",
        "create index on s (asked(id))",
        "create index on s (id) where told(id)",
        "create domain said as text check (asked(value) = ''); alter table s alter resource_type drop default, alter resource_type type said",
        "create function also() returns trigger language plpgsql as 'begin perform told(new.id); return new; end'; create trigger t before insert on s for each row execute function also()",
        "create rule r as on insert to s do also select told('x')",
        "alter table s rename to other; create view s as select * from other where told(id)",
    ] {
        victim.batch_execute(&load).unwrap();
        victim.batch_execute(&format!("alter table s owner to team_{name}")).unwrap();
        assert_eq!(value(&mut victim, "select count(*) from s"), "1");
        // Emptied, since a check would else run at once.
        evil.batch_execute(&format!("set role team_{name}; truncate s; {change}; reset role")).unwrap();
        for call in [load.as_str(), "select bulk.stage_merge('s')", "select bulk.stage_drop('s')"] {
            let error = failure(&mut victim, call);
            assert_eq!(error.code, failure(&mut victim, "select bulk.stage_merge('none')").code, "{change}: {call}: {error:?}");
        }
        client.batch_execute(&again).unwrap();
    }
    // What stands where its history would is none, and no history of a table's either.
    let history = "create view s_history as select 'x'::text as id, 0::int8 as txid, 'deleted'::text as status, '{}'::jsonb as resource where told('x'); \
        create view patient_history as select * from s_history; grant select on s_history, patient_history to public";
    client
        .batch_execute(&format!(
            "grant create on schema shop to evil_{name}; create table shop.patient (id text primary key, txid int8, status text, resource jsonb); \
             alter table shop.patient owner to victim_{name}"
        ))
        .unwrap();
    evil.batch_execute(history).unwrap();
    for call in
        [load.clone(), load.clone(), format!("select bulk.load('{}', 'Patient')", file.url()), "select bulk.stage_merge('s')".to_owned()]
    {
        victim.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    client.batch_execute(&again).unwrap();
    // The same while somebody waits for it.
    for change in
        ["alter table s add check (told(id))", "alter table s rename to other; create view s as select * from other where told(id)"]
    {
        victim.batch_execute(&format!("{load}; alter table s owner to team_{name}")).unwrap();
        evil.batch_execute(&format!("begin; set local role team_{name}; truncate s; {change}")).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| failure(&mut victim, "select bulk.stage_merge('s')"));
            wait_until("the stage is waited for", || {
                value(
                    &mut client,
                    &format!(
                        "select count(*) from pg_locks join pg_stat_activity using (pid) where not granted and usename = 'victim_{name}'"
                    ),
                ) != "0"
            });
            evil.batch_execute("commit").unwrap();
            let error = waiting.join().unwrap();
            assert_ne!(error.code, "P0099", "{error:?}");
        });
        client.batch_execute(&again).unwrap();
    }
    // A schema can be renamed although a table in it is locked.
    client.batch_execute(&format!("grant create on database {name} to team_{name}; set search_path = shop; select bulk.create_resource_table('Patient'); reset search_path; \
        grant all on all sequences in schema shop to victim_{name}; alter table shop.patient owner to victim_{name}")).unwrap();
    victim.batch_execute(&format!("{load}; alter table s owner to team_{name}")).unwrap();
    let mut holder = database.connect();
    holder.batch_execute("begin; lock table shop.patient in row exclusive mode").unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| failure(&mut victim, "select bulk.stage_merge('shop.s')"));
        wait_until("the table is waited for", || {
            value(
                &mut client,
                &format!("select count(*) from pg_locks join pg_stat_activity using (pid) where not granted and usename = 'victim_{name}'"),
            ) != "0"
        });
        evil.batch_execute(&format!("set role team_{name}; alter schema shop rename to sold; create schema shop; \
            create view shop.s as select * from sold.s where told(id); grant all on schema shop to public; grant all on shop.s to public; reset role")).unwrap();
        holder.batch_execute("commit").unwrap();
        let error = waiting.join().unwrap();
        assert_ne!(error.code, "P0099", "{error:?}");
    });
    drop_roles(&database, &mut client, &["victim", "evil", "team"]);
}

test!("only an enum of the four statuses that is nobody else's becomes a table's", statuses);
fn statuses() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    client
        .batch_execute(&format!(
            "create role tenant_{name} login; create role evil_{name}; create schema own authorization tenant_{name}; create schema lent authorization evil_{name};
            grant usage on schema lent to tenant_{name}; grant pg_read_server_files to tenant_{name}"
        ))
        .unwrap();
    let mut tenant = database.connect_as(&format!("tenant_{name}"));
    tenant.batch_execute("set search_path = own, lent").unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n");
    let whole = "enum ('created', 'updated', 'deleted', 'recreated')";
    for (schema, owner, kind) in [
        ("lent", "evil", whole),
        ("lent", "evil", "enum ('created')"),
        ("own", "tenant", "enum ('created', 'updated', 'deleted')"),
        ("lent", "evil", "domain"),
        ("own", "tenant", "domain"),
        ("own", "tenant", "range (subtype = int4)"),
    ] {
        let create = match kind {
            "domain" => format!("create domain {schema}.resource_status as text check (value <> '')"),
            _ => format!("create type {schema}.resource_status as {kind}"),
        };
        client.batch_execute(&format!("set role {owner}_{name}; {create}; reset role")).unwrap();
        for call in ["bulk.create_resource_table('Goal')".to_owned(), format!("bulk.load('{}', 'Goal')", file.url())] {
            assert_eq!(failure(&mut tenant, &format!("select {call}")).code, "42809", "{create}: {call}");
        }
        client.batch_execute(&format!("drop type {schema}.resource_status cascade")).unwrap();
    }
    // Casts run a function.
    client
        .batch_execute(&format!(
            "set role tenant_{name}; create type own.resource_status as {whole}; create function own.spelled(own.resource_status) returns text language sql as $$ select 'x' $$; \
             create cast (own.resource_status as text) with function own.spelled(own.resource_status) as assignment; reset role"
        ))
        .unwrap();
    assert_eq!(failure(&mut tenant, "select bulk.create_resource_table('Goal')").code, "42809");
    client.batch_execute("drop type own.resource_status cascade").unwrap();
    // Its own, and the extension's.
    for (schema, owner) in [("lent", format!("tenant_{name}")), ("lent", "postgres".to_owned()), ("own", format!("evil_{name}"))] {
        client
            .batch_execute(&format!(
                "create type {schema}.resource_status as {whole}; alter type {schema}.resource_status owner to {owner}"
            ))
            .unwrap();
        tenant.batch_execute(&format!("select bulk.load('{}', 'Goal'); drop table own.goal, own.goal_history", file.url())).unwrap();
        client.batch_execute(&format!("drop type {schema}.resource_status")).unwrap();
    }
    // A table that has another enum is no resource table, whichever way its rows would take.
    client.batch_execute("create type own.mood as enum ('fine'); create table own.basic (id text primary key, txid int8, status own.mood, resource jsonb)").unwrap();
    client.batch_execute("set search_path = own").unwrap();
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Basic')", file.url())).code, "42809");
    drop_roles(&database, &mut client, &["tenant", "evil"]);
}
