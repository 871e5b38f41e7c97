//! Lines that are not stored: what is written down of them, what becomes of the others, and who sees it.

use crate::support::cluster::{cache, checked, replay, shared};
use crate::support::source::File;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;

parts!(SERVER, WRITING);

fn load(file: &File, resource_type: Option<&str>, options: &str) -> String {
    let resource_type = resource_type.map_or("null".to_owned(), |name| format!("'{name}'"));
    format!("bulk.load('{}', {resource_type}, options => '{options}')", file.url())
}

/// read, stored, skipped and rejected of this session's last load.
fn counts(client: &mut Client) -> String {
    value(client, "select concat_ws(' ', state, read, stored, skipped, rejected) from bulk.job where id = bulk.last_load_id()")
}

test!("every rejected line is written down with its place, its reason and itself, and the others are stored", places);
fn places() {
    let database = shared().database();
    let mut client = database.connect();
    assert_eq!(value(&mut client, "bulk.last_load_id()"), "null");
    let long = format!("{{\"id\":\"long\",\"x\":\"{}\"}}", "y".repeat(3000));
    let lines: Vec<(&[u8], &str)> = vec![
        (b"{\"id\":\"1\",\"resourceType\":\"Patient\"}", ""),
        (b"{\"id\":\"2\",\"resourceType\":\"Patient\"", "Patient||22P02|"),
        (b"", "blank"),
        (b"{\"id\":\"3\",\"resourceType\":\"Goal\"}", "Goal|3|22023|resourceType"),
        (b"{\"resourceType\":\"Patient\"}", "Patient||23502|id"),
        (b"{\"id\":7,\"resourceType\":\"Patient\"}", "Patient||22023|id"),
        (b"[1]", "Patient||2203C|"),
        (b"{\"id\":\"4\",\"x\":\"\\u0000\"}", "Patient||22P05|"),
        (b"{\"id\":\"5\",\"x\":\"\xff\"}", "Patient||22021|"),
        (long.as_bytes(), "Patient||54000|"),
        (b"{\"id\":\"6\"}\r", ""),
        (b"{\"id\":\"7\",\"x\":1e999999}", "Patient||22003|"),
        (b"{\"id\":\"1\",\"again\":true}", "Patient|1|23505|id"),
        (b"{\"id\":\"8\"}", ""),
    ];
    let text = lines.iter().map(|(line, _)| *line).collect::<Vec<_>>().join(&b"\n"[..]);
    let file = File::new(&text);
    client.batch_execute("set bulk.max_line_size = '2kB'").unwrap();
    for fast in ["on", "off"] {
        client.batch_execute(&format!("set bulk.fast_path = {fast}; drop table if exists patient, patient_history")).unwrap();
        let options = r#"{"max-errors": 100, "on-conflict": "error"}"#;
        assert_eq!(value(&mut client, &load(&file, Some("Patient"), options)), r#"{"total": 3}"#);
        assert_eq!(counts(&mut client), "done 13 3 0 10");
        assert_eq!(value(&mut client, "select string_agg(id, ' ' order by id) from patient"), "1 6 8");
        let query = "select line, byte_offset, concat_ws('|', coalesce(resource_type, ''), coalesce(id, ''), sqlstate, coalesce(path, '')), raw, source, message
            from bulk.load_error where load_id = bulk.last_load_id() order by line";
        let mut found = client.query(query, &[]).unwrap().into_iter();
        let mut offset = 0;
        for (number, (line, expected)) in (1i64..).zip(&lines) {
            if !matches!(*expected, "" | "blank") {
                let row = found.next().unwrap();
                assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, &str>(2)), (number, offset, *expected));
                assert_eq!(row.get::<_, &str>(3), String::from_utf8_lossy(line));
                assert_eq!(row.get::<_, &str>(4), file.url());
                assert!(!row.get::<_, &str>(5).is_empty());
            }
            offset += line.len() as i64 + 1;
        }
        assert!(found.next().is_none());
    }
    // A mixed load, and what an overlong line hides is found behind it.
    let lines = [
        "{\"id\":\"1\",\"resourceType\":\"Nonsense\"}",
        &long,
        "{\"id\":\"1\"}",
        "{\"id\":\"2\",\"resourceType\":\"Goal\"}",
        "{\"id\":\"3\",\"resourceType\":\"Patient\"}",
    ];
    let file = File::new(lines.join("\n").as_bytes());
    assert_eq!(value(&mut client, &load(&file, None, r#"{"max-errors": 3}"#)), r#"{"Goal": 1, "Patient": 1}"#);
    assert_eq!(counts(&mut client), "done 5 2 0 3");
    let found = "select string_agg(line || ' ' || sqlstate, ', ' order by line) from bulk.load_error where load_id = bulk.last_load_id()";
    assert_eq!(value(&mut client, found), "1 42P01, 2 54000, 3 23502");
    let file = File::new(format!("{{\"id\":\"1\"}}\n{}{{\"id\":\"3\"}}\n{{\"id\":\"2\"}}", " ".repeat(100_000)).as_bytes());
    assert_eq!(failure(&mut client, &format!("select {}", load(&file, Some("Patient"), "{}"))).code, "54000");
    assert_eq!(value(&mut client, &load(&file, Some("Patient"), r#"{"max-errors": 1}"#)), r#"{"total": 2}"#);
    // Types whose table is none, or another type's.
    client.batch_execute("create table orders (x int); select bulk.create_resource_table('Visit')").unwrap();
    let file = File::new(
        b"{\"id\":\"1\",\"resourceType\":\"Orders\"}\n{\"id\":\"2\",\"resourceType\":\"Visit\"}\n{\"id\":\"3\",\"resourceType\":\"VISIT\"}",
    );
    assert_eq!(value(&mut client, &load(&file, None, r#"{"max-errors": 3}"#)), r#"{"Visit": 1}"#);
    assert_eq!(value(&mut client, found), "1 42809, 3 22023");
    // Long lines show their beginning.
    client.batch_execute("reset bulk.max_line_size").unwrap();
    let file = File::new(format!("{{\"x\":\"{}\"}}", "é".repeat(20_000)).as_bytes());
    client.batch_execute(&format!("select {}", load(&file, Some("Patient"), r#"{"max-errors": 1}"#))).unwrap();
    assert_eq!(
        value(
            &mut client,
            "select octet_length(raw) between 16380 and 16384 and raw like '{\"x\":\"éé%éé' from bulk.load_error where load_id = bulk.last_load_id()"
        ),
        "true"
    );
}

test!("a load that fails tells of the first ten lines, and leaves nothing behind", failing);
fn failing() {
    let database = shared().database();
    let mut client = database.connect();
    let good = "{\"id\":\"1\"}\n";
    let file = File::new(format!("{}{}", good.repeat(20), "{\"bad\":1}\n{]\n".repeat(15)).as_bytes());
    let error = failure(&mut client, &format!("select {}", load(&file, Some("Patient"), "{}")));
    assert_eq!((error.code.as_str(), error.message.as_str()), ("23502", "resource has no id"));
    let lines: Vec<&str> = error.detail.lines().collect();
    assert_eq!(lines.len(), 10);
    assert!(lines[0].ends_with("line 21, byte 1: resource has no id"), "{lines:?}");
    assert!(lines[9].contains("line 30, byte 2: invalid JSON"), "{lines:?}");
    let error = failure(&mut client, &format!("select {}", load(&file, Some("Patient"), r#"{"max-errors": 5}"#)));
    assert_eq!(error.code, "22P02");
    assert!(error.message.starts_with("more than 5 lines are rejected: invalid JSON"), "{error:?}");
    assert_eq!(error.detail.lines().count(), 10);
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "0");
    assert_eq!(value(&mut client, "select count(*) from bulk.load_error"), "0");
    assert_eq!(value(&mut client, "to_regclass('patient')"), "null");
    assert_eq!(value(&mut client, &load(&file, Some("Patient"), r#"{"max-errors": 30}"#)), r#"{"total": 20}"#);
    assert_eq!(counts(&mut client), "done 50 20 0 30");
    // A job's lines go with it.
    client.batch_execute("delete from bulk.job").unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.load_error"), "0");
}

test!("what constraints and triggers refuse is found among thousands of lines, and nothing else is lost", constraints);
fn constraints() {
    let database = shared().database();
    let mut client = database.connect();
    // 40,000 lines of which some are refused by each of: a check, a unique index, a trigger with a state of its own, an index's limit.
    let line = |n: u32| {
        // Too long for an index, and not to be compressed.
        let long = if n == 31_000 {
            let mut random = Random(1);
            (0..8000).map(|_| char::from(b'0' + random.below(75) as u8)).filter(|c| c.is_ascii_alphanumeric()).collect()
        } else {
            n.to_string()
        };
        let (age, number, mood) =
            (if n % 5000 == 17 { -1 } else { 1 }, if n == 9999 { 3 } else { n }, if n % 9000 == 8 { "bad" } else { "good" });
        format!(
            "{{\"id\":\"{long}\",\"age\":{age},\"number\":{number},\"mood\":\"{mood}\",\"fill\":\"{}\"}}\n",
            "f".repeat(n as usize % 300)
        )
    };
    let text: String = (0..40_000).map(line).collect::<String>()
        // The last good line of an id wins, whatever comes behind it.
        + "{\"id\":\"5\",\"age\":2,\"number\":50001}\n{\"id\":\"5\",\"age\":3,\"number\":50002}\n{\"id\":\"5\",\"age\":-3,\"number\":50003}\n";
    let file = File::new(text.as_bytes());
    let refused: Vec<u32> = (0..40_000).filter(|n| n % 5000 == 17 || *n == 9999 || n % 9000 == 8).collect();
    for (trigger, fast) in [(false, "on"), (false, "off"), (true, "on")] {
        client
            .batch_execute(&format!(
                "set bulk.fast_path = {fast}; drop table if exists patient, patient_history; select bulk.create_resource_table('Patient');
            alter table patient add constraint old_enough check ((resource->>'age')::int > 0);
            create unique index one_number on patient ((resource->>'number'))"
            ))
            .unwrap();
        if trigger {
            client
                .batch_execute(
                    "create or replace function moody() returns trigger language plpgsql as $$begin
                if new.resource->>'mood' = 'bad' then raise exception 'in a bad mood' using errcode = 'P0042'; end if; return new; end$$;
                create trigger moody before insert on patient for each row execute function moody()",
                )
                .unwrap();
        }
        let refused: Vec<u32> = refused.iter().copied().filter(|n| trigger || n % 9000 != 8 || n % 5000 == 17 || *n == 9999).collect();
        let count = refused.len() as u64 + 2;
        assert_eq!(
            value(&mut client, &load(&file, Some("Patient"), r#"{"max-errors": 100}"#)),
            format!("{{\"total\": {}}}", 40_003 - count)
        );
        assert_eq!(counts(&mut client), format!("done 40003 {} 0 {count}", 40_003 - count));
        let mut lines: Vec<u32> = refused.iter().map(|n| n + 1).chain([31_001, 40_003]).collect();
        lines.sort_unstable();
        let expected = lines.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let errors = "from bulk.load_error where load_id = bulk.last_load_id()";
        assert_eq!(value(&mut client, &format!("select string_agg(line::text, ' ' order by line) {errors}")), expected);
        let states = if trigger { "23505 23514 54000 P0042" } else { "23505 23514 54000" };
        assert_eq!(value(&mut client, &format!("select string_agg(distinct sqlstate, ' ' order by sqlstate) {errors}")), states);
        assert_eq!(
            value(&mut client, &format!("select message {errors} and line = 10000")),
            "duplicate key value violates unique constraint \"one_number\""
        );
        assert_eq!(
            value(
                &mut client,
                &format!("select bool_and(raw::jsonb->>'number' is not null and left(raw::jsonb->>'id', 100) = id) {errors}")
            ),
            "true"
        );
        assert_eq!(
            value(&mut client, "select raw from bulk.load_error where load_id = bulk.last_load_id() and line = 18"),
            line(17).trim_end()
        );
        assert_eq!(value(&mut client, "select count(*) from patient"), (40_000 - (count - 1)).to_string());
        assert_eq!(value(&mut client, "select row(resource->>'age', status) from patient where id = '5'"), "(3,updated)");
    }
}

test!("what is nobody's line fails the load, whatever it may reject", no_line);
fn no_line() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new((0..3000).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<String>().as_bytes());
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
        create function odd() returns trigger language plpgsql as $$begin
            if new.id = '1500' then raise exception 'no' using errcode = '42501', constraint = 'why'; end if;
            if new.id = '2000' then perform pg_sleep(60); end if; return new; end$$;
        create trigger odd before insert on patient for each row execute function odd()",
        )
        .unwrap();
    let load = format!("select {}", load(&file, Some("Patient"), r#"{"max-errors": 1000}"#));
    assert_eq!(failure(&mut client, &load).code, "42501");
    client
        .batch_execute(
            "create or replace function odd() returns trigger language plpgsql as $$begin
            if new.id = '2000' then perform pg_sleep(60); end if; return new; end$$; set statement_timeout = '500ms'",
        )
        .unwrap();
    assert_eq!(failure(&mut client, &load).code, "57014");
    client.batch_execute("reset statement_timeout").unwrap();
    assert_eq!(value(&mut client, "select row((select count(*) from patient), (select count(*) from bulk.job))"), "(0,0)");
    let cut = crate::support::source::gzip((0..3000).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<String>().as_bytes());
    let cut = File::new(&cut[..cut.len() - 9]);
    client.batch_execute("drop trigger odd on patient").unwrap();
    assert_eq!(failure(&mut client, &load.replace(&file.url(), &cut.url())).code, "22P04");
    assert_eq!(value(&mut client, "select count(*) from patient"), "0");
}

test!("lines that the database refuses leave no memory behind, nor do thousands of lines that are nothing", memory);
fn memory() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient'); alter table patient add check (resource ? 'x')").unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    for text in [(0..8000).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<String>(), "x\n".repeat(400_000)] {
        let file = File::new(text.as_bytes());
        let peak = crate::support::memory_peak::Peak::watch(pid);
        assert_eq!(value(&mut client, &load(&file, Some("Patient"), r#"{"max-errors": 1000000}"#)), r#"{"total": 0}"#);
        assert!(peak.bytes() < 128 << 20, "{}", peak.bytes());
    }
    assert_eq!(value(&mut client, "select string_agg(rejected::text, ' ' order by rejected) from bulk.job"), "8000 400000");
}

test!("names of types that a source makes up, and lines that wait to be checked, leave no memory behind", names);
fn names() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let types: String = (0..200_000).map(|n| format!("{{\"id\":\"{n}\",\"resourceType\":\"Made{n}\"}}\n")).collect();
    let references: String = (0..30_000)
        .map(|n| format!("{{\"id\":\"{n}\",\"managingOrganization\":{{\"resourceType\":\"Made{n}\",\"id\":\"1\"}}}}\n"))
        .collect();
    for (text, resource_type, options) in [
        (types, None, r#"{"max-errors": 1000000}"#),
        ("{}\n".repeat(300_000), Some("Patient"), r#"{"max-errors": 1000000, "validation": {"enable": true, "checks": "refs"}}"#),
        (references, Some("Patient"), r#"{"max-errors": 1000000, "validation": {"enable": true, "checks": "refs"}}"#),
    ] {
        let file = File::new(text.as_bytes());
        let peak = crate::support::memory_peak::Peak::watch(pid);
        let resource_type = resource_type.map_or("null".to_owned(), |name| format!("'{name}'"));
        let answer = value(&mut client, &format!("bulk.load('{}', {resource_type}, false, '{options}')", file.url()));
        assert!(answer == "{}" || answer == r#"{"total": 0}"#, "{answer}");
        assert!(peak.bytes() < 128 << 20, "{} of {}", peak.bytes(), &text[..80]);
    }
    let kept = "select total_bytes from pg_backend_memory_contexts where name = 'CacheMemoryContext'";
    let kept: u64 = value(&mut client, kept).parse().unwrap();
    assert!(kept < 4 << 20, "{kept}");
}

test!("jobs and rejected lines are seen by their role and by bulk_admin, and written by nobody", rights);
fn rights() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    client.batch_execute(&format!(
        "create role \"Owner {name}\" login; create role other_{name} login; create role admin_{name} login in role bulk_admin; create role member_{name} login in role \"Owner {name}\";
         grant pg_read_server_files to \"Owner {name}\", other_{name}; grant all on schema public to public"
    )).unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n{\"secret\":1}\n");
    let mut owner = database.connect_as(&format!("Owner {name}"));
    owner.batch_execute(&format!("select {}", load(&file, Some("Patient"), r#"{"max-errors": 1}"#))).unwrap();
    let seen = "select (select count(*) from bulk.job) || ' ' || (select count(*) from bulk.load_error)";
    for (role, expected) in [("Owner ", "1 1"), ("member_", "1 1"), ("admin_", "1 1"), ("other_", "0 0")] {
        assert_eq!(value(&mut database.connect_as(&format!("{role}{name}")), seen), expected, "{role}");
    }
    assert_eq!(value(&mut owner, "select role from bulk.job"), format!("Owner {name}"));
    for statement in [
        "insert into bulk_internal.job (id, kind, role, session_role, state) values ('x', 'load', 'postgres', 'postgres', 'done')",
        "update bulk.job set request = null",
        "delete from bulk.job",
        "update bulk_internal.job set role = 'postgres'",
        "insert into bulk_internal.load_error values ('x', 'x', 1, 1, null, null, 'x', 'x', null, null)",
        "delete from bulk_internal.load_error",
        "truncate bulk_internal.load_error",
    ] {
        assert_eq!(failure(&mut owner, statement).code, "42501", "{statement}");
    }
    // What may be secret is not written down.
    let secret = File::new(b"{\"id\":\"1\"}\n");
    let options = r#"{"headers": {"x": "SECRET"}, "merge": {"x": "SECRET"}, "retries": 2}"#;
    owner.batch_execute(&format!("select bulk.load('{}', 'Patient', options => '{options}')", secret.url())).unwrap();
    let request = value(&mut owner, "select request from bulk.job where id = bulk.last_load_id()");
    assert!(request.contains("\"retries\": 2") && !request.contains("SECRET"), "{request}");
    database.connect_as(&format!("other_{name}")).batch_execute("select bulk.purge_jobs('0')").unwrap();
    let mut admin = database.connect_as(&format!("admin_{name}"));
    assert_eq!(failure(&mut admin, "delete from bulk.job").code, "42501");
    assert_eq!(value(&mut admin, "bulk.purge_jobs()"), "0");
    assert_eq!(value(&mut admin, "bulk.purge_jobs('0')"), "2");
    assert_eq!(value(&mut client, seen), "0 0");
    // A role that is gone hides its jobs from all but administrators, and breaks nothing.
    owner.batch_execute(&format!("select {}", load(&secret, Some("Patient"), "{}"))).unwrap();
    drop(owner);
    client
        .batch_execute(&format!(
            "reassign owned by \"Owner {name}\" to postgres; drop owned by \"Owner {name}\"; drop role \"Owner {name}\""
        ))
        .unwrap();
    assert_eq!(value(&mut database.connect_as(&format!("other_{name}")), seen), "0 0");
    assert_eq!(value(&mut client, seen), "1 0");
}

/// A generator of numbers that repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A line with one thing wrong: bytes flipped, a key doubled, a type swapped, an end cut.
fn damage(line: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    let members: Vec<usize> = line.match_indices(",\"").map(|(at, _)| at).collect();
    match random.below(5) {
        0 => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        1 if !members.is_empty() => {
            let at = members[random.below(members.len())];
            let end = members.iter().copied().find(|end| *end > at).unwrap_or(at);
            let doubled = bytes[at..end].to_vec();
            bytes.splice(at..at, doubled);
        }
        2 => {
            let values: Vec<usize> = line.match_indices("\":").map(|(at, _)| at + 2).collect();
            let at = values[random.below(values.len())];
            let swapped =
                [&b"null,\"x\":"[..], b"[],\"x\":", b"1.50,\"x\":", b"{},\"x\":", b"\"\",\"x\":", b"true,\"x\":"][random.below(6)];
            bytes.splice(at..at, swapped.iter().copied());
        }
        3 => bytes.truncate(1 + random.below(bytes.len() - 1)),
        _ => {
            let at = random.below(bytes.len());
            bytes.insert(at, b"\\\"{}[],:0 \x01\x80"[random.below(12)]);
        }
    }
    bytes.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
}

test!("of 2,000 damaged lines each is stored as the server reads it, or rejected for a reason", damaged);
fn damaged() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = cache().join("examples");
    client.batch_execute("create unlogged table source (j jsonb)").unwrap();
    crate::support::real_data::copy_source(&database, &directory.join("all.ndjson.gz"));
    let good: Vec<String> = client
        .query("select j::text from source where length(j::text) < 20000 order by j->>'resourceType', j->>'id' limit 2000", &[])
        .unwrap()
        .iter()
        .map(|row| row.get::<_, String>(0).replace("\": ", "\":").replace(", \"", ",\""))
        .collect();
    assert_eq!(good.len(), 2000);
    let kinds: std::collections::HashSet<String> =
        client.query("select distinct j->>'resourceType' from source", &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let mut random = Random(42);
    let lines: Vec<Vec<u8>> = good.iter().map(|line| damage(line, &mut random)).collect();
    let file = File::new(&lines.join(&b"\n"[..]));
    for validation in ["off", "on"] {
        client.batch_execute("do $$declare t regclass; begin for t in select oid from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'source' loop execute 'drop table ' || t; end loop; end$$").unwrap();
        let options = format!(r#"{{"max-errors": 2000, "on-conflict": "error", "validation": {{"enable": "{validation}"}}}}"#);
        client.batch_execute(&format!("select {}", load(&file, None, &options))).unwrap();
        let blank = lines.iter().filter(|line| line.iter().all(u8::is_ascii_whitespace)).count();
        assert_eq!(value(&mut client, "select stored + rejected from bulk.job where id = bulk.last_load_id()"), (2000 - blank).to_string());
        let rejected: std::collections::HashMap<i64, String> = client
            .query("select line, sqlstate from bulk.load_error where load_id = bulk.last_load_id()", &[])
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        assert!((200..1900).contains(&rejected.len()), "{}", rejected.len());
        let mut seen = std::collections::HashSet::new();
        for (number, line) in (1..).zip(&lines) {
            let text = std::str::from_utf8(line).ok().filter(|text| !text.contains('\0'));
            // As the server reads it: an error, or type, id and what is stored.
            let read = text.and_then(|text| {
                client
                    .query_one(
                        "select j->>'resourceType', j->'id', jsonb_typeof(j), j->>'id' from (select $1::text::jsonb as j) x",
                        &[&text],
                    )
                    .ok()
            });
            let state = rejected.get(&number).map(String::as_str);
            let Some(read) = read else {
                assert!(matches!(state, Some("22P02" | "22P05" | "22021" | "22003" | "54001")), "line {number}: {state:?}");
                continue;
            };
            let (kind, id) = (read.get::<_, Option<&str>>(0), read.get::<_, Option<&str>>(3));
            let is_string = |client: &mut Client, key: &str| {
                let query = "select coalesce(jsonb_typeof($1::text::jsonb->$2) = 'string', false)";
                client.query_one(query, &[&text, &key]).unwrap().get::<_, bool>(0)
            };
            let known = kind.is_some_and(|kind| kinds.contains(kind));
            match state {
                // A rule of the load's own: each is one that the README states.
                Some("2203C") => assert_ne!(read.get::<_, &str>(2), "object"),
                Some("23502") => assert!(id.is_none() || !is_string(&mut client, "resourceType"), "line {number}"),
                Some("22023") => assert!(!is_string(&mut client, "id") || id == Some(""), "line {number}"),
                Some("42P01") => assert!(!known, "line {number}: {kind:?}"),
                Some("23505") => assert!(seen.contains(&(kind.map(str::to_owned), id.map(str::to_owned))), "line {number}"),
                Some("23514") => assert_eq!(validation, "on", "line {number}"),
                Some(other) => panic!("line {number}: {other}, {}", String::from_utf8_lossy(line)),
                None => {
                    let (kind, id) = (kind.unwrap(), id.unwrap());
                    let same: bool = client
                        .query_one(
                            &format!(
                                "select resource = ($1::text::jsonb - 'id' - 'resourceType') #- '{{meta,lastUpdated}}' #- '{{meta,versionId}}' #- '{{meta,createdAt}}'
                                    or resource = ($1::text::jsonb - 'id' - 'resourceType' - 'meta') from \"{}\" where id = $2",
 kind.to_lowercase()
                            ),
                            &[&text, &id],
                        )
                        .unwrap()
                        .get(0);
                    assert!(same, "line {number}: {}", String::from_utf8_lossy(line));
                    seen.insert((Some(kind.to_owned()), Some(id.to_owned())));
                }
            }
        }
    }
}

test!("jobs and rejected lines come through pg_dump", dumped);
fn dumped() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n{\"x\":1}\n");
    client.batch_execute(&format!("select {}", load(&file, Some("Patient"), r#"{"max-errors": 1}"#))).unwrap();
    let script = checked(&mut database.cluster.client("pg_dump", &database.name)).stdout;
    client.batch_execute(&format!("create database copy_{}", database.name)).unwrap();
    replay(&mut database.cluster.psql(&format!("copy_{}", database.name)), &script);
    let mut client = database.cluster.connect(&format!("copy_{}", database.name), "postgres");
    assert_eq!(
        value(&mut client, "select count(*) from bulk.job j join bulk.load_error e on e.load_id = j.id and e.line = 2 and j.rejected = 1"),
        "1"
    );
    client.batch_execute(&format!("set bulk.allowed_hosts = ''; select {}", load(&file, Some("Patient"), r#"{"max-errors": 1}"#))).unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "2");
}
