//! Loads into a table of their own, which is merged later.

use crate::load::versions::lines;
use crate::support::cluster::shared;
use crate::support::source::File;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};

parts!(SERVER, WRITING);

test!("a stage of a load without a type is of the first line's", stages_by_line);
fn stages_by_line() {
    let database = shared().database();
    let mut client = database.connect();
    let patient = |id: u32| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    let goal = "{\"resourceType\":\"Goal\",\"id\":\"1\"}\n";
    let load = |file: &File, options: &str| format!("bulk.load('{}', options => '{{\"temp_table\": \"_stage\"{options}}}')", file.url());
    let patients = File::new((1..=2000).map(patient).collect::<String>().as_bytes());
    for _ in 0..2 {
        assert_eq!(value(&mut client, &load(&patients, "")), r#"{"Patient": 2000}"#);
    }
    let mixed = File::new(format!("{}{goal}{}", patient(1), patient(2001)).as_bytes());
    let error = failure(&mut client, &format!("select {}", load(&mixed, "")));
    assert_eq!((error.code.as_str(), error.detail.contains("line 2")), ("42809", true), "{error:?}");
    assert_eq!(value(&mut client, &load(&mixed, r#", "max-errors": 1"#)), r#"{"Patient": 2}"#);
    assert_eq!(
        value(&mut client, "select count(*) || ' ' || coalesce(to_regclass('patient'), to_regclass('goal'), 'pg_class')::text from _stage"),
        "2001 pg_class"
    );
    assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), r#"{"total": 2001}"#);
    let nothing = File::new(b"");
    assert_eq!(value(&mut client, &format!("bulk.load('{}', options => '{{\"temp_table\": \"_other\"}}')", nothing.url())), "{}");
    assert_eq!(value(&mut client, "to_regclass('_other')"), "null");
}

test!("a stage is filled, looked at, merged as the load said, and dropped", stages);
fn stages() {
    let database = shared().database();
    let mut client = database.connect();
    let load = |lines: &str, options: &str| {
        let file = File::new(lines.as_bytes());
        (format!("bulk.load('{}', 'patient', options => '{{\"temp_table\": \"_stage\"{options}}}')", file.url()), file)
    };
    let (first, _kept) = load(&lines(3000, 2000, "a"), "");
    assert_eq!(value(&mut client, &first), r#"{"total": 3000}"#);
    assert_eq!(value(&mut client, "to_regclass('patient')"), "null");
    assert_eq!(value(&mut client, "select count(*) from _stage"), "2000");
    assert_eq!(
        value(
            &mut client,
            "select concat_ws(' ', relpersistence, resource_type, on_conflict, keep_history, keep_meta) from pg_class c \
             join bulk_internal.staging_table s on s.relation = c.oid where relname = '_stage'"
        ),
        "u Patient overwrite f f"
    );
    assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), r#"{"total": 2000}"#);
    assert_eq!(
        value(&mut client, "select row(count(*), count(distinct txid), min(status)) from patient where resource_type = 'Patient'"),
        "(2000,2000,created)"
    );
    // The stage is still there, and takes more.
    let (second, _kept) = load(&lines(10, 10, "b"), r#", "update": true"#);
    assert_eq!(value(&mut client, &second), r#"{"total": 10}"#);
    assert_eq!(value(&mut client, "bulk.stage_merge('public._stage')"), r#"{"total": 2000}"#);
    assert_eq!(
        value(
            &mut client,
            "select row(count(*), count(*) filter (where resource->>'version' = 'b')) from patient where status = 'updated'"
        ),
        "(2000,10)"
    );
    assert_eq!(value(&mut client, "select count(*) from patient_history"), "2000");
    client.batch_execute("select bulk.stage_drop('_stage'); delete from patient where id <> '1'").unwrap();
    assert_eq!(value(&mut client, "to_regclass('_stage')"), "null");
    for (conflict, merged) in [("skip", r#"{"total": 9}"#), ("overwrite", r#"{"total": 10}"#), ("newer", r#"{"total": 9}"#)] {
        let dated = lines(10, 10, "c").replace("\"line\"", "\"meta\":{\"lastUpdated\":\"2001-01-01T00:00:00Z\"},\"line\"");
        let (third, _kept) = load(&dated, &format!(r#", "on-conflict": "{conflict}""#));
        client.batch_execute(&format!("begin; select {third}")).unwrap();
        assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), merged, "{conflict}");
        let untouched = if conflict == "overwrite" { "c" } else { "b" };
        assert_eq!(value(&mut client, "select resource->>'version' from patient where id = '1'"), untouched);
        let time = if conflict == "newer" { "2001" } else { "now" };
        assert_eq!(
            value(
                &mut client,
                "select case when ts > now() - interval '1 hour' then 'now' else to_char(ts, 'YYYY') end from patient where id = '2'"
            ),
            time
        );
        client.batch_execute("rollback").unwrap();
    }
    let (fourth, _kept) = load(&lines(3, 3, "d"), r#", "on-conflict": "error""#);
    client.batch_execute(&format!("select {fourth}")).unwrap();
    assert_eq!(failure(&mut client, "select bulk.stage_merge('_stage')").code, "23505");
    assert_eq!(failure(&mut client, &format!("select {fourth}")).code, "23505");
    assert_eq!(failure(&mut client, &format!("select {}", fourth.replace("'patient'", "'Goal'"))).code, "42809");
    assert_eq!(failure(&mut client, &format!("select {}", fourth.replace("_stage", "patient"))).code, "42809");
    assert_eq!(failure(&mut client, &format!("select {}", fourth.replace("'patient'", "null"))).code, "23502");
    for (call, code) in [
        ("bulk.stage_merge('nothing')", "42809"),
        ("bulk.stage_drop('patient')", "42809"),
        ("bulk.stage_drop('a.b.c')", "42602"),
        ("bulk.stage_drop('no_schema.x')", "3F000"),
    ] {
        assert_eq!(failure(&mut client, &format!("select {call}")).code, code, "{call}");
    }
    assert_eq!(value(&mut client, "select count(*) from patient"), "1");
    // What a line does not say stays as it is; versions go on behind what is merged.
    client.batch_execute("update patient set cts = '2001-01-01', ts = '2001-01-01'; select bulk.stage_drop('_stage')").unwrap();
    let kept = "{\"id\":\"1\",\"meta\":{\"versionId\":\"700000\"}}\n{\"id\":\"2\",\"meta\":{\"createdAt\":\"2002-01-01T00:00:00Z\"}}\n";
    let (fifth, _kept) = load(kept, r#", "keep-meta": true, "update": true"#);
    client.batch_execute(&format!("select {fifth}")).unwrap();
    for _ in 0..3 {
        assert_eq!(value(&mut client, "bulk.stage_merge('_stage')"), r#"{"total": 2}"#);
    }
    assert_eq!(
        value(
            &mut client,
            "select string_agg(concat_ws(' ', id, txid > 600000, extract(year from cts), ts > now() - interval '1 hour'), ', ' order by id) from patient"
        ),
        "1 t 2001 t, 2 t 2002 t"
    );
    assert_eq!(value(&mut client, "select nextval('transaction_id_seq') > 700000"), "true");
    // A table that somebody else laid there is no stage.
    let role = format!("squatter_{}", database.name);
    client.batch_execute(&format!("create role {role}; create schema theirs authorization {role}; grant select on _stage to {role}; set role {role}; set search_path = theirs, public;
        create unlogged table bait (like public._stage including all); reset role;
        insert into bulk_internal.staging_table values ('theirs.bait'::regclass, 'Patient', 'overwrite', false, false)")).unwrap();
    for call in [
        "bulk.stage_merge('bait')".to_owned(),
        "bulk.stage_drop('theirs.bait')".to_owned(),
        fifth.replace("_stage", "bait"),
        fifth.replace("_stage", "patient_history"),
    ] {
        assert_eq!(failure(&mut client, &format!("select {call}")).code, "42809", "{call}");
    }
    client.batch_execute("reset search_path; create trigger t before insert on _stage for each row execute function suppress_redundant_updates_trigger()").unwrap();
    assert_eq!(failure(&mut client, "select bulk.stage_merge('_stage')").code, "42809");
}
