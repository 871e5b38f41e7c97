//! Indexes that a load of a bucket takes off: they come back as they were, however it ends.

use crate::support::buckets::{call, done, lines, load, put};
use crate::support::cluster::{Cluster, server_directory, shared};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::servers::S3Server;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::json;
use std::fs;

parts!(SERVER, WRITING);

/// All that there is to know of the indexes of a table.
const INDEXES: &str = "select string_agg(concat_ws(' | ', x.relname, pg_get_indexdef(x.oid), s.spcname, i.indisclustered, i.indisreplident, i.indisprimary, \
        obj_description(x.oid, 'pg_class'), k.conname, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'), x.reloptions, \
        (select string_agg(a.attstattarget::text, ' ' order by a.attnum) from pg_attribute a where a.attrelid = x.oid)), e'\\n' order by x.relname) \
    from pg_index i join pg_class x on x.oid = i.indexrelid left join pg_tablespace s on s.oid = x.reltablespace \
    left join pg_constraint k on k.conindid = x.oid where i.indrelid = 'patient'::regclass";

fn count(client: &mut Client) -> String {
    value(client, "select count(*) from pg_index where indrelid = 'patient'::regclass")
}

test!("indexes that a load takes off come back as they were", as_they_were);
fn as_they_were() {
    let database = shared().database();
    let mut client = database.connect();
    let place = server_directory();
    let name = &database.name;
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    client.batch_execute(&format!("create tablespace \"place {name}\" location '{}'", place.path().display())).unwrap();
    client
        .batch_execute(&format!(
            "create index patient_resource on patient using gin (resource jsonb_path_ops); \
             create index \"Patient's Name\" on patient ((resource #>> '{{name,0,family}}') desc nulls last, ts) include (txid) with (fillfactor = 70) \
                tablespace \"place {name}\" where status <> 'deleted'; \
             create unique index patient_txid on patient (txid); \
             alter table patient add constraint once unique (id, txid) deferrable initially deferred; \
             create index patient_ts on patient using brin (ts); create index patient_cts on patient (cts); \
             comment on index patient_resource is 'it''s slow'; comment on constraint once on patient is 'never twice'; \
             comment on constraint patient_pkey on patient is 'the key'; alter index \"Patient's Name\" alter column 1 set statistics 500; \
             alter table patient cluster on patient_cts; alter table patient replica identity using index patient_pkey; \
             alter table patient add exclude using btree (txid with =)"
        ))
        .unwrap();
    let before = value(&mut client, INDEXES);
    let directory = server_directory();
    for (n, keys) in
        [("disable-idx?", "patient_pkey, patient_txid_excl"), ("drop-primary-key?", "patient_txid_excl")].into_iter().enumerate()
    {
        let (flag, kept) = keys;
        let n = n as u32;
        fs::write(directory.path().join(format!("Patient-{n}.ndjson")), lines(n * 5000, n * 5000 + 5000)).unwrap();
        client.batch_execute("begin").unwrap();
        let answer = call(&mut client, &json!({"bucket": directory.path(), flag: true}));
        let left = "select string_agg(indexrelid::regclass::text, ', ' order by indexrelid::regclass::text) from pg_index where indrelid = 'patient'::regclass";
        assert_eq!(value(&mut client, left), kept, "{answer}");
        let off = "select count(*) || ' ' || bool_and(status = 'disabled' and restore is null and schemaname = 'public' and tablename = 'patient' and indexdef ~ '^CREATE') from bulk.disabled_index where status = 'disabled'";
        assert_eq!(value(&mut client, off), if n == 0 { "6 true" } else { "7 true" });
        client.batch_execute("commit").unwrap();
        done(&mut client, &answer);
        assert_eq!(value(&mut client, INDEXES), before, "{flag}");
        let back = "select bool_and(status = 'restored' and message is null and (restore->>'start')::timestamptz <= (restore->>'end')::timestamptz \
            and (restore->>'duration')::int >= 0) from bulk.disabled_index";
        assert_eq!(value(&mut client, back), "true");
        assert_eq!(
            value(&mut client, "select tablespace from bulk.disabled_index where indexname = 'Patient''s Name'"),
            format!("place {name}")
        );
    }
    assert_eq!(value(&mut client, "select count(*) from patient"), "10000");
    assert_eq!(value(&mut client, "select count(*) from bulk.restore_indexes()"), "0");
    // A table that is not there yet, and one in another schema of the path; a partitioned one keeps its indexes.
    client.batch_execute("create schema other; set search_path = other, public").unwrap();
    client.batch_execute("select bulk.create_resource_table('Goal'); create index goal_ts on other.goal (ts)").unwrap();
    client
        .batch_execute(
            "create table other.basic (id text primary key, txid bigint, cts timestamptz, ts timestamptz, resource_type text, \
                status resource_status, resource jsonb) partition by hash (id); \
             create table other.basic_0 partition of other.basic for values with (modulus 1, remainder 0); create index basic_ts on other.basic (ts)",
        )
        .unwrap();
    fs::write(directory.path().join("Goal.ndjson"), b"{\"id\": \"g\"}\n").unwrap();
    fs::write(directory.path().join("Basic.ndjson"), b"{\"id\": \"b\"}\n").unwrap();
    fs::write(directory.path().join("Claim.ndjson"), b"{\"id\": \"c\"}\n").unwrap();
    let answer = call(&mut client, &json!({"bucket": directory.path(), "drop-primary-key?": true, "disable-idx?": true}));
    done(&mut client, &answer);
    assert_eq!(
        value(
            &mut client,
            "select string_agg(concat_ws(' ', type, status, message), ', ' order by type) from bulk.loader_file where type <> 'Patient'"
        ),
        "Basic done, Claim done, Goal done"
    );
    assert_eq!(
        value(
            &mut client,
            "select string_agg(indexrelid::regclass::text, ', ' order by indexrelid::regclass::text) from pg_index where indrelid in ('other.goal'::regclass, 'other.claim'::regclass, 'other.basic'::regclass)"
        ),
        "basic_pkey, basic_ts, claim_pkey, goal_pkey, goal_ts"
    );
    client.batch_execute("drop index public.\"Patient's Name\"").unwrap();
    client.batch_execute(&format!("drop tablespace \"place {name}\"")).unwrap();
}

test!("a key that no longer holds stays off, and its duplicates are told", duplicates);
fn duplicates() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = server_directory();
    client
        .batch_execute("select bulk.create_resource_table('Patient'); create unique index patient_born on patient ((resource ->> 'birthDate')); create index patient_ts on patient (ts)")
        .unwrap();
    let mut twice = lines(0, 5);
    twice.extend(lines(3, 4));
    fs::write(directory.path().join("Patient.ndjson"), twice).unwrap();
    let answer = call(&mut client, &json!({"bucket": directory.path(), "drop-primary-key?": true}));
    done(&mut client, &answer);
    assert_eq!(value(&mut client, "select count(*) from patient"), "6");
    assert_eq!(
        value(
            &mut client,
            "select string_agg(concat_ws(' ', indexname, status, message), '; ' order by indexname) from bulk.disabled_index"
        ),
        "patient_born disabled could not create unique index \"patient_born\". Key ((resource ->> 'birthDate'::text))=(1903-01-01) is duplicated.; \
         patient_pkey disabled could not create unique index \"patient_pkey\". Key (id)=(p-3) is duplicated.; patient_ts restored"
    );
    let said = "select concat_ws(' ', state, message) from bulk.job";
    assert!(value(&mut client, said).starts_with("completed could not create unique index"), "{}", value(&mut client, said));
    // Without its key the table takes no other loads than those that do without it.
    let refused = failure(&mut client, &format!("select bulk.load('{}/Patient.ndjson', 'Patient')", directory.path().display()));
    assert_eq!(refused.code, "42P10");
    fs::write(directory.path().join("Patient-2.ndjson"), lines(50, 51)).unwrap();
    let answer = call(&mut client, &json!({"bucket": directory.path()}));
    done(&mut client, &answer);
    let said = "select concat_ws(' ', status, message) from bulk.loader_file where file ~ 'Patient-2'";
    assert_eq!(value(&mut client, said), "error table \"patient\" is not a resource table: it has no plain unique key on id");
    assert_eq!(value(&mut client, "select count(*) from bulk.restore_indexes()"), "0");
    client.batch_execute("delete from patient where ctid = (select max(ctid) from patient where id = 'p-3')").unwrap();
    assert_eq!(
        value(&mut client, "select string_agg(r, ' ' order by r) from bulk.restore_indexes('patient') r"),
        "public.patient_born public.patient_pkey"
    );
    assert_eq!(count(&mut client), "3");
    assert_eq!(value(&mut client, "select bool_and(status = 'restored' and message is null) from bulk.disabled_index"), "true");
    // For another owner than it was nothing is run; nor where the name is taken.
    let name = &database.name;
    client.batch_execute(&format!("update bulk_internal.disabled_index set status = 'disabled' where indexname = 'patient_ts'; drop index patient_ts; create role other_{name}")).unwrap();
    client
        .batch_execute(&format!("grant create, usage on schema public to other_{name}; alter table patient owner to other_{name}"))
        .unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.restore_indexes()"), "0");
    assert_eq!(
        value(&mut client, "select message from bulk.disabled_index where indexname = 'patient_ts'"),
        "table \"public.patient\" is no longer of \"postgres\""
    );
    client.batch_execute("alter table patient owner to postgres; create view patient_ts as select 1").unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.restore_indexes()"), "0");
    assert_eq!(
        value(&mut client, "select message from bulk.disabled_index where indexname = 'patient_ts'"),
        "another relation has the name \"patient_ts\""
    );
    client.batch_execute("drop view patient_ts").unwrap();
    assert_eq!(value(&mut client, "select string_agg(r, ' ') from bulk.restore_indexes() r"), "public.patient_ts");
    // One that somebody made by hand, and a table that is gone.
    client.batch_execute("delete from bulk.loader_file; truncate patient").unwrap();
    fs::remove_file(directory.path().join("Patient.ndjson")).unwrap();
    client.batch_execute("begin").unwrap();
    let answer = call(&mut client, &json!({"bucket": directory.path(), "disable-idx?": true}));
    client.batch_execute("create index patient_ts on patient (ts); commit").unwrap();
    done(&mut client, &answer);
    assert_eq!(count(&mut client), "3");
    client.batch_execute("delete from bulk.loader_file; truncate patient; begin").unwrap();
    let answer = call(&mut client, &json!({"bucket": directory.path(), "disable-idx?": true}));
    client.batch_execute("delete from bulk.loader_file; drop table patient; commit").unwrap();
    done(&mut client, &answer);
    assert!(
        value(&mut client, "select string_agg(distinct message, '; ') from bulk.disabled_index where status = 'disabled'")
            .contains("is gone")
    );
}

test!("indexes come back when the load fails or is cancelled, and when the server crashes", however_it_ends);
fn however_it_ends() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    client
        .batch_execute("select bulk.create_resource_table('Patient'); create index patient_ts on patient (ts); create index patient_resource on patient using gin (resource)")
        .unwrap();
    let before = value(&mut client, INDEXES);
    let at_work = "select count(*) from bulk.loader_file where status = 'in-progress'";
    // Cancelled: a job of their own puts them back.
    put(&server, "Patient.ndjson", &lines(0, 5000));
    proxy.trouble(Trouble::Stall(10_000), 1);
    let asked = proxy.asked();
    let answer = load(&mut client, &proxy.host(), json!({"drop-primary-key?": true}));
    wait_until("it is at work", || value(&mut client, at_work) == "1" && proxy.asked() > asked);
    assert_eq!(count(&mut client), "0");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{}')", answer["id"].as_str().unwrap())), "true");
    let other = value(&mut client, "select id from bulk.job where kind = 'indexes'");
    assert_eq!(value(&mut client, &format!("bulk.wait('{other}', '30 s')")), "done");
    assert_eq!(value(&mut client, INDEXES), before);
    // Failed.
    put(&server, "Patient-2.ndjson", b"{");
    let answer = load(&mut client, &proxy.host(), json!({"disable-idx?": true, "prefixes": ["Patient-2"]}));
    done(&mut client, &answer);
    assert_eq!(value(&mut client, INDEXES), before);
    // The job that puts them back can be cancelled itself; one whose role cannot connect keeps nobody from it.
    client.batch_execute("truncate patient, patient_history; delete from bulk.loader_file; begin").unwrap();
    let answer = load(&mut client, &proxy.host(), json!({"disable-idx?": true, "prefixes": ["Patient.nd"]}));
    assert_eq!(value(&mut client, &format!("bulk.cancel('{}')", answer["id"].as_str().unwrap())), "true");
    let again = value(&mut client, "select id from bulk.job where kind = 'indexes' and state = 'waiting'");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{again}')")), "true");
    client.batch_execute("commit").unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.job where state in ('waiting', 'in-progress')"), "0");
    assert_eq!(
        value(&mut client, "select string_agg(r, ' ' order by r) from bulk.restore_indexes() r"),
        "public.patient_resource public.patient_ts"
    );
    // A function of an index that finds another by the path: since 17 PostgreSQL itself builds no such index.
    let builds_by_path = value(&mut client, "select current_setting('server_version_num')::int < 170000") == "true";
    client
        .batch_execute(
            "create schema norm; create function norm.plain(text) returns text language sql immutable as 'select lower($1)'; set search_path = public, norm; \
             create function norm.birth(jsonb) returns text language plpgsql immutable as 'begin return plain($1 ->> ''birthDate''); end'; \
             create index patient_birth on patient (birth(resource))",
        )
        .unwrap();
    client.batch_execute("delete from bulk.loader_file").unwrap();
    let with_path = value(&mut client, INDEXES);
    let answer = load(&mut client, &proxy.host(), json!({"disable-idx?": true, "prefixes": ["Patient.nd"]}));
    done(&mut client, &answer);
    if builds_by_path {
        assert_eq!(value(&mut client, INDEXES), with_path);
    } else {
        let message = "select message from bulk.disabled_index where indexname = 'patient_birth' and status = 'disabled'";
        assert!(value(&mut client, message).contains("function plain(text) does not exist"));
    }
    client.batch_execute("reset search_path; drop index if exists patient_birth; delete from bulk_internal.disabled_index").unwrap();
    // Crashed, and put back by hand, by whoever asks; by the next call; or by going on.
    for way in ["hand", "call", "resume"] {
        client.batch_execute("truncate patient, patient_history; delete from bulk.loader_file").unwrap();
        proxy.trouble(Trouble::Stall(10_000), 1);
        let asked = proxy.asked();
        load(&mut client, &proxy.host(), json!({"drop-primary-key?": true, "prefixes": ["Patient.nd"]}));
        wait_until("it is at work", || value(&mut client, at_work) == "1" && proxy.asked() > asked);
        cluster.stop("immediate");
        cluster.boot();
        client = database.connect();
        assert_eq!(
            (count(&mut client).as_str(), crate::support::buckets::status(&mut client, "s3://bucket")["state"].as_str()),
            ("0", Some("interrupted")),
            "{way}"
        );
        match way {
            "hand" => {
                let names = "select string_agg(r, ' ' order by r) from bulk.restore_indexes() r";
                assert_eq!(value(&mut client, names), "public.patient_pkey public.patient_resource public.patient_ts");
            }
            "call" => {
                // One that does not ask for it itself.
                let again = load(&mut client, &proxy.host(), json!({"prefixes": ["nothing"]}));
                assert_eq!(again["new-files-count"], 0);
                done(&mut client, &again);
                assert_eq!(value(&mut client, "select status from bulk.loader_file"), "in-progress");
            }
            _ => {
                let id = value(&mut client, "select string_agg(r, ' ') from bulk.resume_interrupted() r");
                assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '60 s')")), "completed");
                assert_eq!(value(&mut client, "select count(*) from patient"), "5000");
            }
        }
        assert_eq!(value(&mut client, INDEXES), before, "{way}");
        if way != "resume" {
            let again = load(&mut client, &proxy.host(), json!({"prefixes": ["Patient.nd"]}));
            done(&mut client, &again);
            assert_eq!(value(&mut client, "select count(*) from patient"), "5000", "{way}");
        }
        assert_eq!(value(&mut client, INDEXES), before, "{way}");
    }
}

test!("only who owns a table has its indexes taken off, and foreign keys keep theirs", refused);
fn refused() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = server_directory();
    let name = &database.name;
    fs::write(directory.path().join("Patient.ndjson"), lines(0, 5)).unwrap();
    client.batch_execute("select bulk.create_resource_table('Patient'); create index patient_ts on patient (ts)").unwrap();
    client.batch_execute("create table visit (patient text references patient)").unwrap();
    let error = call(&mut client, &json!({"bucket": directory.path(), "drop-primary-key?": true}));
    assert_eq!(error["error"]["code"], "2BP01", "{error}");
    assert_eq!(
        value(
            &mut client,
            "select (select count(*) from bulk.loader_file) + (select count(*) from bulk.job) + (select count(*) from bulk.disabled_index)"
        ),
        "0"
    );
    client
        .batch_execute(&format!(
            "create role loader_{name}; grant pg_read_server_files to loader_{name}; grant all on patient, patient_history, transaction_id_seq to loader_{name}; \
             set role loader_{name}"
        ))
        .unwrap();
    let error = call(&mut client, &json!({"bucket": directory.path(), "disable-idx?": true}));
    assert_eq!((&error["error"]["code"], &error["error"]["message"]), (&json!("42501"), &json!("must be owner of table \"patient\"")));
    assert_eq!(failure(&mut client, "select bulk.restore_indexes('patient')").code, "42501");
    assert_eq!(count(&mut client), "2");
    let answer = call(&mut client, &json!({"bucket": directory.path()}));
    done(&mut client, &answer);
    assert_eq!(value(&mut client, "select count(*) from patient"), "5");
    // An administrator puts back what is another's, with the owner's rights and no more.
    client.batch_execute("reset role; drop table visit; delete from bulk.loader_file; truncate patient").unwrap();
    client
        .batch_execute(&format!(
            "create function peek(resource jsonb) returns text language plpgsql immutable as \
                $$begin return coalesce(current_setting('bulk.peek', true), current_user); end$$; \
             create index patient_peek on patient (peek(resource)); \
             create role admin_{name}; grant bulk_admin to admin_{name}; update bulk_internal.loader_file set job = job"
        ))
        .unwrap();
    client.batch_execute("begin").unwrap();
    let answer = call(&mut client, &json!({"bucket": directory.path(), "disable-idx?": true}));
    assert_eq!(value(&mut client, &format!("bulk.cancel('{}')", answer["id"].as_str().unwrap())), "true");
    client.batch_execute("update bulk_internal.job set state = 'cancelled' where kind = 'indexes'; commit").unwrap();
    client.batch_execute(&format!("set role admin_{name}")).unwrap();
    assert_eq!(
        value(&mut client, "select string_agg(r, ' ' order by r) from bulk.restore_indexes() r"),
        "public.patient_peek public.patient_ts"
    );
    client.batch_execute("reset role").unwrap();
    assert_eq!(count(&mut client), "3");
}

test!("loads that do without the same index leave it to the last", shared_by_loads);
fn shared_by_loads() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let (slow, directory) = (Proxy::start(server.server.port), server_directory());
    client.batch_execute("select bulk.create_resource_table('Patient'); create index patient_ts on patient (ts)").unwrap();
    put(&server, "Patient.ndjson", &lines(0, 5000));
    slow.trouble(Trouble::Stall(10_000), 1);
    let first = load(&mut client, &slow.host(), json!({"disable-idx?": true}));
    wait_until("it reads, with the table locked", || slow.asked() == 1);
    fs::write(directory.path().join("Patient.ndjson"), lines(10_000, 10_010)).unwrap();
    // The table is looked at for indexes once the other's file is through.
    client.batch_execute("set lock_timeout = '100ms'").unwrap();
    let locked = client.query_one(
        "select bulk.load_from_bucket($1::text::jsonb)",
        &[&json!({"bucket": directory.path(), "disable-idx?": true}).to_string()],
    );
    assert_eq!(locked.unwrap_err().code().unwrap().code(), "55P03");
    client.batch_execute("reset lock_timeout").unwrap();
    let (mut other, params) = (database.connect(), json!({"bucket": directory.path(), "disable-idx?": true}));
    let waiting = std::thread::spawn(move || call(&mut other, &params));
    let waits = "select count(*) from pg_locks where locktype = 'relation' and not granted and database = (select oid from pg_database where datname = current_database())";
    wait_until("it waits for the other's file", || value(&mut client, waits) == "1");
    slow.let_go();
    let second = waiting.join().unwrap();
    done(&mut client, &second);
    done(&mut client, &first);
    assert_eq!(count(&mut client), "2");
    assert_eq!(value(&mut client, "select count(*) from patient"), "5010");
    assert_eq!(value(&mut client, "select string_agg(status, ' ') from bulk.disabled_index"), "restored");
}
