//! Work that a database left unfinished goes on in another that its dump made: of this version of the extension, or an earlier one.

use crate::support::buckets;
use crate::support::cluster::{Cluster, Database, checked, replay, server_directory};
use crate::support::exports;
use crate::support::imports::{act, call, patients, wait};
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use postgres::Client;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

parts!(SERVER);

/// What stands in kept dumps in the place of the directory of the sources.
const SOURCES: &str = "/@the-sources@";
/// Lines of each file that is loaded.
const LINES: u32 = 16_000;
/// Lines of the file that is loaded as one, of a thousand bytes each: more than an import commits at once.
const LONG_LINES: u32 = 20_000;

/// The files that the work reads, the same every time and for every version: kept dumps have checkpoints in them.
pub fn sources() -> TempDir {
    let directory = server_directory();
    let path = directory.path();
    fs::create_dir(path.join("bucket")).unwrap();
    fs::write(path.join("patients.ndjson"), patients(LINES)).unwrap();
    let text = "x".repeat(1000);
    let mut packed = GzEncoder::new(fs::File::create(path.join("encounters.ndjson.gz")).unwrap(), Compression::fast());
    for n in 0..LONG_LINES {
        writeln!(packed, "{{\"id\": \"e-{n}\", \"text\": \"{text}\"}}").unwrap();
    }
    packed.finish().unwrap();
    for file in 1..=2 {
        let line =
            |n: u32| format!("{{\"id\": \"o-{file}-{n}\", \"status\": \"final\", \"valueString\": \"{}\"}}\n", "x".repeat(n as usize % 90));
        fs::write(path.join(format!("bucket/Observation-{file}.ndjson")), (0..LINES / 10).map(line).collect::<String>()).unwrap();
    }
    fs::write(path.join("wrong.ndjson"), "{\"id\": \"b-1\"}\n{\"id\": 5}\nno JSON\n").unwrap();
    directory
}

/// What is the sources' own in a dump, and what stands in its place where dumps are kept.
fn places(directory: &Path) -> Vec<(String, String)> {
    let mut places = vec![(directory.display().to_string(), SOURCES.to_owned())];
    for name in ["patients.ndjson", "encounters.ndjson.gz", "bucket/Observation-1.ndjson", "bucket/Observation-2.ndjson"] {
        let file = fs::File::options().write(true).open(directory.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        let facts = file.metadata().unwrap();
        places.push((format!("{:x}-{:x}-", facts.dev(), facts.ino()), format!("@{name}@-")));
    }
    places
}

/// A session that keeps all others from writing to a table, from the moment on when `of` commits.
fn lock_next(database: &Database, table: &str, of: &mut Client, first: impl FnOnce(&mut Client)) -> Client {
    let mut holder = database.connect();
    of.batch_execute(&format!("begin; lock table {table} in access exclusive mode")).unwrap();
    first(of);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| holder.batch_execute(&format!("begin; lock table {table} in share mode")).unwrap());
        let mut looker = database.connect();
        wait_until("the lock is waited for", || value(&mut looker, "select count(*) from pg_locks where not granted") == "1");
        of.batch_execute("commit").unwrap();
        waiting.join().unwrap();
    });
    holder
}

/// Leaves work of every kind behind.
pub fn leave_work(database: &Database, directory: &Path) {
    let mut client = database.connect();
    let path = directory.display();
    client
        .batch_execute(&format!(
            "select bulk.create_resource_table('Patient'), bulk.create_resource_table('Observation'), bulk.create_resource_table('Basic'),
                bulk.create_resource_table('Encounter');
             create index observation_status on observation ((resource->>'status'));
             set bulk.storage_backend = 'file'; set bulk.storage_file_directory = '{path}'; set bulk.range_size = '1MB';
             select bulk.load('{path}/wrong.ndjson', 'Basic', options => '{{\"max-errors\": 5}}')"
        ))
        .unwrap();
    let account =
        json!({"resourceType": "AwsAccount", "id": "mine", "region": "eu-west-1", "access-key-id": "KEY", "secret-access-key": "SECRET"});
    client.execute("select bulk.set_account($1::text::jsonb)", &[&account.to_string()]).unwrap();
    let exported = exports::export(&mut client, "system", &json!({"_type": "Basic"}), None).id();
    assert_eq!(value(&mut client, &format!("bulk.wait('{exported}', '60 s')")), "completed");
    let validated = value(&mut client, "bulk.validate('Basic')");
    assert_eq!(value(&mut client, &format!("bulk.wait('{validated}', '60 s')")), "done");
    // An import that is paused when all ranges of one input are loaded but the last, and a part of the other input, which is no range:
    // another session has their last ids, uncommitted.
    let mut holder = database.connect();
    holder.batch_execute("begin").unwrap();
    for (table, id) in [("patient", format!("p{}", LINES - 1)), ("encounter", format!("e-{}", LONG_LINES - 1))] {
        holder.batch_execute(&format!("insert into {table} (id, txid, status, resource) values ('{id}', 0, 'created', '{{}}')")).unwrap();
    }
    let (ranges, whole) = (format!("{path}/patients.ndjson"), format!("{path}/encounters.ndjson.gz"));
    let inputs = json!([{"resourceType": "Patient", "url": ranges}, {"resourceType": "Encounter", "url": whole}]);
    assert_eq!(call(&mut client, &json!({"id": "import", "inputs": inputs})).0, 200);
    let left = "select count(*) > 3 and count(*) filter (where t.state <> 'done') = 2 from bulk_internal.task t join bulk_internal.job j on j.number = t.job where j.id = 'import'";
    wait_until("the last range and the other input are left", || value(&mut client, left) == "true");
    let waiting = "select count(*) from pg_locks l join pg_stat_activity using (pid) where not granted and backend_type = 'bulk worker'";
    wait_until("both wait", || value(&mut client, waiting) == "2");
    assert_eq!(act(&mut client, "import", "pause").0, 200);
    // A pause lets what is begun end, which waits for the other session.
    client.batch_execute("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'bulk worker'").unwrap();
    let workers = "select count(*) from pg_stat_activity where backend_type = 'bulk worker'";
    wait_until("its workers are gone", || value(&mut client, workers) == "0");
    drop(holder);
    // A bucket whose worker is killed while an index is off.
    let holder = lock_next(database, "observation", &mut client, |client| {
        let answer = buckets::call(client, &json!({"bucket": directory.join("bucket"), "disable-idx?": true, "thread-num": 1}));
        assert_eq!(answer["new-files-count"], 2, "{answer}");
    });
    let stuck = "select coalesce(max(pid), 0) from pg_locks where not granted and relation = 'observation'::regclass";
    wait_until("its worker waits for the table", || value(&mut client, stuck) != "0");
    client.batch_execute(&format!("select pg_terminate_backend(({stuck}))")).unwrap();
    wait_until("its worker is gone", || value(&mut client, workers) == "0");
    drop(holder);
}

/// Finishes what `leave_work` left, in a database that has it from a dump.
fn go_on(client: &mut Client, directory: &Path) {
    let jobs = "select string_agg(kind || ' ' || state, ', ' order by kind) from bulk.job";
    assert_eq!(value(client, jobs), "bucket interrupted, export completed, import paused, load done, validate done");
    assert_eq!(value(client, "select string_agg(sqlstate, ' ' order by line) from bulk.load_error"), "22023 22P02 23514");
    assert_eq!(
        value(client, "select concat_ws(' ', resource_type, id, account->>'region') from bulk.storage_account"),
        "AwsAccount mine eu-west-1"
    );
    assert_eq!(value(client, "select status from bulk.disabled_index"), "disabled");
    assert_eq!(value(client, "select concat_ws(' ', count(*), min(type), sum(count)) from bulk.export_file"), "1 Basic 1");
    let exported = value(client, "select id from bulk.job where kind = 'export'");
    assert_eq!(exports::status(client, &exported).status, 200);
    for (table, whole) in [("patient", LINES - LINES / 7), ("encounter", LONG_LINES)] {
        assert_eq!(value(client, &format!("select count(*) between 1 and {whole} - 1 from {table}")), "true");
    }
    assert_eq!(act(client, "import", "resume").0, 200);
    assert_eq!(wait(client, "import"), "done");
    assert_eq!(value(client, "select read || ' ' || stored from bulk.job where id = 'import'"), format!("{0} {0}", LINES + LONG_LINES));
    // Every seventh id comes twice.
    assert_eq!(value(client, "select count(*) from patient"), (LINES - LINES / 7).to_string());
    assert_eq!(value(client, "select count(*) from encounter"), LONG_LINES.to_string());
    let answer = buckets::call(client, &json!({"bucket": directory.join("bucket"), "disable-idx?": true, "thread-num": 2}));
    buckets::done(client, &answer);
    assert_eq!(value(client, "select count(*) from observation"), (LINES / 10 * 2).to_string());
    assert_eq!(value(client, "select count(*) from bulk.loader_file where status = 'done'"), "2");
    assert_eq!(value(client, "select status from bulk.disabled_index"), "restored");
    assert_eq!(value(client, "to_regclass('observation_status')"), "observation_status");
    assert_eq!(value(client, "bulk.purge_jobs('0')"), "6");
}

/// All that the extension made, a line each: what `create extension` of a version and `alter extension update` to it must agree on.
pub fn catalog(client: &mut Client) -> String {
    let members = "select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid and e.extname = 'bulk' \
        where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'";
    value(
        client,
        &format!(
            "select string_agg(line, e'\\n' order by line collate \"C\") from (
             select concat_ws(' | ', pg_describe_object(m.classid, m.objid, 0), obj_description(m.objid, m.classid::regclass::text::name),
                 case m.classid when 'pg_proc'::regclass then (select pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') from pg_proc p where p.oid = m.objid)
                 when 'pg_namespace'::regclass then (select n.nspacl::text from pg_namespace n where n.oid = m.objid)
                 when 'pg_type'::regclass then (select concat_ws(' ', t.typacl, t.typnotnull, t.typdefault) from pg_type t where t.oid = m.objid)
                 when 'pg_class'::regclass then (select concat_ws(' ', c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.reloptions, c.relacl,
                     case when c.relkind = 'v' then pg_get_viewdef(c.oid) end) from pg_class c where c.oid = m.objid) end) as line
             from ({members}) m
             union all select concat_ws(' | ', 'column', a.attrelid::regclass, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                 a.attcollation::regcollation, a.attstattarget, a.attacl, pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum))
             from ({members}) m join pg_attribute a on a.attrelid = m.objid and m.classid = 'pg_class'::regclass and a.attnum > 0 and not a.attisdropped
                 left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             union all select concat_ws(' | ', 'constraint', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))
             from ({members}) m join pg_constraint k on k.conrelid = m.objid and m.classid = 'pg_class'::regclass
             union all select concat_ws(' | ', 'constraint', k.contypid::regtype, k.conname, pg_get_constraintdef(k.oid))
             from ({members}) m join pg_constraint k on k.contypid = m.objid and m.classid = 'pg_type'::regclass
             union all select concat_ws(' | ', 'index', pg_get_indexdef(i.indexrelid))
             from ({members}) m join pg_index i on i.indrelid = m.objid and m.classid = 'pg_class'::regclass
             union all select concat_ws(' | ', 'trigger', t.tgenabled, pg_get_triggerdef(t.oid))
             from ({members}) m join pg_trigger t on t.tgrelid = m.objid and m.classid = 'pg_class'::regclass and not t.tgisinternal
             union all select concat_ws(' | ', 'policy', p.polrelid::regclass, p.polname, p.polcmd, pg_get_expr(p.polqual, p.polrelid),
                 pg_get_expr(p.polwithcheck, p.polrelid)) from ({members}) m join pg_policy p on p.polrelid = m.objid and m.classid = 'pg_class'::regclass
             union all select concat_ws(' | ', 'dumped', unnest(extconfig)::regclass, unnest(extcondition)) from pg_extension where extname = 'bulk') x"
        ),
    )
}

/// A dump for other places.
fn dump(cluster: &Cluster, database: &str, places: &[(String, String)]) -> String {
    let script = checked(cluster.client("pg_dump", database).arg("--no-sync")).stdout;
    let script = String::from_utf8(script).unwrap();
    assert!(!script.contains("SECRET"));
    // Not every psql knows what keeps a script's own commands out.
    let plain = script.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    let plain = plain.collect::<Vec<_>>().join("\n");
    places.iter().fold(plain, |script, (here, kept)| script.replace(here, kept))
}

/// Dumps that earlier versions of the library wrote, with their versions. `BULK_KEEP_DUMP=$PWD/pg_test/server/dumps/1.0.sql.gz make test
/// TEST='unfinished work'` keeps that of the present one.
fn kept() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("pg_test/server/dumps");
    let mut found: Vec<PathBuf> = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let read = |path: &PathBuf| {
        let (mut text, name) = (String::new(), path.file_name().unwrap().to_string_lossy().into_owned());
        GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        (name.trim_end_matches(".sql.gz").to_owned(), text)
    };
    found.iter().map(read).collect()
}

test!("unfinished work is dumped, restored and goes on, of this version and of earlier ones", dumped);
fn dumped() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let version = value(&mut client, "select extversion from pg_extension where extname = 'bulk'");
    let directory = sources();
    let places = places(directory.path());
    leave_work(&database, directory.path());
    let own = dump(&cluster, &database.name, &places);
    if let Some(path) = std::env::var_os("BULK_KEEP_DUMP") {
        let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::best());
        encoder.write_all(own.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }
    let fresh = catalog(&mut client);
    let mut admin = cluster.connect("postgres", "postgres");
    for (number, (written_by, script)) in [(version.clone(), own)].into_iter().chain(kept()).enumerate() {
        let script = places.iter().fold(script, |script, (here, kept)| script.replace(kept, here));
        // By the script alone, which makes the extension as it is now; and into the version that it is of, which is then updated.
        for created in [None, Some(&written_by)] {
            let name = format!("copy_{number}_{}", created.is_some());
            admin.batch_execute(&format!("create database {name} template template0")).unwrap();
            let mut copy = cluster.connect(&name, "postgres");
            let mut script = script.clone();
            if let Some(created) = created {
                copy.batch_execute(&format!("create extension bulk version '{created}'")).unwrap();
                script = script.replace("CREATE SCHEMA bulk;", "");
            }
            replay(&mut cluster.psql(&name), script.as_bytes());
            copy.batch_execute("alter extension bulk update").unwrap();
            assert_eq!(value(&mut copy, "select extversion from pg_extension where extname = 'bulk'"), version, "{written_by}");
            let made = catalog(&mut copy);
            for (one, other) in made.lines().zip(fresh.lines()) {
                assert_eq!(one, other, "{written_by}, created: {created:?}");
            }
            assert_eq!(made.lines().count(), fresh.lines().count());
            go_on(&mut copy, directory.path());
        }
    }
}
