-- Roles are created, not owned, by the extension: they belong to the cluster and stay when the extension is dropped.
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'bulk_remote') then
        create role bulk_remote nologin;
        comment on role bulk_remote is 'May let the server reach other hosts: http sources, buckets (extension bulk)';
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname = 'bulk_admin') then
        create role bulk_admin nologin;
        comment on role bulk_admin is 'May act on all jobs, errors and accounts of the extension bulk';
    end if;
end
$$;

comment on schema bulk is 'Moves FHIR resources in and out of the database (extension bulk)';
grant usage on schema bulk to public;

-- Views and functions of bulk call what lies here as their caller, who needs no USAGE for that: names are resolved when they are created.
create schema bulk_internal;
comment on schema bulk_internal is 'The tables of the extension bulk, and what its functions and views call';

create function bulk_internal.may_act(actor name, role text) returns boolean
    language sql stable parallel safe
    return exists (select from pg_catalog.pg_roles r where r.rolname = role and pg_catalog.pg_has_role(actor, r.oid, 'usage'))
        or pg_catalog.pg_has_role(actor, 'bulk_admin', 'usage');
comment on function bulk_internal.may_act(name, text) is
    'Whether a role sees and may act on what belongs to another: its members and those of bulk_admin do. By name, because a dump keeps no oids; a role may be gone';

create function bulk_internal.may_see(role text) returns boolean
    language sql stable parallel safe
    return bulk_internal.may_act(current_user, role);
comment on function bulk_internal.may_see(text) is 'Whether the current user sees what belongs to a role';

create function bulk_internal.random_number() returns bigint
    language c volatile strict parallel safe
    as 'MODULE_PATHNAME', 'random_number_wrapper';
comment on function bulk_internal.random_number() is 'A random number of 63 bits: rows are numbered without a sequence, which others could set back';

create function bulk_internal.database_identity() returns text
    language c stable strict parallel safe
    as 'MODULE_PATHNAME', 'database_identity_wrapper';
comment on function bulk_internal.database_identity() is 'Identifies this database, and not its copies: system identifier, oid, host';

create function bulk_internal.lock_class(what text) returns int
    language c immutable strict parallel safe
    as 'MODULE_PATHNAME', 'lock_class_wrapper';
comment on function bulk_internal.lock_class(text) is
    'pg_locks.objsubid of the advisory locks that workers hold: work (a job or task), worker-slot, job-slot (the first of 1024 classes), snapshot';
