-- What sql/install/ makes otherwise than in version 1.0. Tables that pg_dump dumps only grow.
set local search_path = pg_catalog, pg_temp;

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

create or replace function bulk_internal.protect_tables() returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    guarded regclass;
    level text;
begin
    for guarded in select c.oid from pg_class c
        where c.relnamespace = 'bulk_internal'::regnamespace and c.relkind = 'r'
    loop
        foreach level in array array['statement', 'row'] loop
            -- The condition only spares the owner's own statements the call for every row.
            execute format('create or replace trigger guard_%s before insert or update or delete%s on %s for each %s '
                'when (not pg_catalog.pg_has_role(current_user, %s::oid, ''usage'')) execute function bulk_internal.guard()',
                level, case level when 'statement' then ' or truncate' else '' end, guarded, level,
                (select c.relowner from pg_class c where c.oid = guarded));
            execute format('alter table %s enable always trigger guard_%s', guarded, level);
        end loop;
    end loop;
end
$$;
comment on function bulk_internal.protect_tables() is 'Sets the guards of all tables of bulk_internal anew: after a change of their owner, or where one is missing or was disabled';

select bulk_internal.protect_tables();
