//! Where what is secret does not come to stand: relations that are dumped or that a role may read, answers, the server's log.

use crate::support::cluster::{Cluster, bin, checked};
use crate::support::imports::{HANGS, PLAIN, act, call, wait};
use crate::support::source::{File, Manner, Slow};
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::json;

parts!(SERVER, WRITING);

/// What is secret here begins so.
const SECRET: &str = "TOPSECRET";

/// A work of each kind that knows secrets, which no statement of the client's own says: a statement that the server logs is the client's affair.
fn prepare(client: &mut Client, source: &Slow) {
    let aws = json!({"resourceType": "AwsAccount", "id": "a", "region": "r", "access-key-id": "k", "secret-access-key": SECRET, "session-token": SECRET,
        "host": "127.0.0.1:1", "use-ssl": false});
    let azure = json!({"resourceType": "AzureAccount", "id": "z", "key": format!("{SECRET}=")});
    let import = json!({"id": "secret", "inputs": [{"resourceType": "Patient", "url": source.url().replace("SECRET", SECRET)},
        {"resourceType": "Patient", "url": source.url().replace("http://", &format!("http://user:{SECRET}@"))}], "inputSource": format!("https://h/?sig={SECRET}"),
        "headers": {"x-key": SECRET}, "merge": {"text": SECRET}});
    client
        .batch_execute(
            "create table said (what text, request jsonb);
             select bulk.create_resource_table('Patient'), bulk.create_resource_table('Goal');
             create function nothing() returns trigger language plpgsql as 'begin return new; end';
             create trigger odd before insert on goal for each row execute function nothing()",
        )
        .unwrap();
    for (what, request) in [("account", aws), ("account", azure), ("import", import)] {
        client.execute("insert into said values ($1, $2::text::jsonb)", &[&what, &request.to_string()]).unwrap();
    }
}

test!("what is secret stands in no relation that is dumped or read by others, and in no answer", relations);
fn relations() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    client.batch_execute("set bulk.allowed_hosts = '127.0.0.1'").unwrap();
    let source = Slow::start(b"{\"id\": \"1\"}\nno JSON\n".repeat(1000), Manner { most: 100, ..HANGS });
    prepare(&mut client, &source);
    client.batch_execute("select bulk.set_account(request) from said where what = 'account'").unwrap();
    let answer = value(&mut client, "select bulk.import(request) from said where what = 'import'");
    assert!(answer.contains("200") && !answer.contains(SECRET), "{answer}");
    let shows = |client: &mut Client, when: &str| {
        // Whatever relation there is, for each role that the extension speaks of.
        for role in ["bulk_admin", "bulk_remote", "pg_read_all_data"] {
            client.batch_execute(&format!("set role {role}")).unwrap();
            let relations = client
                .query(
                    "select c.oid::regclass::text from pg_class c where c.relnamespace in ('bulk'::regnamespace, 'bulk_internal'::regnamespace)
                     and c.relkind in ('r', 'v', 'm') and has_table_privilege(c.oid, 'select') and has_schema_privilege(c.relnamespace, 'usage')",
                    &[],
                )
                .unwrap();
            assert!(relations.len() > 5, "{role}");
            for relation in relations {
                let name: String = relation.get(0);
                let found = value(client, &format!("select count(*) from {name} x where x::text ~ '{SECRET}'"));
                assert_eq!(found, "0", "{when}: {name} shows {role} a secret");
            }
            client.batch_execute("reset role").unwrap();
        }
        for status in ["bulk.import_status('secret')", "bulk.import_status_v2('secret')"] {
            assert!(!value(client, status).contains(SECRET), "{when}: {status}");
        }
        let dump = checked(cluster.client("pg_dump", &database.name).args(["--no-sync", "--exclude-table-data=public.*"])).stdout;
        let dump = String::from_utf8_lossy(&dump);
        assert!(dump.contains("access-key-id") && !dump.contains(SECRET), "{when}");
        // Statistics hold values too.
        client.batch_execute("analyze").unwrap();
        assert_eq!(
            value(client, &format!("select count(*) from pg_stats s where schemaname ~ 'bulk' and s::text ~ '{SECRET}'")),
            "0",
            "{when}"
        );
    };
    wait_until("the source is read", || !source.begun.lock().unwrap().is_empty());
    shows(&mut client, "at work");
    assert_eq!(act(&mut client, "secret", "pause").0, 200);
    shows(&mut client, "paused");
    source.behave(PLAIN);
    assert_eq!(act(&mut client, "secret", "resume").0, 200);
    assert_eq!(wait(&mut client, "secret"), "error");
    shows(&mut client, "failed");
    assert_eq!(act(&mut client, "secret", "abort").0, 406);
    assert!(!cluster.log().contains(SECRET));
}

test!("auto_explain logs no row and no secret of the extension's statements", explained);
fn explained() {
    let libraries = checked(std::process::Command::new(bin().join("pg_config")).arg("--pkglibdir")).stdout;
    if !std::path::Path::new(String::from_utf8(libraries).unwrap().trim()).join("auto_explain.so").exists() {
        println!("this PostgreSQL has no auto_explain: what it logs is NOT CHECKED");
        return;
    }
    let all = "shared_preload_libraries = 'auto_explain'\nauto_explain.log_min_duration = 0\nauto_explain.log_nested_statements = on\n\
        auto_explain.log_verbose = on\nauto_explain.log_analyze = on\nlog_parameter_max_length = -1\nlog_parameter_max_length_on_error = -1\n";
    let cluster = Cluster::start_with(&format!("{all}max_worker_processes = 40\n"));
    let database = cluster.database();
    let mut client = database.connect();
    client.batch_execute("set auto_explain.log_min_duration = -1; set bulk.allowed_hosts = '127.0.0.1'").unwrap();
    if value(&mut client, "select current_setting('server_version_num')::int >= 160000") == "true" {
        let mut admin = cluster.connect("postgres", "postgres");
        for statement in ["alter system set auto_explain.log_parameter_max_length = -1", "select pg_reload_conf()"] {
            admin.batch_execute(statement).unwrap();
        }
    }
    let lines = format!(
        "{{\"id\": \"1\", \"text\": \"{SECRET}\"}}\n{{\"id\": 5, \"text\": \"{SECRET}\"}}\n{{\"id\": \"1\", \"text\": \"{SECRET}\"}}\n"
    );
    let source = Slow::start(lines.clone().into_bytes(), PLAIN);
    prepare(&mut client, &source);
    let file = File::new(lines.as_bytes());
    client.batch_execute("set auto_explain.log_min_duration = 0").unwrap();
    // It is at work.
    client.batch_execute("select 'seen' from said").unwrap();
    client.batch_execute("select bulk.set_account(request) from said where what = 'account'").unwrap();
    for (table, options) in [
        ("Patient", r#"{"max-errors": 9}"#),
        ("Patient", r#"{"max-errors": 9, "update": true}"#),
        ("Patient", r#"{"max-errors": 9, "on-conflict": "skip"}"#),
        ("Patient", r#"{"max-errors": 9, "method": "insert"}"#),
        ("Goal", r#"{"max-errors": 9}"#),
        ("Patient", r#"{"max-errors": 9, "temp_table": "stage"}"#),
    ] {
        client.batch_execute(&format!("select bulk.load('{}', '{table}', options => '{options}')", file.url())).unwrap();
    }
    client.batch_execute("select bulk.stage_merge('stage'); select count(*) from (select bulk.dump('Patient')) x").unwrap();
    let validation = value(&mut client, "select bulk.validate('Patient')");
    assert_eq!(value(&mut client, &format!("select bulk.wait('{validation}', '60 s')")), "done");
    client.batch_execute("select bulk.import(jsonb_set(request, '{max-errors}', '9')) from said where what = 'import'").unwrap();
    assert_ne!(wait(&mut client, "secret"), "in-progress");
    assert_eq!(call(&mut client, &json!({"id": "secret", "action": "abort"})).0 / 100, 4);
    let log = cluster.log();
    assert!(log.contains("select 'seen' from said"), "auto_explain is not at work");
    let line = log.lines().find(|line| line.contains(SECRET));
    assert_eq!(line, None, "a row or a secret is logged");
}
