//! A role that may read and write all data and make its own code, against everything that the extension made, as the catalogs list it.

use crate::server::unfinished::{catalog, leave_work, sources};
use crate::support::cluster::Cluster;
use crate::support::statement::value;
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};

parts!(SERVER);

/// Arguments of one call at most, of each function.
const MOST_CALLS: usize = 40;

/// What the extension made of one catalog: a column each of a query on it.
fn members(client: &mut Client, catalog: &str, columns: &str) -> Vec<Vec<String>> {
    let query = format!(
        "select array[{columns}] from {catalog} x join pg_depend d on d.classid = '{catalog}'::regclass and d.objid = x.oid and d.deptype = 'e'
         where d.refclassid = 'pg_extension'::regclass and d.refobjid = (select oid from pg_extension where extname = 'bulk') order by 1"
    );
    client.query(&query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The rows of every relation, by its name.
fn rows(client: &mut Client, relations: &[Vec<String>]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for relation in relations.iter().filter(|relation| relation[1] == "r") {
        let rows = client.query(&format!("select x::text from {} x", relation[0]), &[]).unwrap();
        all.insert(relation[0].clone(), rows.iter().map(|row| row.get(0)).collect());
    }
    all
}

/// Whatever changes a relation, its rows or what is made of it.
fn changes(relation: &str, column: &str) -> Vec<String> {
    [
        "insert into R select * from R limit 1",
        "insert into R default values",
        "update R set C = C",
        "update only R set C = null",
        "delete from R",
        "merge into R using (select 1) o on true when matched then delete",
        "truncate R",
        "truncate R cascade",
        "with x as (delete from R returning *) select count(*) from x",
        "create table own.child () inherits (R)",
        "create table own.foreign_key (x bigint references R)",
        "create trigger t before insert on R for each row execute function own.evil()",
        "create rule r as on insert to R do also select own.evil_value()",
        "create policy p on R",
        "create index on R ((own.evil_value()))",
        "create publication p for table R",
        "alter table R add column x int default own.evil_value()",
        "alter table R disable trigger all",
        "alter table R disable trigger guard_statement",
        "alter table R disable row level security",
        "alter table R rename to renamed",
        "alter table R set schema own",
        "alter table R owner to attacker",
        "alter view R set (security_barrier = off)",
        "alter extension bulk drop table R",
        "comment on table R is 'mine'",
        "drop table R",
        "drop view R",
        "create or replace view R as select 1",
        "reindex table R",
        "cluster R",
        "select setval('R', 1)",
        "select nextval('R')",
    ]
    .iter()
    .map(|statement| {
        statement
            .replace("set C = C", &format!("set {column} = {column}"))
            .replace("C = null", &format!("{column} = null"))
            .replace('R', relation)
    })
    .collect()
}

/// Values of a type that reach for what is another's.
fn values(kind: &str, known: &[(&str, String)]) -> Vec<String> {
    let of = |wanted: &str| known.iter().filter(|(kind, _)| *kind == wanted).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let mut values: Vec<String> = match kind {
        "text" | "name" => of("text"),
        "bigint" => [of("bigint"), vec!["0".to_owned()]].concat(),
        "jsonb" => of("jsonb"),
        "boolean" => vec!["true".to_owned()],
        "integer" | "smallint" => vec!["1".to_owned()],
        "interval" => vec!["interval '0'".to_owned()],
        "timestamp with time zone" => vec!["now()".to_owned()],
        "oid" | "regclass" => vec!["'bulk_internal.job'::regclass".to_owned()],
        _ => Vec::new(),
    };
    values.push("null".to_owned());
    values
}

/// Combinations of arguments, as many as are tried.
fn calls(name: &str, kinds: &[String], known: &[(&str, String)]) -> Vec<String> {
    let mut lists: Vec<Vec<String>> = vec![Vec::new()];
    for kind in kinds {
        let choices = values(kind, known);
        lists =
            lists.iter().flat_map(|list| choices.iter().map(|choice| [list.as_slice(), &[format!("{choice}::{kind}")]].concat())).collect();
        // Of many the ends and what lies between them.
        let step = lists.len().div_ceil(MOST_CALLS);
        lists = lists.into_iter().step_by(step).collect();
    }
    lists.iter().map(|list| format!("select count(*) from {name}({}) x", list.join(", "))).collect()
}

test!("who may read and write all data changes nothing of the extension's, and no other's rows become theirs", attacker);
fn attacker() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let directory = sources();
    leave_work(&database, directory.path());
    client
        .batch_execute(&format!(
            "create role attacker login in role pg_read_all_data, pg_write_all_data; grant create on database {} to attacker;
             create schema own authorization attacker; alter default privileges for role attacker grant all on tables to public;
             update bulk_internal.job set role = 'victim', session_role = 'victim'; create role victim",
            database.name
        ))
        .unwrap();
    let mut attacker = database.connect_as("attacker");
    attacker
        .batch_execute(
            "set search_path = own; set statement_timeout = '3s'; set lock_timeout = '1s';
             create function evil_value() returns int immutable language sql as 'select 1';
             create function evil() returns trigger language plpgsql as 'begin return null; end'",
        )
        .unwrap();
    let relations = members(
        &mut client,
        "pg_class",
        "x.oid::regclass::text, x.relkind::text, \
        (select attname::text from pg_attribute a where a.attrelid = x.oid and attnum > 0 order by attnum limit 1)",
    );
    assert!(relations.len() > 20, "{relations:?}");
    assert!(relations.iter().all(|relation| relation[1] != "S"), "a sequence: everybody of pg_write_all_data moves it");
    let (rows_before, catalog_before) = (rows(&mut client, &relations), catalog(&mut client));
    assert!(rows_before.values().map(BTreeSet::len).sum::<usize>() > 25);
    let mut tried = 0_u32;
    let mut done = Vec::new();
    let mut attempt = |attacker: &mut Client, statement: &str| match attacker.batch_execute(statement) {
        Ok(()) => done.push(statement.to_owned()),
        Err(error) => {
            let code = error.as_db_error().unwrap_or_else(|| panic!("{statement}: the session ended: {error:?}")).code().code().to_owned();
            assert!(code != "XX000" && code != "57014", "{statement}: {error:?}");
        }
    };
    for relation in &relations {
        for change in changes(&relation[0], &relation[2]) {
            attempt(&mut attacker, &change);
        }
    }
    for kind in members(&mut client, "pg_type", "x.oid::regtype::text, x.typtype::text")
        .iter()
        .filter(|kind| ["d", "c"].contains(&kind[1].as_str()))
    {
        for change in [
            "drop type T cascade",
            "drop domain T cascade",
            "alter domain T drop constraint c",
            "alter type T owner to attacker",
            "comment on type T is 'mine'",
        ] {
            attempt(&mut attacker, &change.replace('T', &kind[0]));
        }
    }
    for schema in ["bulk", "bulk_internal"] {
        for change in [
            "create table S.t (x int)",
            "create function S.f() returns int language sql as 'select 1'",
            "drop schema S cascade",
            "alter schema S owner to attacker",
        ] {
            attempt(&mut attacker, &change.replace('S', schema));
        }
    }
    for change in [
        "drop extension bulk cascade",
        "alter extension bulk update to '1.0'",
        "alter extension bulk set schema own",
        "drop owned by postgres",
        "reassign owned by victim to attacker",
    ] {
        attempt(&mut attacker, change);
    }
    assert_eq!(done, Vec::<String>::new(), "these went through");
    let text = |query: &str, client: &mut Client| format!("'{}'", value(client, query));
    let known = [
        ("text", "'import'".to_owned()),
        ("text", text("select id from bulk_internal.job where kind = 'bucket'", &mut client)),
        ("text", text("select id from bulk_internal.job where kind = 'export'", &mut client)),
        ("text", "'AwsAccount'".to_owned()),
        ("text", "'mine'".to_owned()),
        ("text", "'Observation'".to_owned()),
        ("text", "'set role victim'".to_owned()),
        ("bigint", value(&mut client, "select number from bulk_internal.job where kind = 'import'")),
        ("bigint", value(&mut client, "select number from bulk_internal.job where kind = 'bucket'")),
        ("jsonb", "'{\"id\": \"import\", \"action\": \"abort\"}'".to_owned()),
        ("jsonb", "'{\"id\": \"import\", \"action\": \"force-resume\"}'".to_owned()),
        ("jsonb", format!("'{{\"bucket\": \"file://{}/bucket\"}}'", directory.path().display())),
        ("jsonb", "'{}'".to_owned()),
    ];
    let functions = members(
        &mut client,
        "pg_proc",
        "x.oid::regproc::text, x.prorettype::regtype::text, x.prokind::text, \
        array_to_string(array(select t::regtype::text from unnest(x.proargtypes) with ordinality u (t, n) order by n), ','), x.oid::text",
    );
    assert!(functions.len() > 40, "{functions:?}");
    for function in functions.iter().filter(|function| function[2] == "f" && !function[1].ends_with("trigger")) {
        let kinds: Vec<String> = function[3].split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
        for call in calls(&function[0], &kinds, &known) {
            tried += 1;
            if let Err(error) = attacker.batch_execute(&call) {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{call}: the session ended: {error:?}"));
                let code = error.code().code();
                // Of an argument that must not be null pgrx says no more.
                let is_plain = code != "XX000" || error.message().ends_with("must not be null");
                // A wait that is asked for may end by its own time.
                assert!(is_plain && (code != "57014" || call.contains("bulk.wait")), "{call}: {error:?}");
            }
        }
        let signature = format!("{}({})", function[0], function[3]);
        for change in [
            "create or replace function F returns int language sql as 'select 1'",
            "alter function F owner to attacker",
            "alter function F reset all",
            "drop function F cascade",
        ] {
            tried += 1;
            let _ = attacker.batch_execute(&change.replace('F', &signature)).map(|()| panic!("{change}: {signature}"));
        }
    }
    println!("an attacker tried {tried} calls, beside statements on {} relations", relations.len());
    assert_eq!(catalog(&mut client), catalog_before);
    for (relation, rows) in rows(&mut client, &relations) {
        let gone: Vec<&String> = rows_before[&relation].difference(&rows).collect();
        assert!(gone.is_empty(), "{relation}: {gone:?}");
    }
    // What others have is not shown, but by what the role reads of all data; and no secret by that either.
    for view in [
        "bulk.job",
        "bulk.job_file",
        "bulk.load_error",
        "bulk.loader_file",
        "bulk.export_run",
        "bulk.export_file",
        "bulk.disabled_index",
        "bulk.progress",
    ] {
        let all = value(&mut client, &format!("select count(*) from {view}"));
        let found: i64 = value(
            &mut attacker,
            &format!("select count(*) from {view} x where x::text ~ 'import|bucket|victim|patients.ndjson|observation_status'"),
        )
        .parse()
        .unwrap();
        let own: i64 = value(&mut attacker, &format!("select count(*) from {view} x where x::text ~ 'attacker'")).parse().unwrap();
        assert!(found <= own, "{view}: {found} of {all} are seen, of which {own} are the attacker's");
    }
    for secret in ["bulk_internal.job_secret", "bulk_internal.storage_secret"] {
        assert_ne!(value(&mut client, &format!("select count(*) + 1 from {secret}")), "0");
        assert_eq!(value(&mut attacker, &format!("select count(*) from {secret}")), "0");
    }
}
