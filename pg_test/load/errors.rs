//! Every way in which input is wrong: its SQLSTATE, where the error says it is, and that nothing stays behind.

use crate::support::cluster::{Cluster, shared};
use crate::support::memory_peak::Peak;
use crate::support::source::{File, gzip};
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};

parts!(SERVER, WRITING);

test!("every broken line is an error that names source, line and byte", lines);
fn lines() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let good = "{\"id\":\"1\",\"resourceType\":\"Patient\"}";
    let cases: [(&[u8], &str, u64); 20] = [
        (b"{\"id\":\"2\"", "22P02", 10),
        (b"{\"id\":\"2\",}", "22P02", 11),
        (b"{\"id\":\"2\"} {}", "22P02", 12),
        (b"nonsense", "22P02", 1),
        (b"{\"id\":\"2\",\"a\":\"\\u0000\"}", "22P05", 16),
        (b"{\"id\":\"2\",\"a\":\"\xff\"}", "22021", 16),
        (b"{\"id\":\"2\",\"a\":\"\\ud800\"}", "22P02", 16),
        (b"{\"id\":\"2\",\"a\":\"\t\"}", "22P02", 16),
        (b"{\"id\":\"2\",\"a\":01}", "22P02", 16),
        (b"{\"id\":\"2\",\"a\":1e999999}", "22003", 15),
        (b"{\"id\":\"2\",\"a\":NaN}", "22P02", 15),
        (b"[1]", "2203C", 1),
        (b"\"x\"", "2203C", 1),
        (b"{\"resourceType\":\"Patient\"}", "23502", 1),
        (b"{\"id\":7,\"resourceType\":\"Patient\"}", "22023", 1),
        (b"{\"id\":\"\",\"resourceType\":\"Patient\"}", "22023", 1),
        (b"{\"id\":\"2\",\"resourceType\":\"Goal\"}", "22023", 1),
        (b"{\"id\":\"2\",\"resourceType\":\"patient\"}", "22023", 1),
        (b"{\"id\":\"2\",\"resourceType\":5}", "23502", 1),
        (b"{\"id\":\"2\",\"resourceType\":\"Patient; drop table patient\"}", "22023", 1),
    ];
    for (line, code, byte) in cases {
        for compress in [false, true] {
            let content = [good.as_bytes(), b"\n\n", line, b"\n", good.as_bytes(), b"\n"].concat();
            let file = File::new(&if compress { gzip(&content) } else { content });
            let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', fhir => true)", file.url()));
            let line = String::from_utf8_lossy(line);
            assert_eq!(error.code, code, "{line}: {error:?}");
            assert_eq!(error.detail, format!("Source \"{}\", line 3, byte {byte}.", file.url()), "{line}: {error:?}");
            assert_eq!(value(&mut client, "select count(*) from patient"), "0", "{line}");
        }
    }
    // What only a mixed load meets.
    for (line, code) in [
        ("{\"id\":\"2\"}", "23502"),
        ("{\"id\":\"2\",\"resourceType\":\"Nonsense\"}", "42P01"),
        ("{\"id\":\"2\",\"resourceType\":\"patient\"}", "42P01"),
        ("{\"id\":\"2\",\"resourceType\":\"pg_class\"}", "42P01"),
        ("{\"id\":\"2\",\"resourceType\":\"../x\"}", "42P01"),
        ("{\"id\":\"2\",\"resourceType\":\"patient; drop table patient\"}", "42P01"),
    ] {
        let file = File::new(format!("{good}\n{line}\n").as_bytes());
        let error = failure(&mut client, &format!("select bulk.load('{}')", file.url()));
        assert_eq!(
            (error.code.as_str(), error.detail.as_str()),
            (code, format!("Source \"{}\", line 2, byte 1.", file.url()).as_str()),
            "{line}"
        );
        assert_eq!(value(&mut client, "select count(*) from patient"), "0", "{line}");
    }
    let file = File::new(good.as_bytes());
    client.batch_execute("create table slot (id text)").unwrap();
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Slot')", file.url())).code, "42809");
    assert_eq!(
        failure(&mut client, &format!("select bulk.load('{}', 'Goal', options => '{{\"create-tables\": false}}')", file.url())).code,
        "42P01"
    );
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Nonsense')", file.url())).code, "42P01");
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'pg_class')", file.url())).code, "22023");
    // Longer than an index entry may be, and not to be compressed.
    let random: String = (0..20_000u64)
        .map(|n| char::from(b'0' + (n.wrapping_mul(n * 2_654_435_761) >> 20) as u8 % 75))
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    let long = File::new(format!("{{\"id\":\"{random}\"}}").as_bytes());
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Patient')", long.url())).code, "54000");
}

test!("a source that is cut, damaged or none is an error that names it", sources);
fn sources() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let lines: String = (0..1000).map(|n| format!("{{\"id\":\"{n}\",\"text\":\"{}\"}}\n", n * 7919)).collect();
    let whole = gzip(lines.as_bytes());
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x55;
    let mut wrong_sum = whole.clone();
    wrong_sum[whole.len() - 7] ^= 1;
    for (content, what) in [
        (whole[..whole.len() - 4].to_vec(), "trailer"),
        (whole[..whole.len() / 2].to_vec(), "middle"),
        (whole[..5].to_vec(), "header"),
        (damaged, "bit"),
        (wrong_sum, "checksum"),
        ([whole.as_slice(), b"trailing garbage, longer than a header"].concat(), "garbage"),
        (b"\x00\x01\x02".to_vec(), "binary"),
        (b"PK\x03\x04zip".to_vec(), "zip"),
    ] {
        let file = File::new(&content);
        let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
        // A damaged bit may also show as broken JSON before the checksum is reached.
        assert!(
            error.code == "22P04" || (["bit", "zip"].contains(&what) && ["22P02", "22021"].contains(&error.code.as_str())),
            "{what}: {error:?}"
        );
        assert!(error.detail.contains(&file.url()), "{error:?}");
        assert_eq!(value(&mut client, "select count(*) from patient"), "0", "{what}");
    }
    for (url, code) in [
        ("file:///nowhere/x", "58P01"),
        ("file:///tmp", "42809"),
        ("/etc/shadow", "42501"),
        ("file://elsewhere/x", "22023"),
        ("ftp://example.org/x", "22023"),
        ("nonsense", "22023"),
        ("", "22023"),
        ("/dev/zero", "42809"),
    ] {
        let error = failure(&mut client, &format!("select bulk.load('{url}', 'Patient')"));
        assert_eq!(error.code, code, "{url}: {error:?}");
    }
    assert_eq!(failure(&mut client, "select bulk.load(null::text)").code, "22004");
    assert_eq!(failure(&mut client, "select bulk.load(null::jsonb)").code, "22004");
}

test!("unknown options are refused with the known ones", options);
fn options() {
    let database = shared().database();
    let mut client = database.connect();
    let error = failure(&mut client, "select bulk.load('file:///x', options => '{\"creat-tables\": 1}')");
    assert_eq!(error.code, "22023");
    assert!(error.message.contains("creat-tables") && error.hint.contains("create-tables"), "{error:?}");
    for call in [
        "bulk.load('{\"sauce\": \"file:///x\"}'::jsonb)",
        "bulk.load('{}'::jsonb)",
        "bulk.load('[]'::jsonb)",
        "bulk.load('{broken')",
        "bulk.load('{\"source\": 5}')",
        "bulk.load('file:///x', options => '[]')",
        "bulk.load('file:///x', options => '{\"create-tables\": \"perhaps\"}')",
    ] {
        assert_eq!(failure(&mut client, &format!("select {call}")).code, "22023", "{call}");
    }
}

test!("a database that is not UTF8 is refused", encoding);
fn encoding() {
    let cluster = shared();
    cluster
        .connect("postgres", "postgres")
        .batch_execute("create database latin encoding 'LATIN1' locale 'C' locale_provider libc template template0")
        .unwrap();
    let mut client = cluster.connect("latin", "postgres");
    let refused = failure(&mut client, "create extension bulk");
    assert!(refused.code == "0A000" && refused.message.contains("LATIN1"), "{refused:?}");
    // Version 1.0 did not look.
    client.batch_execute("create extension bulk version '1.0'; alter extension bulk update").unwrap();
    assert_eq!(failure(&mut client, "select bulk.load('file:///x')").code, "0A000");
    assert_eq!(failure(&mut client, "select bulk.dump('Patient')").code, "0A000");
}

test!("a line of 1 GB and JSON 100,000 deep are plain errors", giants);
fn giants() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let deep = format!("{{\"id\":\"1\",\"x\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let file = File::new(deep.as_bytes());
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.message.as_str()), ("54001", "JSON is nested deeper than 1000 levels"));
    // 1 GB of one line, as a few kilobytes of gzip.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"{\"id\":\"1\",\"x\":\"").unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        std::io::Write::write_all(&mut encoder, &megabyte).unwrap();
    }
    std::io::Write::write_all(&mut encoder, b"\"}\n").unwrap();
    let file = File::new(&encoder.finish().unwrap());
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!(error.code, "54000", "{error:?}");
    assert!(error.detail.contains("line 1"), "{error:?}");
    assert!(error.hint.contains("bulk.max_line_size"), "{error:?}");
    client.batch_execute("set bulk.max_line_size = '1kB'").unwrap();
    let file = File::new(format!("{{\"id\":\"1\"}}\n{{\"id\":\"2\",\"x\":\"{}\"}}\n", "y".repeat(2000)).as_bytes());
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert!(error.code == "54000" && error.detail.contains("line 2"), "{error:?}");
    // The session goes on as if nothing had been.
    client.batch_execute("reset bulk.max_line_size").unwrap();
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", file.url())), r#"{"total": 2}"#);
}

test!("a line that is all elements takes memory in proportion", dense);
fn dense() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Basic')").unwrap();
    for element in ["0,", "\"\",", "[],", "{},"] {
        let count = 40_000_000 / element.len();
        let line = format!("{{\"id\":\"1\",\"x\":[{}0]}}\n", element.repeat(count));
        let file = File::new(&gzip(line.as_bytes()));
        let load = format!("select bulk.load('{}', 'Basic')", file.url());
        let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
        let peak = Peak::watch(pid);
        assert_eq!(failure(&mut client, &load).code, "54000", "{element}");
        let bound = (128 << 20) + 6 * line.len() as u64;
        assert!(peak.bytes() < bound, "{element}: {} of {bound}", peak.bytes());
        drop(peak);
    }
}

test!("where there is too little memory a load fails and the cluster goes on", poor);
fn poor() {
    let cluster = Cluster::start();
    let database = cluster.database();
    database.connect().batch_execute("select bulk.create_resource_table('Basic'), bulk.create_resource_table('Binary')").unwrap();
    let large = "insert into \"binary\" (id, txid, status, resource) select '1', 1, 'created', jsonb_build_object('data', repeat('some text ', 10000000))";
    database.connect().batch_execute(&format!("alter table \"binary\" alter resource set storage external; {large}")).unwrap();
    let lines = ["0,", "\"\",", "{},", "\"some text\","].map(|element| {
        let line = format!("{{\"id\":\"1\",\"x\":[{}0]}}\n", element.repeat(40_000_000 / element.len()));
        File::new(&gzip(line.as_bytes()))
    });
    let (mut refused, mut dumps_refused) = (0, 0);
    for megabytes in [450, 700] {
        cluster.stop("fast");
        cluster.boot_limited(megabytes * 1024);
        for file in &lines {
            let mut client = database.connect();
            let answer = client.batch_execute(&format!("select bulk.load('{}', 'Basic')", file.url()));
            let Err(error) = answer else { continue };
            let code = lives_on(&cluster, &error);
            assert!(["54000", "53200", "XX000"].contains(&code.as_str()), "{megabytes} MB: {error:?}");
            refused += 1;
            client.batch_execute("select 1").unwrap();
        }
        for dump in ["dump('Binary')", "dump('Binary', fhir => true)", "dump_bytes('Binary', gzip => true)"] {
            let mut client = database.connect();
            let Err(error) = client.batch_execute(&format!("select length(bulk.{dump})")) else { continue };
            let code = lives_on(&cluster, &error);
            assert!(["54000", "53200"].contains(&code.as_str()), "{megabytes} MB: {error:?}");
            dumps_refused += 1;
        }
    }
    assert!(refused > 4 && dumps_refused > 0, "{refused} {dumps_refused}");
    assert!(!cluster.log().contains("terminated by signal"), "a server process crashed");
}

/// The SQLSTATE of an error that did not end the session.
fn lives_on(cluster: &Cluster, error: &postgres::Error) -> String {
    let log = || cluster.log().lines().rev().take(30).collect::<Vec<_>>().join("\n");
    error.as_db_error().unwrap_or_else(|| panic!("the session ended: {error:?}\n{}", log())).code().code().to_owned()
}

test!("a key that repeats without end costs no more than its line", repeated_key);
fn repeated_key() {
    let database = shared().database();
    let mut client = database.connect();
    let line = format!(
        "{{\"id\":\"1\",{}\"status\":\"final\"}}\n",
        (0..300_000).map(|n| format!("\"valueString\":\"a{n}\",")).collect::<String>()
    );
    let file = File::new(line.as_bytes());
    client.batch_execute("set statement_timeout = '20s'").unwrap();
    client.batch_execute(&format!("select bulk.load('{}', 'Observation', fhir => true)", file.url())).unwrap();
    assert_eq!(value(&mut client, "select resource from observation"), r#"{"value": {"string": "a299999"}, "status": "final"}"#);
}

test!("numbers that no text could hold written out are refused, and named where they are stored", numbers);
fn numbers() {
    let database = shared().database();
    let mut client = database.connect();
    let line = |id: u32, count: usize| format!("{{\"id\":\"{id}\",\"a\":[{}]}}\n", vec!["1e131071"; count].join(","));
    let file = File::new((line(1, 300) + &line(2, 5000)).as_bytes());
    let load = |options: &str| format!("bulk.load('{}', 'Basic', options => '{options}')", file.url());
    let error = failure(&mut client, &format!("select {}", load("{}")));
    assert!(error.code == "54000" && error.detail.contains("line 2"), "{error:?}");
    assert_eq!(value(&mut client, &load(r#"{"max-errors": 1}"#)), r#"{"total": 1}"#);
    // What is stored can be written.
    assert_eq!(value(&mut client, "select sum(length(line)) > 300 * 131072 from bulk.dump('Basic') line"), "true");
    // Plain SQL stores what cannot.
    let stored = "('{\"a\":[' || string_agg('1e131071', ',') || ']}')::jsonb from generate_series(1, 8300)";
    client.batch_execute(&format!("insert into basic (id, txid, status, resource) select 'vast', 0, 'created', {stored}")).unwrap();
    for dump in ["bulk.dump('Basic')", "bulk.dump_csv('Basic')"] {
        let error = failure(&mut client, &format!("select count(*) from {dump}"));
        let whole = format!("{} {}", error.message, error.detail);
        assert!(error.code.starts_with("54") && whole.contains("basic") && whole.contains("vast"), "{dump}: {error:?}");
    }
}

test!("what the database refuses names the lines, and shows no row", refused);
fn refused() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient'); alter table patient add constraint sober check (not resource ? 'SECRET')",
        )
        .unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n{\"id\":\"2\",\"SECRET\":true}\n");
    let load = format!("select bulk.load('{}', 'Patient')", file.url());
    let error = failure(&mut client, &load);
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("23514", "sober"));
    assert!(!error.detail.contains("SECRET"), "{error:?}");
    assert!(error.context.contains(&format!("bulk.load of \"{}\", lines 1 to 2", file.url())), "{error:?}");
    let wrong = File::new(format!("{{\"id\":\"1\",\"resourceType\":\"{}\"}}\n", "S".repeat(1_000_000)).as_bytes());
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", wrong.url()));
    assert!(error.code == "22023" && error.message.len() < 300, "{}", error.message.len());
    assert_eq!(failure(&mut client, "begin read only; select bulk.load('file:///nowhere', 'Patient')").code, "25006");
}

test!("a trigger's notices leave no memory behind", notices);
fn notices() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
             create function f() returns trigger language plpgsql as $$ begin raise notice 'row %', new.id; return new; end $$;
             create trigger t before insert on patient for each row execute function f(); set client_min_messages = warning",
        )
        .unwrap();
    let lines: String = (0..50_000).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect();
    let file = File::new(lines.as_bytes());
    client
        .batch_execute(&format!(
            "begin; set local client_min_messages = notice; set local log_min_messages = panic; select bulk.load('{}', 'Patient')",
            file.url()
        ))
        .unwrap();
    let used: i64 =
        value(&mut client, "select sum(used_bytes) from pg_backend_memory_contexts where name = 'TopTransactionContext'").parse().unwrap();
    assert!(used < 200_000, "{used} bytes");
    client.batch_execute("commit").unwrap();
}
