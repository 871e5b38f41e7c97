-- Nobody but the extension's own statements, which run as the tables' owner, and superusers writes these tables: workers do what stands in them. Grants
-- and predefined roles such as pg_write_all_data change nothing in that, and row security, which would stop pg_dump, is not needed for it.
create function bulk_internal.guard() returns trigger
    language plpgsql
    as $$
begin
    if not pg_catalog.pg_has_role(current_user, (select c.relowner from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) tg_relid), 'usage') then
        raise exception using errcode = '42501', message = pg_catalog.format('only the extension bulk writes to table "%s"', tg_table_name),
            hint = 'bulk.cancel, bulk.purge_jobs, bulk.forget_file, bulk.set_account and bulk.drop_account change what it holds.';
    end if;
    if tg_level operator(pg_catalog.=) 'STATEMENT' then
        return null;
    elsif tg_op operator(pg_catalog.=) 'DELETE' then
        return old;
    end if;
    return new;
end
$$;
comment on function bulk_internal.guard() is 'Refuses (42501) what is written by others than the owner of the table and superusers';

-- Each script of an upgrade ends with it too, and it follows a change of the tables' owner: it makes the triggers anew, and has all fire whatever session_replication_role says. Replication
-- applies rows without the triggers of statements, so there are triggers of rows as well.
create function bulk_internal.protect_tables() returns void
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
revoke execute on function bulk_internal.protect_tables() from public;

select bulk_internal.protect_tables();

-- Default privileges of whoever installs have no say in who may do what.
do $$
declare
    found record;
begin
    for found in select c.oid::pg_catalog.regclass as relation, a.grantee from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
        where c.relnamespace in ('bulk'::pg_catalog.regnamespace, 'bulk_internal'::pg_catalog.regnamespace)
            and c.relkind in ('r', 'v') and a.grantee operator(pg_catalog.<>) c.relowner
    loop
        execute pg_catalog.format('revoke all on %s from %s', found.relation,
            case found.grantee when 0 then 'public' else (select pg_catalog.quote_ident(r.rolname) from pg_catalog.pg_roles r where r.oid operator(pg_catalog.=) found.grantee) end);
    end loop;
end
$$;
grant select on bulk.job, bulk.job_file, bulk.progress, bulk.load_error, bulk.loader_file, bulk.disabled_index, bulk.export_run, bulk.export_file to public;
grant select on bulk.storage_account to bulk_admin, bulk_remote;
grant execute on all functions in schema bulk, bulk_internal to public;
revoke execute on function bulk_internal.protect_tables() from public;
