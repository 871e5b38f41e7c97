//! Loads of buckets: the rules of the page, files that are all or nothing, faults of servers.

use crate::support::buckets::{call, done, lines, load, put, status};
use crate::support::cluster::{server_directory, shared};
use crate::support::imports::rows;
use crate::support::proxy::{Proxy, Trouble};
use crate::support::servers::S3Server;
use crate::support::source::gzip;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{WRITING, parts, test};
use postgres::Client;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

parts!(WRITING);

/// What the rows of files say, without their times.
fn files(client: &mut Client) -> String {
    value(
        client,
        "select string_agg(concat_ws(' ', file, type, status, loaded, error->>'source', error->>'code'), ', ' order by file collate \"C\") from bulk.loader_file",
    )
}

test!("the new files of a bucket are loaded, each once", each_once);
fn each_once() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    for (key, content) in [
        ("fhir/1/Patient.ndjson.gz", gzip(&lines(0, 3000))),
        ("fhir/1/patient-01.ndjson", lines(3000, 3010)),
        ("fhir/2/MedicationRequest-1.ndjson", b"{\"id\": \"m\", \"medication\": {\"CodeableConcept\": {\"text\": \"x\"}}}\n".to_vec()),
        ("Widget_a.ndjson", b"{\"id\": \"w\", \"resourceType\": \"Widget\"}\n".to_vec()),
        ("Gadget.ndjson", b"{\"id\": \"g\"}\n".to_vec()),
        ("import.ndjson", b"x".to_vec()),
        ("01-patient.ndjson.gz", b"x".to_vec()),
        ("fhir/Patient", b"x".to_vec()),
    ] {
        put(&server, key, &content);
    }
    client.batch_execute("select bulk.create_resource_table('Widget')").unwrap();
    let first = load(&mut client, &server.host(), json!({"prefixes": ["fhir/1/", "fhir/1/Pat", "Wid"]}));
    assert_eq!(first["message"], "Upload from bucket <s3://bucket> started. 3 new files added.");
    assert_eq!((&first["new-files-count"], &first["progress"], &first["ignored"]), (&json!(3), &json!({"total": 3}), &json!([])));
    done(&mut client, &first);
    let all = load(&mut client, &server.host(), json!({}));
    assert_eq!((&all["new-files-count"], &all["progress"]), (&json!(1), &json!({"total": 4})));
    assert_eq!(all["ignored"], json!(["01-patient.ndjson.gz", "Gadget.ndjson", "fhir/Patient", "import.ndjson"]));
    done(&mut client, &all);
    let expected = "Widget_a.ndjson Widget done 1, fhir/1/Patient.ndjson.gz Patient done 3000, fhir/1/patient-01.ndjson Patient done 10, \
        fhir/2/MedicationRequest-1.ndjson MedicationRequest done 1";
    assert_eq!(files(&mut client), expected);
    assert_eq!(value(&mut client, "select count(*) from patient"), "3010");
    assert_eq!(value(&mut client, "select resource from medicationrequest"), r#"{"medication": {"CodeableConcept": {"text": "x"}}}"#);
    let facts = "select bool_and(bucket = 's3://bucket' and size > 0 and last_modified > now() - interval '1 day' and start <= \"end\" \
        and message is null and etag <> '') from bulk.loader_file";
    assert_eq!(value(&mut client, facts), "true");
    assert_eq!(
        status(&mut client, "s3://bucket"),
        json!({"state": "completed", "progress": {"total": 4, "pending": 0, "done": 4, "error": 0}})
    );
    // Nothing is new: no job.
    let none = load(&mut client, &server.host(), json!({}));
    assert_eq!((&none["new-files-count"], none.get("id")), (&json!(0), None));
    // An object that is another now is told, and loaded when its row is gone.
    put(&server, "fhir/1/patient-01.ndjson", &lines(4000, 4020));
    let changed = load(&mut client, &server.host(), json!({}));
    assert_eq!((&changed["new-files-count"], &changed["changed"]), (&json!(0), &json!(["fhir/1/patient-01.ndjson"])));
    assert_eq!(value(&mut client, "bulk.forget_file('s3://bucket', 'fhir/1/patient-01.ndjson')"), "true");
    assert_eq!(value(&mut client, "bulk.forget_file('s3://bucket', 'fhir/1/patient-01.ndjson')"), "false");
    let again = load(&mut client, &server.host(), json!({}));
    assert_eq!(again["new-files-count"], 1);
    done(&mut client, &again);
    assert_eq!(value(&mut client, "select count(*) from patient"), "3030");
    // The other format.
    put(&server, "f/Observation.ndjson", b"{\"resourceType\": \"Observation\", \"id\": \"o\", \"valueString\": \"x\"}\n");
    let fhir = load(&mut client, &server.host(), json!({"format": "fhir", "prefixes": ["f/"]}));
    done(&mut client, &fhir);
    assert_eq!(value(&mut client, "select resource from observation"), r#"{"value": {"string": "x"}}"#);
    // By method.
    let method = |client: &mut Client, method: &str, params: &str| {
        value(client, &format!("bulk.rpc('{{\"method\": \"aidbox.bulk/{method}\", \"params\": {params}}}')"))
    };
    assert!(method(&mut client, "load-from-bucket-status", r#"{"bucket": "s3://bucket"}"#).contains(r#"{"result": {"state": "completed""#));
    assert!(method(&mut client, "load-from-bucket-status", r#"{"bucket": "s3://other"}"#).contains(r#"{"error": {"code": "42704""#));
    assert!(
        method(&mut client, "load-from-bucket", r#"{"bucket": "s3://bucket", "thread": 1}"#).contains(r#"unrecognized option \"thread\""#)
    );
    // The secret stands nowhere, and nothing of it is left.
    assert_eq!(value(&mut client, "select count(*) from bulk_internal.job_secret"), "0");
    assert_eq!(
        value(
            &mut client,
            "select count(*) from bulk_internal.job j join bulk_internal.job_spec p on p.job = j.number where j::text || p::text ~ 'SECRET'"
        ),
        "0"
    );
}

test!("buckets of one name on two servers are two buckets", two_servers);
fn two_servers() {
    let Some((one, other)) = S3Server::start(&["bucket"]).zip(S3Server::start(&["bucket"])) else { return };
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("set bulk.allowed_hosts = '127.0.0.1'").unwrap();
    for (server, from) in [(&one, 0), (&other, 100)] {
        put(server, "Patient.ndjson", &lines(from, from + 10));
        let answer = load(&mut client, &server.host(), json!({}));
        assert_eq!(answer["new-files-count"], 1);
        done(&mut client, &answer);
    }
    assert_eq!(value(&mut client, "select count(*) from patient"), "20");
    let host = |server: &S3Server| server.host().replace("http://", "");
    let mut hosts = [host(&one), host(&other)];
    hosts.sort_unstable();
    assert_eq!(value(&mut client, "select string_agg(endpoint, ' ' order by endpoint) from bulk.loader_file"), hosts.join(" "));
    // Without an account the name says too little.
    let several = status(&mut client, "s3://bucket");
    assert_eq!(several["error"]["code"], "42P08");
    assert!(hosts.iter().all(|host| several["error"]["message"].as_str().unwrap().contains(host.as_str())), "{several}");
    assert_eq!(failure(&mut client, "select bulk.forget_file('s3://bucket', 'Patient.ndjson')").code, "42P08");
    // A rotated key loads nothing again.
    let mut rotated =
        json!({"bucket": "s3://bucket", "account": {"access-key-id": "KEY", "secret-access-key": "SECRET", "region": "us-west-2"}});
    rotated["account"]["host"] = json!(one.host().to_uppercase().replace("HTTP", "http"));
    assert_eq!(call(&mut client, &rotated)["new-files-count"], 0);
}

test!("a directory of the server is a bucket", directories);
fn directories() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = server_directory();
    let path = directory.path();
    fs::create_dir(path.join("a b")).unwrap();
    fs::write(path.join("a b/Patient.ndjson"), lines(0, 20)).unwrap();
    let bucket = format!("file://{}", path.display());
    let answer = call(&mut client, &json!({"bucket": bucket}));
    assert_eq!(answer["message"], format!("Upload from bucket <{bucket}> started. 1 new files added."));
    done(&mut client, &answer);
    assert_eq!(
        value(&mut client, "select concat_ws(' ', bucket, file, status, loaded) from bulk.loader_file"),
        format!("local {}/a b/Patient.ndjson done 20", path.display())
    );
    let expected = json!({"state": "completed", "progress": {"total": 1, "pending": 0, "done": 1, "error": 0}});
    assert_eq!((status(&mut client, &bucket), status(&mut client, "local")), (expected.clone(), expected));
    // However it is named it is one.
    std::os::unix::fs::symlink(path, path.join("link")).unwrap();
    for name in [format!("{}//", path.display()), format!("{}/./a b/..", path.display()), format!("{}/link", path.display())] {
        let answer = call(&mut client, &json!({"bucket": name, "prefixes": ["a b/P", "/"]}));
        assert_eq!((&answer["new-files-count"], &answer["progress"]), (&json!(0), &json!({"total": 1})), "{name}");
        assert_eq!(status(&mut client, &name)["state"], "completed", "{name}");
    }
    fs::remove_file(path.join("link")).unwrap();
    fs::write(path.join("a b/Patient.ndjson"), lines(20, 30)).unwrap();
    assert_eq!(call(&mut client, &json!({"bucket": path}))["changed"], json!([format!("{}/a b/Patient.ndjson", path.display())]));
    let name = &database.name;
    client.batch_execute(&format!("create role plain_{name}; grant all on schema public to plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(call(&mut client, &json!({"bucket": path}))["error"]["code"], "42501");
    assert_eq!(call(&mut client, &json!({"bucket": "s3://bucket"}))["error"]["code"], "42501");
    assert_eq!(value(&mut client, "select count(*) from bulk.loader_file"), "0");
    // What belongs to others is neither taken nor told nor forgotten.
    let forget = format!("bulk.forget_file('local', '{}/a b/Patient.ndjson')", path.display());
    assert_eq!(value(&mut client, &forget), "false");
    assert_eq!(failure(&mut client, "delete from bulk.loader_file").code, "42501");
    client.batch_execute(&format!("reset role; grant pg_read_server_files to plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(call(&mut client, &json!({"bucket": path}))["progress"], json!({"total": 0}));
    assert_eq!(status(&mut client, &bucket)["error"]["code"], "42704");
    assert_eq!(call(&mut client, &json!({"bucket": path}))["held-by-others"], 1);
    // A file that is no file, a directory that cannot be read.
    assert_eq!(call(&mut client, &json!({"bucket": path.join("none")}))["error"]["code"], "58P01");
    fs::write(path.join("a b/Patient-2.ndjson"), lines(100, 110)).unwrap();
    let own = call(&mut client, &json!({"bucket": path}));
    done(&mut client, &own);
    // The type's table is another's.
    assert_eq!(
        value(&mut client, "select concat_ws(' ', status, error) from bulk.loader_file"),
        r#"error {"code": "42501", "source": "postgres"}"#
    );
}

test!("a bucket's file is loaded whole or not at all, and why is told", whole);
fn whole() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let mut broken = lines(0, 5000);
    broken.extend_from_slice(b"{\"id\": \"x\",}\n");
    let mut twice = lines(10_000, 15_000);
    twice.extend(lines(10_000, 10_001));
    let mut other = lines(20_000, 25_000);
    other.extend_from_slice(b"{\"id\": \"o\", \"resourceType\": \"Observation\"}\n");
    let (mut cut, mut without) = (gzip(&lines(30_000, 35_000)), lines(40_000, 45_000));
    cut.truncate(cut.len() / 2);
    without.extend_from_slice(b"{\"name\": []}\n");
    for (key, content) in [
        ("Patient-broken.ndjson", broken),
        ("Patient-twice.ndjson", twice),
        ("Patient-near.ndjson", [lines(60_000, 60_003), lines(60_001, 60_002)].concat()),
        ("Patient-other.ndjson", other),
        ("Patient-cut.ndjson.gz", cut),
        ("Patient-without.ndjson", without),
        ("Patient-empty.ndjson", Vec::new()),
        ("Patient.ndjson", lines(50_000, 50_010)),
    ] {
        put(&server, key, &content);
    }
    let answer = load(&mut client, &server.host(), json!({}));
    done(&mut client, &answer);
    assert_eq!(
        files(&mut client),
        "Patient-broken.ndjson Patient error aidbox 22P02, Patient-cut.ndjson.gz Patient error aidbox 22P04, Patient-empty.ndjson Patient done 0, \
         Patient-near.ndjson Patient error postgres 23505, Patient-other.ndjson Patient error aidbox 22023, Patient-twice.ndjson Patient error postgres 23505, \
         Patient-without.ndjson Patient error aidbox 23502, Patient.ndjson Patient done 10"
    );
    let message = value(&mut client, "select message from bulk.loader_file where file = 'Patient-twice.ndjson'");
    assert_eq!(message, "23505: ERROR: duplicate key value violates unique constraint \"patient_pkey\"");
    assert_eq!(value(&mut client, "select count(*) from patient"), "10");
    assert_eq!(
        value(&mut client, "select concat_ws(' ', line, message) from bulk.load_error where source ~ 'broken'"),
        "5001 invalid JSON: expected a string as key"
    );
    let expected = json!({"state": "completed", "progress": {"total": 8, "pending": 0, "done": 8, "error": 6}});
    assert_eq!(status(&mut client, "s3://bucket"), expected);
    // One whose id is there.
    put(&server, "Patient-2.ndjson", &lines(50_009, 50_020));
    let answer = load(&mut client, &server.host(), json!({}));
    done(&mut client, &answer);
    let second = "select concat_ws(' ', status, message) from bulk.loader_file where file = 'Patient-2.ndjson'";
    assert_eq!(value(&mut client, second), "error 23505: ERROR: duplicate key value violates unique constraint \"patient_pkey\"");
    // Mended, it is loaded once its row is gone; one that was deleted before comes back.
    assert_eq!(value(&mut client, "bulk.forget_file('s3://bucket', 'Patient-2.ndjson')"), "true");
    put(&server, "Patient-2.ndjson", &lines(50_010, 50_020));
    client
        .batch_execute(
            "with gone as (delete from patient where id = 'p-50001' returning *) \
             insert into patient_history (id, txid, cts, ts, resource_type, status, resource) select id, txid + 1000000, cts, ts, resource_type, 'deleted', resource from gone",
        )
        .unwrap();
    put(&server, "Patient-3.ndjson", &lines(50_001, 50_002));
    let answer = load(&mut client, &server.host(), json!({}));
    done(&mut client, &answer);
    assert_eq!(value(&mut client, "select count(*) || ' ' || count(*) filter (where status = 'recreated') from patient"), "20 1");
    // The same of a table that rows do not go straight into.
    fs::remove_file(server.bucket("bucket").join("Patient-3.ndjson")).unwrap();
    client
        .batch_execute(
            "truncate patient, patient_history; delete from bulk.loader_file; create function nothing() returns trigger language plpgsql as 'begin return new; end'; \
             create trigger nothing before insert or update on patient for each row execute function nothing()",
        )
        .unwrap();
    let answer = load(&mut client, &server.host(), json!({}));
    done(&mut client, &answer);
    let failed = "select string_agg(file || ' ' || (error->>'code'), ', ' order by file) from bulk.loader_file where status = 'error'";
    assert_eq!(
        value(&mut client, failed),
        "Patient-broken.ndjson 22P02, Patient-cut.ndjson.gz 22P04, Patient-near.ndjson 23505, Patient-other.ndjson 22023, Patient-twice.ndjson 23505, Patient-without.ndjson 23502"
    );
    assert_eq!(value(&mut client, "select count(*) from patient"), "20");
    // A table without a key would not tell them apart.
    client.batch_execute("create table basic (like patient including defaults); truncate bulk_internal.loader_file").unwrap();
    put(&server, "Basic.ndjson", b"{\"id\": \"b\"}\n{\"id\": \"b\"}\n");
    let answer = load(&mut client, &server.host(), json!({"prefixes": ["Basic"]}));
    done(&mut client, &answer);
    assert_eq!(files(&mut client), "Basic.ndjson Basic error aidbox 42809");
}

test!("a bucket's resources take the place of those that are there when that is asked for, but never twice in a file", upsert);
fn upsert() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let mut twice = lines(2000, 6000);
    twice.extend(lines(2000, 2001));
    let mut near = lines(100, 110);
    near.extend(lines(105, 106));
    let newer = |from: u32, to: u32| -> Vec<u8> {
        (from..to).map(|n| format!("{{\"id\": \"p-{n}\", \"active\": true}}\n")).collect::<String>().into()
    };
    for trigger in [false, true] {
        client.batch_execute("drop table if exists patient, patient_history; truncate bulk_internal.loader_file").unwrap();
        client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
        if trigger {
            client
                .batch_execute(
                    "create or replace function nothing() returns trigger language plpgsql as 'begin return new; end'; \
                     create trigger nothing before insert or update on patient for each row execute function nothing()",
                )
                .unwrap();
        }
        let directory = server.bucket("bucket");
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        put(&server, "1/Patient.ndjson.gz", &gzip(&lines(0, 3000)));
        let answer = load(&mut client, &server.host(), json!({"upsert?": true}));
        done(&mut client, &answer);
        put(&server, "2/Patient.ndjson", &newer(1000, 3500));
        put(&server, "2/Patient-twice.ndjson", &twice);
        put(&server, "2/Patient-near.ndjson", &near);
        let answer = load(&mut client, &server.host(), json!({"upsert?": true, "thread-num": 1, "scheduler": "by-last-modified"}));
        done(&mut client, &answer);
        assert_eq!(
            value(
                &mut client,
                "select string_agg(concat_ws(' ', file, status, loaded, error->>'code'), ', ' order by file) from bulk.loader_file"
            ),
            "1/Patient.ndjson.gz done 3000, 2/Patient-near.ndjson error 23505, 2/Patient-twice.ndjson error 23505, 2/Patient.ndjson done 2500",
            "{trigger}"
        );
        assert_eq!(
            value(
                &mut client,
                "select string_agg(concat_ws(' ', status, active, count), ', ' order by status, active) from (select status, resource ? 'active' as active, count(*) from patient group by 1, 2) p"
            ),
            "created f 1000, created t 500, updated t 2000",
            "{trigger}"
        );
    }
    // Files that bring the same resources at the same time: one of each stays.
    client.batch_execute("drop table patient, patient_history; truncate bulk_internal.loader_file").unwrap();
    for n in 0..12 {
        let mut ids: Vec<u32> = (0..4000).collect();
        if n % 2 == 1 {
            ids.reverse();
        }
        let content: String = ids.iter().map(|id| format!("{{\"id\": \"p-{id}\", \"multipleBirth\": {{\"integer\": {n}}}}}\n")).collect();
        put(&server, &format!("3/Patient-{n}.ndjson"), content.as_bytes());
    }
    let answer = load(&mut client, &server.host(), json!({"upsert?": true, "prefixes": ["3/"]}));
    done(&mut client, &answer);
    assert_eq!(value(&mut client, "select string_agg(distinct status, ' ') || ' ' || count(*) from bulk.loader_file"), "done 12");
    assert_eq!(value(&mut client, "select count(*) from patient"), "4000");
}

test!("files of a bucket go one after another in the order of their times", in_order);
fn in_order() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    for n in 0..6_u32 {
        put(&server, &format!("Patient-{}.ndjson", (n * 5) % 6), &lines(n * 1000, n * 1000 + 10 + (n % 3) * 400));
        let path = server.bucket("bucket").join(format!("Patient-{}.ndjson", (n * 5) % 6));
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + u64::from(n) * 60);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    let answer = load(&mut client, &server.host(), json!({"scheduler": "by-last-modified", "thread-num": 1}));
    done(&mut client, &answer);
    let one_by_one =
        "select bool_and(l.start >= p.\"end\") from bulk.loader_file l join bulk.loader_file p on p.last_modified < l.last_modified";
    assert_eq!(value(&mut client, one_by_one), "true");
    assert_eq!(value(&mut client, "select count(*) filter (where status = 'done') from bulk.loader_file"), "6");
}

test!("a bucket that many sessions load at once is loaded once", together);
fn together() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    for n in 0..20 {
        put(&server, &format!("Patient-{n}.ndjson"), &lines(n * 1000, n * 1000 + 500));
    }
    let sessions: Vec<_> = (0..6)
        .map(|_| {
            let (mut client, host) = (database.connect(), server.host());
            std::thread::spawn(move || load(&mut client, &host, json!({"thread-num": 2})))
        })
        .collect();
    let answers: Vec<Value> = sessions.into_iter().map(|session| session.join().unwrap()).collect();
    let new: Vec<u64> = answers.iter().map(|answer| answer["new-files-count"].as_u64().unwrap()).collect();
    assert_eq!((new.iter().sum::<u64>(), new.iter().max()), (20, Some(&20)), "{answers:?}");
    let started: Vec<&Value> = answers.iter().filter(|answer| answer.get("id").is_some()).collect();
    assert_eq!(started.len(), 1);
    done(&mut client, started[0]);
    assert_eq!(value(&mut client, "select count(*) from patient"), "10000");
    assert_eq!(
        value(&mut client, "select string_agg(distinct status || loaded, ' ') || ' ' || count(*) from bulk.loader_file"),
        "done500 20"
    );
    assert_eq!(value(&mut client, "select count(*) from bulk.job_file"), "20");
}

test!("what is wrong with a call for a bucket is its answer", wrong);
fn wrong() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    put(&server, "Patient.ndjson", &lines(0, 10));
    let account =
        |id: &str, secret: &str| json!({"access-key-id": id, "secret-access-key": secret, "region": "us-east-1", "host": server.host()});
    for (more, source, code) in [
        (json!({"account": account("KEY", "WRONG")}), "aws", "InvalidAccount"),
        (json!({"account": account("NOBODY", "WRONG")}), "aws", "InvalidAccount"),
        (json!({"bucket": "s3://nowhere"}), "aws", "NoSuchKey"),
        (json!({"account": null}), "aidbox", "42704"),
        (json!({"account": {"id": "kept"}}), "aidbox", "42704"),
        (json!({"account": {"region": "x"}}), "aidbox", "22023"),
        (json!({"bucket": "bucket"}), "aidbox", "22023"),
        (json!({"bucket": "s3://bucket/prefix"}), "aidbox", "22023"),
        (json!({"bucket": null}), "aidbox", "22023"),
        (json!({"thread-num": 0}), "aidbox", "22023"),
        (json!({"upsert?": true, "drop-primary-key?": true}), "aidbox", "22023"),
        (json!({"disable-idx": true}), "aidbox", "22023"),
    ] {
        let error = load(&mut client, &server.host(), more.clone());
        assert_eq!((&error["error"]["source"], &error["error"]["code"]), (&json!(source), &json!(code)), "{more}: {error}");
        assert!(!error.to_string().contains("WRONG"), "{error}");
    }
    assert_eq!(value(&mut client, "bulk.load_from_bucket(null)->'error'->>'code'"), "22004");
    assert_eq!(value(&mut client, "bulk.load_from_bucket('[]')->'error'->>'code'"), "22023");
    assert_eq!(value(&mut client, "bulk.load_from_bucket_status('{}')->'error'->>'code'"), "22023");
    client.batch_execute("set bulk.allowed_hosts = ''").unwrap();
    assert_eq!(load(&mut client, &server.host(), json!({}))["error"]["code"], "42501");
    client.batch_execute("set bulk.allowed_hosts = '127.0.0.1'").unwrap();
    assert_eq!(value(&mut client, "select (select count(*) from bulk.loader_file) + (select count(*) from bulk.job)"), "0");
    // An account that is kept serves as well, by its id or as the only one.
    let mut kept = account("KEY", "SECRET");
    kept["resourceType"] = json!("AwsAccount");
    kept["id"] = json!("kept");
    client.execute("select bulk.set_account($1::text::jsonb)", &[&kept.to_string()]).unwrap();
    let answer = load(&mut client, &server.host(), json!({"account": {"id": "kept"}}));
    done(&mut client, &answer);
    client.batch_execute("delete from bulk.loader_file; truncate patient").unwrap();
    let answer = call(&mut client, &json!({"bucket": "s3://bucket"}));
    done(&mut client, &answer);
    assert_eq!(files(&mut client), "Patient.ndjson Patient done 10");
    // An account that is changed between the call and the work: told with the file.
    put(&server, "Patient-2.ndjson", &lines(10, 20));
    client.batch_execute("begin").unwrap();
    let answer = call(&mut client, &json!({"bucket": "s3://bucket"}));
    kept["secret-access-key"] = json!("WRONG");
    client.execute("select bulk.set_account($1::text::jsonb)", &[&kept.to_string()]).unwrap();
    client.batch_execute("commit").unwrap();
    done(&mut client, &answer);
    let said = "select concat_ws(' ', status, error, message) from bulk.loader_file where file = 'Patient-2.ndjson'";
    assert_eq!(
        value(&mut client, said),
        r#"error {"code": "InvalidAccount", "source": "aws"} InvalidAccount: store refused the request: SignatureDoesNotMatch"#
    );
    // What is rolled back leaves nothing; what only reads starts nothing.
    client.batch_execute("delete from bulk.loader_file").unwrap();
    client.batch_execute("begin").unwrap();
    assert_eq!(load(&mut client, &server.host(), json!({}))["new-files-count"], 2);
    client.batch_execute("rollback").unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.loader_file"), "0");
    assert_eq!(failure(&mut client, "begin read only; select bulk.load_from_bucket('{\"bucket\": \"s3://bucket\"}')").code, "25006");
}

test!("a bucket's server that fails makes no wrong row", faults);
fn faults() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    let content = lines(0, 20_000);
    let packed = gzip(&content);
    let round = |client: &mut Client, packs: bool, trouble: Trouble, times: usize, more: Value| {
        client.batch_execute("drop table if exists patient, patient_history; truncate bulk_internal.loader_file").unwrap();
        let _ = fs::remove_file(server.bucket("bucket").join("Patient.ndjson"));
        let _ = fs::remove_file(server.bucket("bucket").join("Patient.ndjson.gz"));
        put(&server, if packs { "Patient.ndjson.gz" } else { "Patient.ndjson" }, if packs { &packed } else { &content });
        let before = proxy.asked();
        proxy.trouble(trouble, times);
        let answer = load(client, &proxy.host(), more);
        done(client, &answer);
        proxy.trouble(trouble, 0);
        let stored = value(client, "select count(*) from patient");
        let said = value(client, "select concat_ws(' ', status, loaded, error->>'source', error->>'code') from bulk.loader_file");
        assert!(matches!((said.starts_with("done"), stored.as_str()), (true, "20000") | (false, "0")), "{trouble:?}: {said} {stored}");
        (said, proxy.asked() - before)
    };
    for packs in [false, true] {
        let mut see = |trouble, times, more: Value| round(&mut client, packs, trouble, times, more);
        // What passes.
        assert_eq!(see(Trouble::Refuse, 3, json!({})), ("done 20000".to_owned(), 4));
        assert_eq!(see(Trouble::Cut(50_000), 2, json!({})), ("done 20000".to_owned(), 3));
        assert_eq!(see(Trouble::Stall(50_000), 1, json!({"read-timeout": 2000})), ("done 20000".to_owned(), 2));
        assert_eq!(see(Trouble::Lie(1000), 1, json!({})), ("done 20000".to_owned(), 2));
        // A line's end, where nothing but the length tells that there is more.
        let last = content.len() as i64 - lines(0, 19_999).len() as i64;
        assert_eq!(see(Trouble::Lie(-last), 1, json!({})), ("done 20000".to_owned(), 2));
        // What does not.
        if packs {
            assert_eq!(see(Trouble::Refuse, 100, json!({})).0, "error aidbox 08006");
        }
        assert_eq!(see(Trouble::Cut(50_000), 100, json!({})), ("error aidbox 22P04".to_owned(), 3));
        assert_eq!(see(Trouble::Stall(50_000), 100, json!({"read-timeout": 200})).0, "error aidbox 08006");
        let code = if packs { "22P04" } else { "55000" };
        assert_eq!(see(Trouble::Lie(-last), 100, json!({})), (format!("error aidbox {code}"), 3));
    }
    // An object that changes while it is read: what is loaded is one content or the other.
    client.batch_execute("drop table if exists patient, patient_history; truncate bulk_internal.loader_file").unwrap();
    let path = server.bucket("bucket").join("Patient.ndjson");
    let _ = fs::remove_file(server.bucket("bucket").join("Patient.ndjson.gz"));
    put(&server, "Patient.ndjson", &content);
    let other = lines(20_000, 50_000);
    proxy.trouble(Trouble::Slow(Duration::from_millis(30)), 1);
    let answer = load(&mut client, &proxy.host(), json!({}));
    let sent = proxy.sent();
    wait_until("some of it was sent", || proxy.sent() > sent + 100_000);
    replace(&path, &other);
    done(&mut client, &answer);
    assert_eq!(value(&mut client, "select concat_ws(' ', status, loaded) from bulk.loader_file"), "done 30000");
    assert_eq!(value(&mut client, "select min(substr(id, 3)::int) || ' ' || count(*) from patient"), "20000 30000");
    assert_eq!(rows(&mut client, "patient").split_once(' ').unwrap().0, "30000");
    // One that is gone before its turn.
    put(&server, "Patient-2.ndjson", &lines(0, 10));
    client.batch_execute("begin").unwrap();
    let answer = load(&mut client, &proxy.host(), json!({}));
    fs::remove_file(server.bucket("bucket").join("Patient-2.ndjson")).unwrap();
    client.batch_execute("commit").unwrap();
    done(&mut client, &answer);
    let said = "select concat_ws(' ', status, error->>'source', error->>'code') from bulk.loader_file where file = 'Patient-2.ndjson'";
    assert_eq!(value(&mut client, said), "error aws NoSuchKey");
    // A cancel ends what hangs, and a new call goes on.
    client.batch_execute("delete from bulk.loader_file; truncate patient").unwrap();
    proxy.trouble(Trouble::Stall(10_000), 1);
    let asked = proxy.asked();
    let answer = load(&mut client, &proxy.host(), json!({"prefixes": ["Patient.ndjson"]}));
    let state = "select status from bulk.loader_file";
    wait_until("it is at work", || value(&mut client, state) == "in-progress" && proxy.asked() > asked);
    assert_eq!(status(&mut client, "s3://bucket")["state"], "in-progress");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{}')", answer["id"].as_str().unwrap())), "true");
    wait_until("its worker is gone", || status(&mut client, "s3://bucket")["state"] == "interrupted");
    assert_eq!(value(&mut client, "select count(*) from patient"), "0");
    let again = load(&mut client, &proxy.host(), json!({}));
    assert_eq!(again["new-files-count"], 0);
    done(&mut client, &again);
    assert_eq!(value(&mut client, "select count(*) from patient"), "30000");
    // A row that is deleted in the middle is waited for; before its turn it means that the file is not wanted.
    client.batch_execute("delete from bulk.loader_file; truncate patient").unwrap();
    client.batch_execute("begin").unwrap();
    let answer = load(&mut client, &proxy.host(), json!({}));
    client.batch_execute("delete from bulk.loader_file; commit").unwrap();
    done(&mut client, &answer);
    assert_eq!(value(&mut client, "select count(*) from patient"), "0");
}

test!("the storage that is configured is tried, and what is missing is said", storage);
fn storage() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let check = |client: &mut Client| serde_json::from_str::<Value>(&value(client, "bulk.storage_healthcheck()")).unwrap();
    let set =
        |client: &mut Client, name: &str, setting: &str| client.batch_execute(&format!("set bulk.storage_{name} = '{setting}'")).unwrap();
    assert_eq!(check(&mut client)["error"]["message"], "storage-type not specified");
    set(&mut client, "backend", "tape");
    assert_eq!(check(&mut client)["error"]["message"], "unsupported storage-type");
    set(&mut client, "backend", "aws");
    assert_eq!(check(&mut client)["error"]["message"], "bulk-storage account not specified");
    set(&mut client, "aws_account", "store");
    assert_eq!(check(&mut client)["error"]["message"], "account not found");
    let account = |secret: &str| json!({"resourceType": "AwsAccount", "id": "store", "region": "us-east-1", "access-key-id": "KEY", "secret-access-key": secret, "host": server.host()});
    client.execute("select bulk.set_account($1::text::jsonb)", &[&account("SECRET").to_string()]).unwrap();
    assert_eq!(check(&mut client)["error"]["message"], "bucket is not specified");
    set(&mut client, "aws_bucket", "bucket");
    let shown = json!({"type": "aws", "bucket": "bucket", "account": {"id": "store", "resourceType": "AwsAccount"}});
    assert_eq!(check(&mut client), json!({"message": "ok", "storage": shown}));
    assert_eq!(value(&mut client, "bulk.rpc('{\"method\": \"aidbox.bulk/storage-healthcheck\"}')->'result'->>'message'"), "ok");
    assert_eq!(fs::read_dir(server.bucket("bucket")).unwrap().count(), 0);
    set(&mut client, "aws_bucket", "nowhere");
    client.execute("select bulk.set_account($1::text::jsonb)", &[&account("WRONG").to_string()]).unwrap();
    assert_eq!(check(&mut client)["error"]["code"], "InvalidAccount");
    // A directory.
    set(&mut client, "backend", "file");
    assert_eq!(check(&mut client)["error"]["message"], "bucket is not specified");
    let directory = server_directory();
    set(&mut client, "file_directory", &directory.path().display().to_string());
    assert_eq!(check(&mut client), json!({"message": "ok", "storage": {"type": "file", "bucket": directory.path()}}));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    set(&mut client, "file_directory", "/proc/1/none");
    assert_eq!(check(&mut client)["error"]["source"], "aidbox");
    let name = &database.name;
    client.batch_execute(&format!("create role plain_{name}; grant pg_read_server_files to plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(check(&mut client)["error"]["code"], "42501");
}

/// Puts another content in the place of a file, at once.
fn replace(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    if let Ok(facts) = fs::metadata(path) {
        let _ = chown(&beside, Some(std::os::unix::fs::MetadataExt::uid(&facts)), None);
    }
    fs::rename(&beside, path).unwrap();
}
