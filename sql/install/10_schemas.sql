-- Unqualified names below mean PostgreSQL's own, whatever somebody planted in a schema bulk that was there before.
set local search_path = pg_catalog, pg_temp;

do $$
declare
    bulk oid := 'bulk'::regnamespace;
    other text;
begin
    if getdatabaseencoding() <> 'UTF8' then
        raise exception using errcode = '0A000', message = format('encoding "%s" of the database is not supported: FHIR is UTF8', getdatabaseencoding()),
            hint = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0 makes one that is.';
    end if;
    select r.rolname into other from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.oid = bulk and not r.rolsuper;
    if other is not null then
        raise exception using errcode = '42501', message = format('schema "bulk" is owned by role "%s", which is no superuser', other),
            hint = 'ALTER SCHEMA bulk OWNER TO CURRENT_USER, or drop the schema: CREATE EXTENSION makes it.';
    end if;
    select coalesce(r.rolname, 'public') into other from pg_namespace n cross join aclexplode(n.nspacl) a left join pg_roles r on r.oid = a.grantee
        where n.oid = bulk and a.privilege_type = 'CREATE' and not coalesce(r.rolsuper, false);
    if found then
        raise exception using errcode = '42501', message = format('role "%s" may create objects in schema "bulk"', other),
            hint = 'REVOKE CREATE ON SCHEMA bulk from it, or drop the schema: CREATE EXTENSION makes it. What ALTER DEFAULT PRIVILEGES grants on new schemas is granted on that one, too.';
    end if;
    select r.rolname into other
        from (select c.relowner as owner from pg_class c where c.relnamespace = bulk
            union all select p.proowner from pg_proc p where p.pronamespace = bulk
            union all select o.oprowner from pg_operator o where o.oprnamespace = bulk
            union all select t.typowner from pg_type t where t.typnamespace = bulk
            union all select l.collowner from pg_collation l where l.collnamespace = bulk) x
        join pg_roles r on r.oid = x.owner where not r.rolsuper limit 1;
    if found then
        raise exception using errcode = '42501', message = format('schema "bulk" holds objects of role "%s"', other),
            hint = 'Drop them, or the schema: CREATE EXTENSION makes it.';
    end if;
end
$$;

-- Roles are created, not owned, by the extension: they belong to the cluster and stay when the extension is dropped.
do $$
declare
    member record;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'bulk_remote') then
        create role bulk_remote nologin;
        comment on role bulk_remote is 'May let the server reach other hosts: http sources, buckets (extension bulk)';
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname = 'bulk_admin') then
        create role bulk_admin nologin;
        comment on role bulk_admin is 'May act on all jobs, errors and accounts of the extension bulk';
    end if;
    for member in select m.rolname as name, r.rolname as granted from pg_auth_members a join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member
        where r.rolname in ('bulk_remote', 'bulk_admin') and not m.rolsuper
    loop
        raise notice 'role "%" is a member of "%", which was there before: it has that right in this database too', member.name, member.granted;
    end loop;
end
$$;

comment on schema bulk is 'Moves FHIR resources in and out of the database (extension bulk)';
grant usage on schema bulk to public;

-- Views and functions of bulk call what lies here as their caller, who needs no USAGE for that: names are resolved when they are created.
create schema bulk_internal;
-- Default privileges of whoever installs have no say.
do $$
declare
    grantee text;
begin
    for grantee in select case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
        from pg_namespace n, aclexplode(n.nspacl) a where n.nspname = 'bulk_internal' and a.grantee <> n.nspowner
    loop
        execute format('revoke all on schema bulk_internal from %s', grantee);
    end loop;
end
$$;
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
    'pg_locks.objsubid of the advisory locks that workers hold: work (a job or task), worker-slot, role-slot, job-slot (the first of 1024 classes), snapshot, leaving (a job), export-place, load-thread';
