//! What one role's jobs and loads leave to others: places, turns, time, threads.

use crate::support::buckets::{self, lines};
use crate::support::cluster::{Cluster, Database, server_directory};
use crate::support::exports::{self, export};
use crate::support::imports::{PLAIN, act, call, patient_input, wait};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::servers::S3Server;
use crate::support::source::{File, Manner, Slow};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;
use serde_json::json;
use std::fs;
use std::time::Duration;

parts!(SERVER);

/// A role with a schema and a table of patients of its own.
fn tenant(database: &Database, admin: &mut Client, name: &str) -> Client {
    admin
        .batch_execute(&format!(
            "create role {name} login in role bulk_remote; create schema {name} authorization {name}; alter role {name} set search_path = {name};
            grant pg_read_server_files to {name}"
        ))
        .unwrap();
    let mut client = database.connect_as(name);
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    client
}

/// Makes a role's table of a type one that is read only when nobody holds the lock 77 any more.
fn endless(client: &mut Client, resource_type: &str) {
    client
        .batch_execute(&format!(
            "create view {resource_type} as select '1'::text as id, 1::bigint as txid, now() as cts, now() as ts, '{resource_type}' as resource_type, \
             'created'::resource_status as status, '{{}}'::jsonb as resource from pg_advisory_lock_shared(77)"
        ))
        .unwrap();
}

const AT_WORK: &str = "select count(*) from pg_stat_activity where backend_type = 'bulk worker' and wait_event_type = 'Lock'";

fn state(client: &mut Client, id: &str) -> String {
    value(client, &format!("select state || coalesce(': ' || message, '') from bulk.job where id = '{id}'"))
}

test!("a role gets no more than its share of workers, and another begins at once", shares);
fn shares() {
    let cluster = Cluster::start_with("bulk.max_workers = 3\nmax_worker_processes = 12\n");
    let database = cluster.database();
    let mut admin = database.connect();
    let (mut greedy, mut other) = (tenant(&database, &mut admin, "greedy"), tenant(&database, &mut admin, "other"));
    endless(&mut greedy, "basic");
    admin.batch_execute("select pg_advisory_lock(77)").unwrap();
    let ids: Vec<String> = (0..6).map(|_| value(&mut greedy, "bulk.validate('Basic')")).collect();
    wait_until("its share is at work", || value(&mut admin, AT_WORK) == "2");
    let waits = "waiting: bulk.max_workers_per_role workers are at work for role \"greedy\"";
    wait_until("the others wait", || ids.iter().filter(|id| state(&mut greedy, id) == waits).count() == 4);
    let id = value(&mut other, "bulk.validate('Patient')");
    assert_eq!(value(&mut other, &format!("bulk.wait('{id}', '30 s')")), "done");
    assert_eq!(value(&mut admin, AT_WORK), "2");
    // What the setting says is what a role gets; the one that ends starts the next of its own.
    admin.batch_execute("load 'bulk'").unwrap();
    admin.batch_execute("alter system set bulk.max_workers_per_role = 1").unwrap();
    admin.batch_execute("select pg_reload_conf()").unwrap();
    wait_until("the setting is known", || value(&mut greedy, "current_setting('bulk.max_workers_per_role')") == "1");
    assert_eq!(failure(&mut greedy, "set bulk.max_workers_per_role = 3").code, "55P02");
    admin.batch_execute("select pg_advisory_unlock(77)").unwrap();
    for id in &ids {
        assert_eq!(value(&mut greedy, &format!("bulk.wait('{id}', '30 s')")), "done");
    }
    wait_until("no worker is left", || value(&mut admin, "select count(*) from bulk_internal.role_slots()") == "0");
}

test!("no code that a worker runs takes its locks from it", unlocking);
fn unlocking() {
    let cluster = Cluster::start_with("bulk.max_workers = 3\nmax_worker_processes = 12\n");
    let database = cluster.database();
    let mut admin = database.connect();
    let (mut greedy, mut other) = (tenant(&database, &mut admin, "greedy"), tenant(&database, &mut admin, "other"));
    // Through whatever runs it, and catches what it says.
    greedy
        .batch_execute(
            "create function unlock(what jsonb) returns jsonb language plpgsql as $$ begin \
                begin perform pg_advisory_unlock_all(); exception when others then null; end; \
                begin execute 'select pg_catalog.pg_advisory_unlock_all()'; exception when others then null; end; \
                begin execute 'discard all'; exception when others then null; end; \
                perform pg_advisory_lock_shared(77); return what; end $$;
            create function unlock_too(what jsonb) returns jsonb language sql as 'select pg_advisory_unlock_all(); select unlock(what)';
            insert into patient (id, txid, status, resource) values ('a', 1, 'created', '{}');
            create view basic as select id, txid, cts, ts, 'Basic'::text as resource_type, status, unlock(resource) as resource from patient;
            create view account as select id, txid, cts, ts, 'Account'::text as resource_type, status, unlock_too(resource) as resource from patient",
        )
        .unwrap();
    admin.batch_execute("select pg_advisory_lock(77)").unwrap();
    let ids: Vec<String> = (0..6).map(|_| value(&mut greedy, "bulk.validate('Basic')")).collect();
    wait_until("its share is at work", || value(&mut admin, AT_WORK) == "2");
    assert_eq!(value(&mut admin, "select string_agg(places::text, ' ') from bulk_internal.role_slots()"), "2");
    let id = value(&mut other, "bulk.validate('Patient')");
    assert_eq!(value(&mut other, &format!("bulk.wait('{id}', '30 s')")), "done");
    for id in &ids {
        assert_eq!(value(&mut greedy, &format!("bulk.cancel('{id}')")), "true");
    }
    wait_until("no worker is left", || {
        value(&mut admin, "select count(*) from pg_stat_activity where backend_type = 'bulk worker'") == "0"
    });
    admin.batch_execute("select pg_advisory_unlock_all()").unwrap();
    let id = value(&mut greedy, "bulk.validate('Account')");
    assert_eq!(value(&mut greedy, &format!("bulk.wait('{id}', '30 s')")), "error");
    assert_eq!(state(&mut greedy, &id), "error: pg_advisory_unlock_all() cannot be called while a worker of bulk is at a job");
}

test!("while 40,000 files of one role wait, another role's file is imported, though there is one place", turns);
fn turns() {
    let cluster = Cluster::start_with("bulk.max_workers = 1\n");
    let database = cluster.database();
    let mut admin = database.connect();
    let (mut greedy, mut other) = (tenant(&database, &mut admin, "greedy"), tenant(&database, &mut admin, "other"));
    let directory = server_directory();
    for n in 0..40_000 {
        fs::write(directory.path().join(format!("Patient-{n}.ndjson")), format!("{{\"id\":\"p{n}\"}}\n")).unwrap();
    }
    let id = buckets::call(&mut greedy, &json!({"bucket": directory.path().display().to_string()}))["id"].as_str().unwrap().to_owned();
    let done = "select count(*) from bulk.loader_file where status = 'done'";
    // So many take their time on a busy machine.
    let until_more_than = |client: &mut Client, files: u32| {
        let loaded = (0..1200).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            value(client, done).parse::<u32>().unwrap() > files
        });
        assert!(loaded, "no more than {files} files are loaded");
    };
    until_more_than(&mut greedy, 3);
    let file = File::new(b"{\"id\": \"one\"}\n");
    // Time after time: each gets its turn.
    for round in 0..3 {
        let import = format!("i{round}");
        assert_eq!(call(&mut other, &json!({"id": import, "inputs": patient_input(&file.url())})).0, 200);
        assert_eq!(wait(&mut other, &import), "done");
        assert!(
            ["waiting", "in-progress"].contains(&value(&mut greedy, &format!("select state from bulk.job where id = '{id}'")).as_str())
        );
    }
    let before = value(&mut greedy, done).parse::<u32>().unwrap();
    assert!(before < 30_000, "{before} files were loaded meanwhile");
    until_more_than(&mut greedy, before + 3);
    assert_eq!(value(&mut greedy, &format!("bulk.cancel('{id}')")), "true");
}

test!("a role with many jobs leaves turns to others, of whom each gets one, and long tables are left between steps", many_jobs);
fn many_jobs() {
    let cluster = Cluster::start_with("bulk.max_workers = 1\nbulk.allowed_hosts = '127.0.0.1'\n");
    let database = cluster.database();
    let mut admin = database.connect();
    let mut greedy = tenant(&database, &mut admin, "greedy");
    greedy
        .batch_execute(
            "insert into patient (id, txid, status, resource) select n::text, n, 'created', jsonb_build_object('x', repeat('x', 1900)) \
             from generate_series(1, 40000) n",
        )
        .unwrap();
    let table = value(&mut greedy, "bulk.validate('Patient')");
    let (many, file) = (40, File::new(b"{\"id\": \"one\"}\n"));
    // Each takes the better part of a second.
    let source = Slow::start(lines(0, 3000), Manner { pause: Duration::from_millis(300), ..PLAIN });
    for n in 0..many {
        assert_eq!(call(&mut greedy, &json!({"id": format!("g{n}"), "inputs": patient_input(&source.url())})).0, 200);
    }
    let mut ids = Vec::new();
    for n in 0..3 {
        let mut other = tenant(&database, &mut admin, &format!("other{n}"));
        let id = format!("o{n}");
        assert_eq!(call(&mut other, &json!({"id": id, "inputs": patient_input(&file.url())})).0, 200);
        ids.push((other, id));
    }
    for (other, id) in &mut ids {
        assert_eq!(wait(other, id), "done");
    }
    let before: u32 = value(&mut greedy, "select count(*) from bulk.job where id like 'g%' and state = 'done'").parse().unwrap();
    assert!(before < 30, "{before} of {many} came first");
    source.behave(PLAIN);
    assert_eq!(value(&mut greedy, &format!("bulk.wait('{table}', '60 s')")), "done");
    for n in 0..many {
        assert_eq!(wait(&mut greedy, &format!("g{n}")), "done");
    }
}

test!("a job is at work for as long as an administrator allows, whatever it is", timeouts);
fn timeouts() {
    let cluster = Cluster::start_with("");
    let database = cluster.database();
    let mut admin = database.connect();
    let mut client = tenant(&database, &mut admin, "slow");
    admin.batch_execute("alter role slow set bulk.job_timeout = '1s'; grant all on schema public to slow").unwrap();
    assert_eq!(failure(&mut client, "set bulk.job_timeout = 0").code, "42501");
    endless(&mut client, "basic");
    admin.batch_execute("select pg_advisory_lock(77); grant set on parameter bulk.storage_backend, bulk.storage_aws_bucket to slow; grant bulk_admin to slow").unwrap();
    let mut client = database.connect_as("slow");
    let too_long = "error: the job was at work for longer than bulk.job_timeout allows (1 s)";
    let ends = |client: &mut Client, id: &str| {
        wait_until("it ends", || {
            value(client, &format!("select state not in ('waiting', 'in-progress') from bulk.job where id = '{id}'")) == "true"
        });
        assert_eq!(state(client, id), too_long);
    };
    let id = value(&mut client, "bulk.validate('Basic')");
    ends(&mut client, &id);
    // What it has done stays, and it goes on with that when it is resumed: the time begins anew.
    let content = lines(0, 3000);
    let source = Slow::start(content.clone(), Manner { most: content.len() / 2, hangs: true, ..PLAIN });
    admin.batch_execute("set bulk.allowed_hosts = '127.0.0.1'; alter role slow set bulk.allowed_hosts = '127.0.0.1'").unwrap();
    let mut client = database.connect_as("slow");
    for mode in ["bulk", "transaction"] {
        assert_eq!(call(&mut client, &json!({"id": mode, "mode": mode, "inputs": patient_input(&source.url())})).0, 200, "{mode}");
        ends(&mut client, mode);
    }
    source.behave(PLAIN);
    admin.batch_execute("alter role slow set bulk.job_timeout = '60s'").unwrap();
    for mode in ["bulk", "transaction"] {
        assert_eq!(act(&mut client, mode, "force-resume").0, 200, "{mode}");
        assert_eq!(wait(&mut client, mode), "done", "{mode}");
    }
    assert_eq!(value(&mut client, "select count(*) from patient"), "3000");
    admin.batch_execute("alter role slow set bulk.job_timeout = '1s'").unwrap();
    // An export leaves no files, a bucket no index off.
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    exports::bucket(&mut client, &proxy.host());
    proxy.trouble_writing(Some(Trouble::Refuse), 0);
    let begun = export(&mut client, "system", &json!({"_type": "Patient"}), None);
    ends(&mut client, &begun.id());
    proxy.trouble_writing(None, 0);
    wait_until("its files are deleted", || {
        value(&mut client, "select string_agg(state, ' ') from bulk.job where kind = 'cleanup'") == "done"
    });
    client.batch_execute("create index by_birth on patient ((resource->>'birthDate'))").unwrap();
    buckets::put(&server, "Patient.1.ndjson", &lines(5000, 10_000));
    let proxy = Proxy::start(server.server.port);
    proxy.trouble(Trouble::Stall(100_000), 1);
    let answer = buckets::load(&mut client, &proxy.host(), json!({"disable-idx?": true, "prefixes": ["Patient.1"]}));
    ends(&mut client, answer["id"].as_str().unwrap());
    proxy.let_go();
    wait_until("the index is there", || value(&mut client, "to_regclass('by_birth') is not null") == "true");
    assert_eq!(value(&mut admin, "select count(*) from bulk_internal.disabled_index where status = 'disabled'"), "0");
    // A superuser's own session gives its jobs another.
    let mut admin_too = database.connect();
    admin_too.batch_execute("set search_path = slow; set bulk.job_timeout = '1s'").unwrap();
    let id = value(&mut admin_too, "bulk.validate('Basic')");
    ends(&mut admin_too, &id);
}

test!("loads of the whole server share the threads that a setting gives, and none fails for want of one", threads);
fn threads() {
    let cluster = Cluster::start_with("bulk.encode_threads = 4\nbulk.max_load_threads = 5\n");
    let (one, two) = (cluster.database(), cluster.database());
    for database in [&one, &two] {
        database.connect().batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    }
    let content = lines(0, 3000);
    let source = Slow::start(content.clone(), Manner { most: content.len() / 2, hangs: true, ..PLAIN });
    let url = source.url();
    let load = format!("select bulk.load('{url}', 'Patient')");
    let encoders = |pid: i32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks
            .filter(|task| fs::read_to_string(task.as_ref().unwrap().path().join("comm")).is_ok_and(|name| name.trim() == "bulk encode"))
            .count()
    };
    let mut sessions = Vec::new();
    for (database, expected) in [(&one, 4), (&two, 1), (&one, 1)] {
        let mut client = database.connect();
        client.batch_execute("set bulk.allowed_hosts = '127.0.0.1'").unwrap();
        let pid: i32 = value(&mut client, "pg_backend_pid()").parse().unwrap();
        let (load, before) = (load.clone(), source.begun.lock().unwrap().len());
        let loading = std::thread::spawn(move || (client.batch_execute(&load).unwrap_err(), client));
        wait_until("it loads", || source.begun.lock().unwrap().len() > before && encoders(pid) == expected);
        sessions.push((pid, loading));
    }
    // Whether it ends well or not, a load gives its threads back.
    let mut admin = one.connect();
    let mut clients = Vec::new();
    for (pid, loading) in sessions {
        admin.batch_execute(&format!("select pg_cancel_backend({pid})")).unwrap();
        clients.push(loading.join().unwrap().1);
    }
    source.behave(PLAIN);
    let taken = "select count(*) from pg_locks where locktype = 'advisory' and objsubid = bulk_internal.lock_class('load-thread')";
    for client in &mut clients {
        client.batch_execute(&format!("begin; {load}")).unwrap();
        assert_eq!(value(&mut admin, taken), "0");
        client.batch_execute("commit").unwrap();
    }
}
