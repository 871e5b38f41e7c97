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

-- Shares of roles, and how long a job may be at work.
comment on function bulk_internal.lock_class(text) is
    'pg_locks.objsubid of the advisory locks that workers hold: work (a job or task), worker-slot, role-slot, job-slot (the first of 1024 classes), snapshot, leaving (a job), export-place, load-thread';

alter table bulk_internal.job add column queued timestamptz, add column at_work_since timestamptz, add column worked interval;
comment on column bulk_internal.job.queued is 'When it last gave its place to another role''s job; null where it did not';
comment on column bulk_internal.job.at_work_since is 'When it began, or began again after it was stopped or gave its place away';
comment on column bulk_internal.job.worked is 'How long it was at work before it gave its place away: bulk.job_timeout counts that too';

create table bulk_internal.role_turn (
    role text collate "C" primary key,
    served timestamptz not null
);
comment on table bulk_internal.role_turn is 'When a worker was last started for a role''s jobs, or left them: of roles that have as few workers the one that waits longest comes first';

create or replace function bulk_internal.role_slots() returns table (role oid, places bigint)
    language sql volatile parallel restricted
    begin atomic
        select l.classid, count(*) from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = bulk_internal.lock_class('role-slot') and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
        group by 1;
    end;
comment on function bulk_internal.role_slots() is 'How many workers are at work in this database on the jobs of each role that has any';

create or replace function bulk_internal.leavers(number bigint) returns setof int
    language sql volatile parallel restricted
    begin atomic
        select l.pid from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = bulk_internal.lock_class('leaving') and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
            and l.classid = (number >> 32)::oid and l.objid = (number & 4294967295)::oid;
    end;
comment on function bulk_internal.leavers(bigint) is 'Workers that leave a job for another role''s turn';

create or replace function bulk_internal.max_workers_per_role() returns int
    language c volatile parallel restricted
    as 'MODULE_PATHNAME', 'max_workers_per_role_wrapper';
comment on function bulk_internal.max_workers_per_role() is 'bulk.max_workers_per_role, or what stands for its 0';

create or replace function bulk_internal.waiting_for(role text, session_role text) returns text
    language sql volatile parallel unsafe
    begin atomic
        select case
            when not exists (select from pg_catalog.pg_roles r where r.rolname = role) then 'role "' || role || '" does not exist'
            when not exists (select from pg_catalog.pg_roles r where r.rolname = session_role) then 'role "' || session_role || '" does not exist'
            when not pg_catalog.has_database_privilege(session_role, pg_catalog.current_database(), 'connect')
                then 'role "' || session_role || '" may not connect to the database'
            when bulk_internal.busy_worker_slots() >= coalesce(pg_catalog.current_setting('bulk.max_workers', true), '5')::int
                then 'bulk.max_workers workers are at work'
            when (select s.places from bulk_internal.role_slots() s join pg_catalog.pg_roles r on r.oid = s.role where r.rolname = waiting_for.role)
                    >= bulk_internal.max_workers_per_role()
                then 'bulk.max_workers_per_role workers are at work for role "' || role || '"'
            when (select count(*) from pg_catalog.pg_stat_activity a
                    where a.backend_type not in ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer',
                        'checkpointer', 'startup', 'walreceiver', 'walsender', 'walwriter', 'archiver', 'io worker', 'slotsync worker',
                        'standalone backend', 'walsummarizer'))
                    >= pg_catalog.current_setting('max_worker_processes')::int
                then 'max_worker_processes is used up'
            else 'no worker is there yet'
        end;
    end;
comment on function bulk_internal.waiting_for(text, text) is 'Why a job of a role, submitted by a session user, has no worker';

comment on column bulk.job.skipped is 'Lines that on-conflict, a trigger or a rule left out';

-- They look at what others commit meanwhile.
alter function bulk_internal.committed_state(bigint) parallel unsafe;
alter function bulk_internal.seen_state(bigint, bulk_internal.job_kind, bulk_internal.state, text) parallel unsafe;

grant execute on function bulk_internal.role_slots(), bulk_internal.leavers(bigint), bulk_internal.max_workers_per_role() to public;

select bulk_internal.protect_tables();
