//! RPC: methods by name, as the body of `POST /rpc` has them.

use crate::support::cluster::{Cluster, shared};
use crate::support::source::{File, Manner, Slow, gzip};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::test;
use postgres::Client;
use serde_json::{Value, json};
use std::time::Duration;

fn rpc(client: &mut Client, request: &Value) -> Value {
    let row = client.query_one("select bulk.rpc($1::text::jsonb)::text", &[&request.to_string()]).unwrap();
    serde_json::from_str(row.get(0)).unwrap()
}

fn call(client: &mut Client, method: &str, params: Value) -> Value {
    rpc(client, &json!({"method": format!("aidbox.bulk/{method}"), "params": params}))
}

/// The last import once it has ended.
fn ended(client: &mut Client) -> Value {
    let last = "select id from bulk.job where kind = 'import' order by created desc limit 1";
    let id = value(client, last);
    value(client, &format!("bulk.wait('{id}', '60 s')"));
    call(client, "import-status", json!({}))["result"].clone()
}

/// 124 patients, the first and the twentieth of which are none.
fn corrupted() -> Vec<u8> {
    let line = |n: usize| {
        let given = if matches!(n, 1 | 20) { "\"given\":\"text\"" } else { "\"given\":[\"text\"]" };
        format!("{{\"resourceType\":\"Patient\",\"id\":\"p{n}\",\"name\":[{{\"family\":\"F\",{given}}}]}}\n")
    };
    (1..=124).map(line).collect::<String>().into_bytes()
}

test!("aidbox.bulk/import-start, -status, -errors and -cancel answer as the source says", imports);
fn imports() {
    let database = shared().database();
    let mut client = database.connect();
    let none = json!({"error": {"message": "No active imports"}});
    for method in ["import-status", "import-errors", "import-cancel"] {
        assert_eq!(call(&mut client, method, json!({})), none, "{method}");
    }
    let source = Slow::start(gzip(&corrupted()), Manner { most: usize::MAX, hangs: false, pause: Duration::ZERO, ranges: true });
    let params = json!({"on-conflict": "update", "format": "fhir", "meta": {"source": "app1"}, "input": [{"url": source.url()}]});
    let begun = call(&mut client, "import-start", params)["result"].clone();
    let url = source.url().split('?').next().unwrap().to_owned();
    assert_eq!(
        (&begun["status"], &begun["on-conflict"], &begun["meta"]["source"]),
        (&json!("in-progress"), &json!("update"), &json!("app1"))
    );
    assert_eq!(begun["input"], json!([{"url": url, "count": 0, "errors": 0, "time": 0}]));
    let status = ended(&mut client);
    assert_eq!((&status["status"], &status["errors"], &status["count"]), (&json!("failed"), &json!(2), &json!(122)));
    let input = &status["input"][0];
    assert_eq!((&input["status"], &input["errors"], &input["count"]), (&json!("loaded"), &json!(2), &json!(122)));
    assert!(status["time"].as_u64().unwrap() >= input["time"].as_u64().unwrap());
    assert!(!status.to_string().contains("SECRET"));
    let lines = call(&mut client, "import-errors", json!({}))["result"].clone();
    let resource = |n: usize| json!({"resourceType": "Patient", "id": format!("p{n}"), "name": [{"family": "F", "given": "text"}]});
    let line = |n: usize| {
        json!({"input_no": 0, "line_no": n, "type": "Patient", "id": format!("p{n}"), "resource": resource(n),
            "errors": [{"path": ["name", 0, "given"], "message": lines[0]["errors"][0]["message"]}]})
    };
    assert_eq!(lines, json!([line(1), line(20)]));
    assert!(lines[0]["errors"][0]["message"].as_str().unwrap().contains("array"));
    let short = call(&mut client, "import-errors", json!({"omit-resources?": true}))["result"].clone();
    assert_eq!((short[0].get("resource"), &short[1]["line_no"]), (None, &json!(20)));
    assert_eq!(call(&mut client, "import-cancel", json!({})), none);
    // Types of all kinds in one file, and a file that is not there.
    let mixed = File::new(b"{\"resourceType\":\"Patient\",\"id\":\"m\"}\n{\"resourceType\":\"Practitioner\",\"id\":\"g\"}\n{\"id\":\"nothing\"}\n{\"resourceType\":\"Gaol\",\"id\":\"g\",\"n\":1.10}\n{\"id\":\"\\u0000\"}\n");
    let params = json!({"format": "aidbox", "input": [{"url": mixed.url()}, {"url": "file:///nowhere"}, {"url": mixed.url()}]});
    assert!(call(&mut client, "import-start", params)["result"].is_object());
    let status = ended(&mut client);
    assert_eq!((&status["status"], &status["input"][1]["status"]), (&json!("failed"), &json!("failed")));
    assert_eq!(status["input"][1]["message"], "no such file");
    let lines = call(&mut client, "import-errors", json!({}))["result"].clone();
    // As it is written: numbers keep their digits, and what no jsonb holds is text.
    let resources = "select string_agg(e->>'resource', ' ') from jsonb_array_elements(bulk.rpc('{\"method\": \"aidbox.bulk/import-errors\"}')->'result') e where e->>'input_no' = '0'";
    assert_eq!(value(&mut client, resources), r#"{"id": "nothing"} {"n": 1.10, "id": "g", "resourceType": "Gaol"} {"id":"\u0000"}"#);
    let told: Vec<(u64, u64)> =
        lines.as_array().unwrap().iter().map(|line| (line["input_no"].as_u64().unwrap(), line["line_no"].as_u64().unwrap())).collect();
    assert_eq!(
        (told, value(&mut client, "select count(*) from practitioner")),
        (vec![(0, 3), (0, 4), (0, 5), (2, 3), (2, 4), (2, 5)], "1".to_owned())
    );
}

test!("meta, id_prefix and on-conflict of import-start", parameters);
fn parameters() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = "{\"resourceType\":\"Patient\",\"id\":\"1\",\"meta\":{\"tag\":[{\"code\":\"t\"}],\"source\":\"old\"},\"generalPractitioner\":[{\"reference\":\"Practitioner/2\"}]}\n\
                 {\"resourceType\":\"Practitioner\",\"id\":\"2\"}\n";
    let file = File::new(lines.as_bytes());
    for conflict in ["update", "override"] {
        for _ in 0..2 {
            let params = json!({"id_prefix": "app1-", "on-conflict": conflict, "meta": {"source": "app1"}, "input": [{"url": file.url()}]});
            let begun = call(&mut client, "import-start", params);
            assert_eq!(begun["result"]["id_prefix"], "app1-", "{begun}");
            let status = ended(&mut client);
            assert_eq!(status["status"], "finished", "{status} {}", call(&mut client, "import-errors", json!({})));
        }
        // The second update alone found something to keep.
        assert_eq!(value(&mut client, "select count(*) from patient_history where id = 'app1-1'"), "1", "{conflict}");
    }
    assert_eq!(
        value(&mut client, "select id || resource::text from patient"),
        "app1-1{\"meta\": {\"tag\": [{\"code\": \"t\"}], \"source\": \"app1\"}, \"generalPractitioner\": [{\"id\": \"app1-2\", \"resourceType\": \"Practitioner\"}]}"
    );
    assert_eq!(value(&mut client, "select id from practitioner"), "app1-2");
}

test!("one import-start at a time, whoever asks at once", one_at_a_time);
fn one_at_a_time() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let source = Slow::start(corrupted().repeat(100), Manner { most: 10_000, hangs: true, pause: Duration::ZERO, ranges: true });
    let sessions: Vec<_> = (0..6)
        .map(|_| {
            let (mut client, url) = (database.connect(), source.url());
            std::thread::spawn(move || call(&mut client, "import-start", json!({"input": [{"url": url}]})))
        })
        .collect();
    let answers: Vec<Value> = sessions.into_iter().map(|session| session.join().unwrap()).collect();
    let (begun, busy): (Vec<&Value>, Vec<&Value>) = answers.iter().partition(|answer| answer.get("result").is_some());
    assert_eq!((begun.len(), busy.len()), (1, 5), "{answers:?}");
    let message = "There is running import - wait until it finish or cancel it with aidbox.bulk/import-cancel";
    assert!(busy.iter().all(|answer| answer["error"]["message"] == message && answer["error"]["import"]["id"] == begun[0]["result"]["id"]));
    let working = "select count(*) from bulk.job_file where pid is not null";
    wait_until("it is at work", || value(&mut client, working) == "1");
    // Whoever only looks keeps nobody from it, and an old snapshot hides nothing.
    let mut looking = database.connect();
    looking.batch_execute("begin isolation level repeatable read; select count(*) from pg_class").unwrap();
    assert!(call(&mut looking, "import-status", json!({}))["result"].is_object());
    let mut impatient = database.connect();
    impatient.batch_execute("set lock_timeout = '2s'").unwrap();
    assert_eq!(call(&mut impatient, "import-start", json!({"input": [{"url": source.url()}]}))["error"]["message"], message);
    // Another role sees none of it, and may start its own.
    let name = &database.name;
    client.batch_execute(&format!("create role other_{name} bypassrls; set role other_{name}")).unwrap();
    assert_eq!(call(&mut client, "import-cancel", json!({}))["error"]["message"], "No active imports");
    client.batch_execute("reset role").unwrap();
    let cancelled = call(&mut client, "import-cancel", json!({}))["result"].clone();
    assert_eq!((&cancelled["message"], &cancelled["import"]["status"]), (&json!("Import Canceled"), &json!("canceled")));
    assert_eq!(call(&mut client, "import-status", json!({}))["result"]["status"], "canceled");
    assert_eq!(call(&mut client, "import-cancel", json!({}))["error"]["message"], "No active imports");
    wait_until("its worker is gone", || {
        value(&mut client, "select count(*) from pg_stat_activity where backend_type = 'bulk worker'") == "0"
    });
    assert!(call(&mut client, "import-start", json!({"input": [{"url": source.url()}]}))["result"].is_object());
    assert_eq!(call(&mut looking, "import-start", json!({"input": [{"url": source.url()}]}))["error"]["message"], message);
    call(&mut client, "import-cancel", json!({}));
}

test!("calls that are wrong are answered, each for itself", calls);
fn calls() {
    let database = shared().database();
    let mut client = database.connect();
    let status = json!({"method": "aidbox.bulk/import-status"});
    let answers = rpc(&mut client, &json!([status, {"method": "nothing"}, {}, 5, {"method": "aidbox.bulk/import-status", "params": []}]));
    let codes: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &json!("42883"), &json!("22023"), &json!("22023"), &json!("22023")]);
    assert_eq!(rpc(&mut client, &json!([])), json!([]));
    for (params, said) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": [{}]}), "input"),
        (json!({"input": [{"url": 5}]}), "input"),
        (json!({"input": [{"url": "x"}], "format": "xml"}), "format"),
        (json!({"input": [{"url": "x"}], "on-conflict": "x"}), "on-conflict"),
        (json!({"input": [{"url": "x"}], "meta": 5}), "meta"),
        (json!({"input": [{"url": "x"}], "id_prefix": "a/b"}), "id_prefix"),
        (json!({"input": [{"url": "x"}], "sauce": 1}), "sauce"),
        (json!({"input": [{"url": "ftp://h/x?sig=SECRET"}]}), "no URL"),
    ] {
        let answer = call(&mut client, "import-start", params.clone());
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(said) && !answer.to_string().contains("SECRET"), "{params}: {message}");
    }
    assert!(rpc(&mut client, &Value::Null)["error"]["message"].as_str().unwrap().contains("method"));
    assert_eq!(value(&mut client, "bulk.rpc(null)->'error'->>'code'"), "22023");
    assert_eq!(failure(&mut client, r#"begin read only; select bulk.rpc('{"method": "aidbox.bulk/import-start"}')"#).code, "25006");
    client.batch_execute("rollback").unwrap();
    let name = &database.name;
    client.batch_execute(&format!("create role poor_{name}; set role poor_{name}")).unwrap();
    let denied = call(&mut client, "import-start", json!({"input": [{"url": "http://127.0.0.1/x"}]}));
    assert_eq!(denied["error"]["code"], "42501", "{denied}");
}
