//! Jobs that wait for a place, and what the end of a worker, a server or a database makes of them.

use crate::support::cluster::{Cluster, checked, replay, shared};
use crate::support::faults::{Fault, happen};
use crate::support::jobs::{hold, is_gone, outcome, patients, stuck, validated};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;

parts!(SERVER);

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
        assert_eq!(outcome(&mut client, &id), "done 60000 6000");
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
    assert_eq!(outcome(&mut reader, &done), "done 1000 100");
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
    assert_eq!(outcome(&mut copy, &id), "done 1000 100");
    assert_eq!(value(&mut copy, &format!("select count(*) from bulk.load_error where load_id = '{id}'")), "100");
    assert_eq!(value(&mut copy, &format!("select state from bulk.job where id = '{open}'")), "interrupted");
    // New jobs have numbers of their own.
    let (new, _) = validated(&mut copy, "'Patient'");
    assert_eq!(outcome(&mut copy, &new), "done 1000 100");
    assert_eq!(value(&mut copy, "select state from bulk.job where id = 'waits'"), "interrupted");
    // What was found in another file of the table is found again, once.
    copy.batch_execute("vacuum full patient").unwrap();
    assert_eq!(value(&mut copy, "select count(*) from bulk.resume_interrupted()"), "2");
    assert_eq!(value(&mut copy, "bulk.wait('waits', '20 s')"), "done");
    assert_eq!(value(&mut copy, &format!("bulk.wait('{open}', '20 s')")), "done");
    assert_eq!(outcome(&mut copy, &open), "done 1000 100");
    assert_eq!(value(&mut client, &format!("select state from bulk.job where id = '{open}'")), "interrupted");
}
