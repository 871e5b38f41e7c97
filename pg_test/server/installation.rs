//! CREATE EXTENSION where somebody was there before.

use crate::support::cluster::shared;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, parts, test};

parts!(SERVER);

test!("a schema bulk that others own or fill is refused, and what superusers plant in it is never called", planted);
fn planted() {
    let cluster = shared();
    let name = "planted";
    let mut admin = cluster.connect("postgres", "postgres");
    admin.batch_execute("create role planter").unwrap();
    admin.batch_execute(&format!("create database {name} template template0")).unwrap();
    let mut client = cluster.connect(name, "postgres");
    for (prepared, said) in [
        ("create schema bulk authorization planter", "is owned by role \"planter\""),
        ("create schema bulk; grant create on schema bulk to planter", "role \"planter\" may create objects"),
        ("create schema bulk; grant create on schema bulk to public", "role \"public\" may create objects"),
        ("create schema bulk; create table bulk.t (x int); alter table bulk.t owner to planter", "holds objects of role \"planter\""),
        (
            "create schema bulk; create function bulk.f() returns int language sql as 'select 1'; alter function bulk.f() owner to planter",
            "holds objects of role \"planter\"",
        ),
        ("create schema bulk; create domain bulk.d as int; alter domain bulk.d owner to planter", "holds objects of role \"planter\""),
    ] {
        client.batch_execute(prepared).unwrap();
        let refused = failure(&mut client, "create extension bulk");
        assert_eq!(refused.code, "42501", "{prepared}: {refused:?}");
        assert!(refused.message.contains(said) && !refused.hint.is_empty(), "{prepared}: {refused:?}");
        client.batch_execute("drop schema bulk cascade").unwrap();
    }
    // A better match than PostgreSQL's own for what the views and functions call: pg_dump makes the schema first, so a superuser's is taken.
    client
        .batch_execute(
            "create schema bulk;
             create function bulk.wrong(numeric, bigint) returns numeric language plpgsql as 'begin raise exception ''called''; end';
             create operator bulk.* (function = bulk.wrong, leftarg = numeric, rightarg = bigint);
             create function bulk.count(oid) returns bigint language plpgsql as 'begin raise exception ''called''; end';
             create function bulk.min(int) returns int language plpgsql as 'begin raise exception ''called''; end';
             create function bulk.round(numeric, int) returns numeric language plpgsql as 'begin raise exception ''called''; end';
             create extension bulk",
        )
        .unwrap();
    // Nothing of the extension depends on what was there: all that it calls is bound.
    let bound = "select count(*) from pg_depend d join pg_depend own on own.classid = d.classid and own.objid = d.objid and own.deptype = 'e' \
        and own.refobjid = (select oid from pg_extension where extname = 'bulk') \
        where (d.refclassid = 'pg_proc'::regclass and d.refobjid in (select oid from pg_proc where proname in ('wrong', 'count', 'min', 'round') \
            and pronamespace = 'bulk'::regnamespace)) or (d.refclassid = 'pg_operator'::regclass and d.refobjid in \
            (select oid from pg_operator where oprnamespace = 'bulk'::regnamespace))";
    assert_eq!(value(&mut client, bound), "0");
    client.batch_execute("insert into bulk_internal.job (id, kind, role, session_role, database_identity, state) values ('x', 'import', 'postgres', 'postgres', \
        bulk_internal.database_identity(), 'in-progress'); insert into bulk_internal.task (job, kind, ordinal, source, state, position, size, started) \
        select number, 'source', 0, 'a', 'in-progress', 1, 9000000000000000000, now() - interval '4 hours' from bulk_internal.job").unwrap();
    assert_eq!(value(&mut client, "select phase || ' ' || percent || ' ' || (eta is null) from bulk.progress"), "interrupted 0.0 true");
}
