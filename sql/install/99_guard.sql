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
    return null;
end
$$;
comment on function bulk_internal.guard() is 'Refuses (42501) what is written by others than the owner of the table and superusers';

do $$
declare
    guarded pg_catalog.regclass;
begin
    for guarded in select c.oid from pg_catalog.pg_class c
        where c.relnamespace operator(pg_catalog.=) 'bulk_internal'::pg_catalog.regnamespace and c.relkind operator(pg_catalog.=) 'r'
    loop
        execute pg_catalog.format('create trigger guard before insert or update or delete or truncate on %s '
            'for each statement execute function bulk_internal.guard()', guarded);
        execute pg_catalog.format('alter table %s enable always trigger guard', guarded);
    end loop;
end
$$;
