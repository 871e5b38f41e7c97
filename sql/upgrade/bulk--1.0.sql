-- Unqualified names below mean PostgreSQL's own, whatever somebody planted in a schema bulk that was there before.
set local search_path = pg_catalog, pg_temp;

do $$
declare
    bulk oid := 'bulk'::regnamespace;
    other text;
begin
    select r.rolname into other from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.oid = bulk and not r.rolsuper;
    if other is not null then
        raise exception using errcode = '42501', message = format('schema "bulk" is owned by role "%s", which is no superuser', other),
            hint = 'ALTER SCHEMA bulk OWNER TO CURRENT_USER, or drop the schema: CREATE EXTENSION makes it.';
    end if;
    select coalesce(r.rolname, 'public') into other from pg_namespace n cross join aclexplode(n.nspacl) a left join pg_roles r on r.oid = a.grantee
        where n.oid = bulk and a.privilege_type = 'CREATE' and not coalesce(r.rolsuper, false);
    if found then
        raise exception using errcode = '42501', message = format('role "%s" may create objects in schema "bulk"', other),
            hint = 'REVOKE CREATE ON SCHEMA bulk from it, or drop the schema: CREATE EXTENSION makes it.';
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
-- Jobs and their tasks. Only the extension writes these tables; people read the views, which also say whether a worker is still there: that is
-- known by its advisory lock alone. The words of kinds and states are domains: a later version adds one in the transaction of its script.

create domain bulk_internal.job_kind as text collate "C"
    constraint known check (value in ('load', 'validate', 'import', 'bucket', 'indexes', 'export', 'cleanup'));
comment on domain bulk_internal.job_kind is 'The verb of a job';

create domain bulk_internal.state as text collate "C"
    constraint known check (value in ('waiting', 'in-progress', 'interrupted', 'paused', 'done', 'completed', 'error', 'cancelled', 'aborted'));
comment on domain bulk_internal.state is 'The state of a job or task; interrupted is shown and never stored: in-progress without a worker';

create domain bulk_internal.task_kind as text collate "C"
    constraint known check (value in ('source', 'table', 'deleted', 'snapshot', 'index', 'files'));
comment on domain bulk_internal.task_kind is
    'source: a file or URL that is loaded; table: pages of a table that are validated or exported; deleted: what an export tells of deleted resources; snapshot: the task of an export that holds its snapshot; index: one that is restored; files: of an export, to be deleted';

create function bulk_internal.is_open(state bulk_internal.state) returns boolean
    language sql immutable parallel safe
    return state in ('waiting', 'in-progress');
comment on function bulk_internal.is_open(bulk_internal.state) is 'Whether a job or task in this state is still to be worked on';

create table bulk_internal.job (
    number bigint primary key default bulk_internal.random_number() check (number > 0),
    id text collate "C" not null unique,
    kind bulk_internal.job_kind not null,
    role text not null,
    session_role text not null,
    database_identity text,
    state bulk_internal.state not null constraint is_stored check (state <> 'interrupted'),
    threads int,
    request jsonb,
    created timestamptz not null default pg_catalog.clock_timestamp(),
    started timestamptz,
    finished timestamptz,
    read bigint,
    stored bigint,
    skipped bigint,
    rejected bigint,
    message text
);
comment on table bulk_internal.job is 'Foreground loads and background jobs: see the view bulk.job';
comment on column bulk_internal.job.database_identity is 'The database in which the job was submitted: a copy of it does not resume the job by itself';
comment on column bulk_internal.job.threads is 'Most workers at a time; null for any number';
comment on column bulk_internal.job.session_role is 'Session user of the submitting session; the job''s workers connect as this role';

create table bulk_internal.job_spec (
    job bigint primary key references bulk_internal.job (number) on delete cascade,
    spec jsonb not null
);
comment on table bulk_internal.job_spec is 'What the workers of a job are to do: {"version", "settings", "verb", "work"}';

create table bulk_internal.job_secret (
    job bigint primary key references bulk_internal.job (number) on delete cascade,
    secret jsonb not null
);
-- No values of it among the planner's statistics, which pg_read_all_data reads.
alter table bulk_internal.job_secret alter column secret set statistics 0;
comment on table bulk_internal.job_secret is 'URLs with query strings, headers, accounts, overlays of a job: deleted when it ends, and not dumped';

create table bulk_internal.task (
    number bigint primary key default bulk_internal.random_number() check (number > 0),
    job bigint not null references bulk_internal.job (number) on delete cascade,
    kind bulk_internal.task_kind not null,
    ordinal int not null,
    phase int not null default 0,
    source text not null,
    resource_type text,
    state bulk_internal.state not null default 'waiting' constraint is_of_a_task check (state in ('waiting', 'in-progress', 'done', 'error')),
    position bigint not null default 0,
    size bigint,
    started timestamptz,
    finished timestamptz,
    read bigint not null default 0,
    stored bigint,
    skipped bigint,
    rejected bigint not null default 0,
    written bigint,
    message text
);
create index on bulk_internal.task (job, ordinal);
comment on table bulk_internal.task is 'Tasks of background jobs: see the view bulk.job_file';
comment on column bulk_internal.task.ordinal is 'Place in the job, from 0; the ranges of one source share it';
comment on column bulk_internal.task.phase is 'A task waits until all tasks of earlier phases have ended: 0 sources and tables, 1 indexes';
comment on column bulk_internal.task.written is 'Bytes of the rows, or of the files, that were written';

create table bulk_internal.task_source (
    task bigint primary key references bulk_internal.task (number) on delete cascade,
    tries int not null default 0,
    checkpoint jsonb,
    range_from bigint,
    range_to bigint,
    base_version bigint,
    bytes bigint,
    characters bigint
);
comment on table bulk_internal.task_source is 'Of tasks of kind source: how far the source is loaded';
comment on column bulk_internal.task_source.tries is 'Times the task began again since it last stored something';
comment on column bulk_internal.task_source.range_from is 'First byte of the inflated source that is this task''s; null where all is';
comment on column bulk_internal.task_source.base_version is 'A row''s txid is this plus the byte offset of its line: reserved for the source';
comment on column bulk_internal.task_source.bytes is 'Bytes of the inflated source that are loaded';

create table bulk_internal.task_table (
    task bigint primary key references bulk_internal.task (number) on delete cascade,
    storage text,
    first_page bigint,
    end_page bigint
);
comment on table bulk_internal.task_table is 'Of tasks of the kinds table and deleted: which pages of the table are the task''s';
comment on column bulk_internal.task_table.storage is 'The file whose pages are counted: when the table is rewritten the task begins anew';
comment on column bulk_internal.task_table.first_page is 'Null where all pages are the task''s';

create function bulk_internal.workers(number bigint) returns setof int
    language sql volatile parallel restricted
    begin atomic
        select l.pid from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = bulk_internal.lock_class('work') and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
            and l.classid = (number >> 32)::oid and l.objid = (number & 4294967295)::oid;
    end;
comment on function bulk_internal.workers(bigint) is 'Processes that work on a job or task, by its number';

create function bulk_internal.busy_worker_slots() returns bigint
    language sql volatile parallel restricted
    begin atomic
        select count(distinct l.objid) from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = bulk_internal.lock_class('worker-slot') and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());
    end;
comment on function bulk_internal.busy_worker_slots() is 'How many of bulk.max_workers workers are at work in this database';

create function bulk_internal.waiting_for(role text, session_role text) returns text
    language sql volatile parallel restricted
    begin atomic
        select case
            when not exists (select from pg_catalog.pg_roles r where r.rolname = role) then 'role "' || role || '" does not exist'
            when not exists (select from pg_catalog.pg_roles r where r.rolname = session_role) then 'role "' || session_role || '" does not exist'
            when not pg_catalog.has_database_privilege(session_role, pg_catalog.current_database(), 'connect')
                then 'role "' || session_role || '" may not connect to the database'
            when bulk_internal.busy_worker_slots() >= coalesce(pg_catalog.current_setting('bulk.max_workers', true), '4')::int
                then 'bulk.max_workers workers are at work'
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

create function bulk_internal.committed_state(number bigint) returns text
    language c volatile strict parallel restricted
    as 'MODULE_PATHNAME', 'committed_state_wrapper';
comment on function bulk_internal.committed_state(bigint) is 'The state of a job as it is committed by now, whatever the snapshot of the query';

-- The state is read again after the locks: a worker may have ended its job in between.
create function bulk_internal.seen_state(number bigint, kind bulk_internal.job_kind, state bulk_internal.state, database_identity text)
    returns bulk_internal.state
    language sql volatile parallel restricted
    begin atomic
        select case
            when not bulk_internal.is_open(state) or kind = 'load' or pg_catalog.pg_is_in_recovery() then state
            when database_identity <> bulk_internal.database_identity() then 'interrupted'::bulk_internal.state
            when state = 'waiting' or exists (select from bulk_internal.workers(number)) then state
            else coalesce(nullif(bulk_internal.committed_state(number), 'in-progress'), 'interrupted')::bulk_internal.state
        end;
    end;
comment on function bulk_internal.seen_state(bigint, bulk_internal.job_kind, bulk_internal.state, text) is
    'The state of a job as people see it: interrupted where it is in progress and has no worker';

create view bulk.job with (security_barrier) as
    select j.id, j.kind::text, j.role,
        bulk_internal.seen_state(j.number, j.kind, j.state, j.database_identity)::text as state,
        j.request, j.created, j.started, j.finished,
        coalesce(j.read, (select sum(t.read)::bigint from bulk_internal.task t where t.job = j.number)) as read,
        coalesce(j.stored, (select sum(t.stored)::bigint from bulk_internal.task t where t.job = j.number)) as stored,
        coalesce(j.skipped, (select sum(t.skipped)::bigint from bulk_internal.task t where t.job = j.number)) as skipped,
        coalesce(j.rejected, (select sum(t.rejected)::bigint from bulk_internal.task t where t.job = j.number)) as rejected,
        case when j.message is null and j.kind <> 'load' and bulk_internal.is_open(j.state)
                and not exists (select from bulk_internal.workers(j.number))
            then bulk_internal.waiting_for(j.role, j.session_role) else j.message end as message
    from bulk_internal.job j where bulk_internal.may_see(j.role);
comment on view bulk.job is 'Foreground loads and background jobs; members of a job''s role and of bulk_admin see it';
comment on column bulk.job.id is 'Names the job in all functions';
comment on column bulk.job.kind is 'load: a call of bulk.load; validate: of bulk.validate, or of a load that leaves validation for later; import: a session of bulk.import; bucket: a call of bulk.load_from_bucket; indexes: restores the indexes of a bucket load that was cancelled; export: a call of bulk.export; cleanup: deletes the files of an export that was cancelled or failed';
comment on column bulk.job.role is 'The role that submitted the job and as which it runs';
comment on column bulk.job.state is 'waiting, in-progress, interrupted (its worker is gone: bulk.resume_interrupted goes on with it), paused, done, completed (a bucket: all of its files are done or failed; an export), error, cancelled, aborted';
comment on column bulk.job.request is 'What was asked for, without secrets';
comment on column bulk.job.created is 'When it was submitted';
comment on column bulk.job.started is 'When its first task began';
comment on column bulk.job.finished is 'When it ended, in whatever state';
comment on column bulk.job.read is 'Lines that were not empty: stored, skipped and rejected add up to them; or resources that were validated';
comment on column bulk.job.stored is 'Lines stored; a repeated id counts each time';
comment on column bulk.job.skipped is 'Lines that on-conflict left out';
comment on column bulk.job.rejected is 'Lines in bulk.load_error; or invalid resources';
comment on column bulk.job.message is 'Why it failed, or what it waits for';

create view bulk.job_file with (security_barrier) as
    select j.id as job_id, t.source, t.resource_type,
        case when bulk_internal.is_open(t.state) and j.state in ('cancelled', 'aborted', 'paused', 'error') then j.state::text
            when t.state = 'in-progress' and not exists (select from bulk_internal.workers(t.number)) and not pg_catalog.pg_is_in_recovery()
                then 'interrupted'
            else t.state::text end as state,
        coalesce(s.range_from, p.first_page) as range_from, coalesce(s.range_to, p.end_page) as range_to,
        t.position, t.size, t.started, t.finished, t.read, t.stored, t.skipped, t.rejected, t.message,
        case when t.state = 'in-progress' then (select min(pid) from bulk_internal.workers(t.number) pid) end as pid
    from bulk_internal.task t join bulk_internal.job j on j.number = t.job
        left join bulk_internal.task_source s on s.task = t.number left join bulk_internal.task_table p on p.task = t.number
    where bulk_internal.may_see(j.role);
comment on view bulk.job_file is 'The tasks of jobs: tables that are validated or exported, sources that are imported, indexes that are restored';
comment on column bulk.job_file.job_id is 'The id in bulk.job';
comment on column bulk.job_file.source is 'The table, the index, or the source without query string and credentials';
comment on column bulk.job_file.state is 'waiting, in-progress, interrupted, done, error; cancelled, aborted or paused with its job';
comment on column bulk.job_file.range_from is 'Of a task that shares its source with others: its lines begin at this byte or later; of a table: its first page';
comment on column bulk.job_file.range_to is 'The byte or page at which the next task begins';
comment on column bulk.job_file.position is 'What is done: pages of the table, bytes of the source as they are sent';
comment on column bulk.job_file.size is 'All there is, as far as that is known; in the unit of position';
comment on column bulk.job_file.message is 'Why it failed; of one in progress, why it was tried again, or what it waits for';
comment on column bulk.job_file.pid is 'Process id of its worker';

create view bulk.progress with (security_barrier) as
    select f.job_id, j.kind, f.source, f.resource_type, f.state as phase, f.read as rows, f.rejected,
        f.read / nullif(extract(epoch from pg_catalog.clock_timestamp() - f.started), 0) as rows_per_second,
        round(100.0 * f.position / nullif(f.size, 0), 1) as percent,
        case when r.seconds < 1e9 then pg_catalog.make_interval(secs => r.seconds) end as eta
    from bulk.job_file f join bulk.job j on j.id = f.job_id
        cross join lateral (select extract(epoch from pg_catalog.clock_timestamp() - f.started)::float8
            * ((f.size::float8 - f.position) / nullif(f.position, 0)) as seconds) r
    where f.state in ('in-progress', 'interrupted', 'waiting');
comment on view bulk.progress is 'How far the tasks of unfinished jobs are';
comment on column bulk.progress.phase is 'State of the task';
comment on column bulk.progress.rows is 'Lines or resources read';
comment on column bulk.progress.eta is 'Time that the rest takes at the rate so far; null where that is unknown, or thirty years and more';

alter table bulk_internal.job_secret enable row level security;

create function bulk.cancel(id text) returns boolean
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'cancel_wrapper';
comment on function bulk.cancel(text) is 'Ends a job that is waiting, in progress or interrupted; false where there is no such job, or it has ended';

create function bulk.wait(id text, timeout interval default null) returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'wait_for_wrapper';
comment on function bulk.wait(text, interval) is
    'Waits until a job is neither waiting nor in progress, or for the given time, and returns its state: done, error, cancelled, interrupted; else waiting or in-progress';

create function bulk.resume_interrupted() returns setof text
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'resume_interrupted_wrapper';
comment on function bulk.resume_interrupted() is
    'Resumes the interrupted jobs of the caller''s roles, for bulk_admin of all, and returns their ids. Jobs that wait are started as well';

create function bulk.purge_jobs(older_than interval default null) returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'purge_jobs_wrapper';
comment on function bulk.purge_jobs(interval) is
    'Deletes the jobs of the caller''s roles, for bulk_admin of all, that ended longer ago, by default than bulk.keep_jobs, with their rejected lines and tasks; how many. Files of exports stay';

select pg_catalog.pg_extension_config_dump('bulk_internal.job', '');
select pg_catalog.pg_extension_config_dump('bulk_internal.job_spec', '');
select pg_catalog.pg_extension_config_dump('bulk_internal.task', '');
select pg_catalog.pg_extension_config_dump('bulk_internal.task_source', '');
select pg_catalog.pg_extension_config_dump('bulk_internal.task_table', '');
create table bulk_internal.load_error (
    load_id text collate "C" not null references bulk_internal.job (id) on delete cascade,
    role text not null,
    source text not null,
    line bigint,
    byte_offset bigint,
    resource_type text,
    id text,
    sqlstate text not null,
    message text not null,
    path text,
    raw text,
    input int
);
create index on bulk_internal.load_error (load_id, source, line);
-- It has no key: a publication of all tables must not refuse deletions.
alter table bulk_internal.load_error replica identity full;
comment on table bulk_internal.load_error is 'Rejected lines: see the view bulk.load_error';
comment on column bulk_internal.load_error.role is 'The job''s: the planner looks at a column of a row before it looks at another table''s, so who may see a row stands in it';

create view bulk.load_error with (security_barrier) as
    select e.load_id, e.source, e.line, e.byte_offset, e.resource_type, e.id, e.sqlstate, e.message, e.path, e.raw, e.input, e.load_id as job_id
    from bulk_internal.load_error e where bulk_internal.may_see(e.role);
comment on view bulk.load_error is 'Lines that were rejected, and what is wrong with stored resources; members of the job''s role and of bulk_admin see them';
comment on column bulk.load_error.load_id is 'The id in bulk.job';
comment on column bulk.load_error.job_id is 'The same as load_id';
comment on column bulk.load_error.input is 'The source''s place in an import, from 0';
comment on column bulk.load_error.source is 'The source without query string and credentials; of a stored resource its table';
comment on column bulk.load_error.line is 'Line of the inflated source, from 1; null of a stored resource, and in a range of a source while the lines before it are not counted';
comment on column bulk.load_error.byte_offset is 'Bytes of the inflated source before the line';
comment on column bulk.load_error.path is 'The wrong element: name[0].given';
comment on column bulk.load_error.raw is 'The line, its first 16 kB; null of a stored resource';

select pg_catalog.pg_extension_config_dump('bulk_internal.load_error', '');

create table bulk_internal.staging_table (
    relation oid primary key,
    resource_type text not null,
    on_conflict text not null check (on_conflict in ('overwrite', 'error', 'skip', 'newer')),
    keep_history boolean not null,
    keep_meta boolean not null
);
comment on table bulk_internal.staging_table is 'The staging tables that loads with temp_table made, and how they are merged; not dumped, since oids change';

create function bulk.create_resource_table(resource_type text) returns regclass
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'create_resource_table_wrapper';
comment on function bulk.create_resource_table(text) is
    'The table of a resource type; where it is missing it is created, with its history table, in the first schema of the search path';

create function bulk.load(source text, resource_type text default null, fhir boolean default false, options jsonb default '{}') returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'load_wrapper';
comment on function bulk.load(text, text, boolean, jsonb) is
    'Loads NDJSON, gzipped or plain, from a URL or a file of the server: {"total": n} for a given type, else counts by type';

create function bulk.load(request jsonb, fhir boolean default false) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'load_request_wrapper';
comment on function bulk.load(jsonb, boolean) is
    'Loads what the body of a $load request says: {"source": "https://…"} with options beside it';

create function bulk.stage_merge(name text) returns jsonb
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'stage_merge_wrapper';
comment on function bulk.stage_merge(text) is
    'Merges a staging table, which a load with temp_table filled, into its type''s table by that load''s on-conflict, update and keep-meta: {"total": n}';

create function bulk.stage_drop(name text) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'stage_drop_wrapper';
comment on function bulk.stage_drop(text) is 'Drops a staging table, which a load with temp_table filled';

create function bulk.last_load_id() returns text
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'last_load_id_wrapper';
comment on function bulk.last_load_id() is 'The id in bulk.job of this session''s last load that succeeded; null before the first';

create function bulk.validate(resource_type text, checks text default 'struct', options jsonb default '{}') returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'validate_stored_wrapper';
comment on function bulk.validate(text, text, jsonb) is
    'Checks the stored resources of a type (struct, refs or all) in a background worker, from the end of the transaction on: the job''s id. What it finds is in bulk.load_error';
create type bulk.response as (status int, headers jsonb, body jsonb);
comment on type bulk.response is 'An HTTP answer: an HTTP layer passes it on as it is';

create function bulk_internal.response(answer jsonb) returns bulk.response
    language sql immutable strict parallel safe
    begin atomic
        select row((answer->>'status')::int, answer->'headers', answer->'body')::bulk.response;
    end;
comment on function bulk_internal.response(jsonb) is 'A bulk.response from its JSON';

create function bulk_internal.http(method text, path text, query jsonb, headers jsonb, body jsonb) returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'http_wrapper';
comment on function bulk_internal.http(text, text, jsonb, jsonb, jsonb) is 'Implements bulk.http';

create function bulk.http(method text, path text, query jsonb default '{}', headers jsonb default '{}', body jsonb default null,
    out status int, out headers jsonb, out body jsonb, out stream text)
    language sql volatile parallel unsafe
    begin atomic
        select (a.answer->>'status')::int, a.answer->'headers', nullif(a.answer->'body', 'null'), a.answer->>'stream'
        from (select bulk_internal.http(method, path, query, headers, body)::jsonb as answer offset 0) a;
    end;
comment on function bulk.http(text, text, jsonb, jsonb, jsonb) is
    'Answers a request to the Bulk API: what an HTTP layer calls with each, and passes on. Where stream is given, it is one statement with one column of type bytea: the chunks of the body';

create function bulk_internal.http_error(sqlstate text, message text) returns jsonb
    language c stable parallel unsafe
    as 'MODULE_PATHNAME', 'http_error_wrapper';
comment on function bulk_internal.http_error(text, text) is 'Implements bulk.http_error';

create function bulk.http_error(sqlstate text, message text) returns bulk.response
    language sql stable parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.http_error(sqlstate, message));
    end;
comment on function bulk.http_error(text, text) is
    'The answer for an error that an HTTP layer meets itself, as in the first chunk of a stream: its HTTP status, and an OperationOutcome';
create function bulk_internal.import(request jsonb, fhir boolean) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'import_wrapper';
comment on function bulk_internal.import(jsonb, boolean) is 'Implements bulk.import';

create function bulk.import(request jsonb, fhir boolean default false) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.import(request, fhir));
    end;
comment on function bulk.import(jsonb, boolean) is
    'Starts a session that loads its inputs in the background, or pauses, aborts or resumes one: the body of an $import request. Its answer, refusals among it';

create function bulk_internal.import_status(id text, version int) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'import_status_wrapper';
comment on function bulk_internal.import_status(text, int) is 'Implements bulk.import_status';

create function bulk.import_status(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.import_status(id, 1));
    end;
comment on function bulk.import_status(text) is 'The state of a session of bulk.import: 200 with the BulkImportStatus resource, 403, 404';

create function bulk.import_status_v2(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.import_status(id, 2));
    end;
comment on function bulk.import_status_v2(text) is 'The same as GET /v2/$import/<id> shows it';

create function bulk_internal.rpc(request jsonb) returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'rpc_wrapper';
comment on function bulk_internal.rpc(jsonb) is 'Implements bulk.rpc';

create function bulk.rpc(request jsonb) returns jsonb
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.rpc(request)::jsonb;
    end;
comment on function bulk.rpc(jsonb) is
    'Calls methods by name, the body of POST /rpc: {"method": "aidbox.bulk/…", "params": {…}} to {"result": …} or {"error": {"message": …}}, an array to an array';
create table bulk_internal.loader_file (
    store text collate "C" not null check (store in ('s3', 'gs', 'az', 'local')),
    endpoint text collate "C" not null,
    bucket text collate "C" not null,
    file text collate "C" not null,
    type text not null,
    size bigint,
    last_modified timestamptz,
    start timestamptz,
    "end" timestamptz,
    loaded bigint,
    status text not null default 'pending' check (status in ('pending', 'in-progress', 'done', 'error', 'skipped')),
    message text,
    error jsonb,
    etag text,
    role text not null,
    job bigint,
    primary key (store, endpoint, bucket, file)
);
comment on table bulk_internal.loader_file is 'Files of buckets: see the view bulk.loader_file. A file is known by where it is, and not by whose account reads it';

create view bulk.loader_file with (security_barrier) as
    select case l.store when 'local' then 'local' else l.store || '://' || l.bucket end as bucket,
        l.file, l.type, l.size, l.last_modified, l.start, l."end", l.loaded, l.status, l.message, l.error, l.etag, l.role,
        l.job, nullif(l.endpoint, '') as endpoint, (select j.id from bulk_internal.job j where j.number = l.job) as job_id
    from bulk_internal.loader_file l where bulk_internal.may_see(l.role);
comment on view bulk.loader_file is 'Files of buckets that bulk.load_from_bucket loads or has loaded; bulk.forget_file has one loaded again';
comment on column bulk.loader_file.bucket is 's3://bucket, gs://bucket, az://container, or local for a directory of the server';
comment on column bulk.loader_file.file is 'The key of the object, or the path of the file';
comment on column bulk.loader_file.type is 'The resource type that its name begins with';
comment on column bulk.loader_file.size is 'Bytes as they are sent';
comment on column bulk.loader_file.last_modified is 'As the store''s listing told';
comment on column bulk.loader_file.start is 'When a worker began to load it';
comment on column bulk.loader_file."end" is 'When it was loaded, or failed';
comment on column bulk.loader_file.loaded is 'Lines stored';
comment on column bulk.loader_file.status is 'pending, in-progress, done, error; a file whose worker is gone stays in-progress until the next call';
comment on column bulk.loader_file.message is 'Why it failed';
comment on column bulk.loader_file.error is '{"source": "postgres" | "aws" | "gcp" | "azure" | "aidbox", "code": …}: an SQLSTATE, or the store''s error code';
comment on column bulk.loader_file.etag is 'Of the content that was loaded, or will be';
comment on column bulk.loader_file.role is 'The role whose call found the file';
comment on column bulk.loader_file.job is 'Number of the job that loads it';
comment on column bulk.loader_file.endpoint is 'The server on which the bucket is: its host, for Azure the URL of the storage account; null for a directory';
comment on column bulk.loader_file.job_id is 'The id in bulk.job of the job that loads it';

create table bulk_internal.disabled_index (
    schemaname text collate "C" not null,
    tablename text collate "C" not null,
    indexname text collate "C" not null,
    indexdef text not null,
    tablespace text,
    status text not null default 'disabled' check (status in ('disabled', 'restored')),
    restore jsonb,
    message text,
    statements text[] not null,
    search_path text not null,
    owner text not null,
    role text not null,
    entry jsonb not null,
    constraint_type text check (constraint_type in ('primary key', 'unique')),
    primary key (schemaname, tablename, indexname)
);
comment on table bulk_internal.disabled_index is 'Dropped indexes: see the view bulk.disabled_index';
comment on column bulk_internal.disabled_index.entry is 'The index in the catalog, as bulk_internal.index_entry describes it';

create view bulk.disabled_index with (security_barrier) as
    select d.schemaname, d.tablename, d.indexname, d.indexdef, d.tablespace, d.status, d.restore, d.message, d.statements, d.search_path,
        d.owner, d.role
    from bulk_internal.disabled_index d where bulk_internal.may_see(d.role);
comment on view bulk.disabled_index is 'Indexes that bulk.load_from_bucket dropped, and how they are restored';
comment on column bulk.disabled_index.status is 'disabled, restored';
comment on column bulk.disabled_index.restore is '{"start", "end", "duration"}: when it was restored; milliseconds';
comment on column bulk.disabled_index.message is 'Why it could not be restored';
comment on column bulk.disabled_index.statements is 'The statements that restore it';
comment on column bulk.disabled_index.search_path is 'Setting when it was dropped: functions of an index may need it';
comment on column bulk.disabled_index.owner is 'Owner of the table: the index is restored for no other';

create function bulk_internal.index_entry(index oid) returns jsonb
    language sql stable strict parallel safe
    begin atomic
        select pg_catalog.jsonb_build_object('method', m.amname, 'unique', i.indisunique, 'nulls_not_distinct', i.indnullsnotdistinct,
            'immediate', i.indimmediate, 'predicate', pg_catalog.pg_get_expr(i.indpred, i.indrelid),
            'key_columns', i.indnkeyatts, 'columns', (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                    'column', c.attname, 'expression', case when c.attname is null then pg_catalog.pg_get_indexdef(i.indexrelid, n::int, false) end,
                    'collation', nullif(a.attcollation, 0)::pg_catalog.regcollation::text, 'operator_class', o.opcname, 'options', a.attoptions,
                    'order', i.indoption[n - 1]) order by n)
                from pg_catalog.generate_series(1, i.indnatts) n join pg_catalog.pg_attribute a on a.attrelid = i.indexrelid and a.attnum = n
                    left join pg_catalog.pg_attribute c on c.attrelid = i.indrelid and c.attnum = i.indkey[n - 1] and i.indkey[n - 1] <> 0
                    left join pg_catalog.pg_opclass o on n <= i.indnkeyatts and o.oid = i.indclass[n - 1]))
        from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid join pg_catalog.pg_am m on m.oid = x.relam
        where i.indexrelid = index;
    end;
comment on function bulk_internal.index_entry(oid) is 'What an index is by the catalog, but for its name, its place and its table: two with the same entry do the same';

select pg_catalog.pg_extension_config_dump('bulk_internal.loader_file', '');
select pg_catalog.pg_extension_config_dump('bulk_internal.disabled_index', '');

create function bulk.load_from_bucket(params jsonb) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'load_from_bucket_wrapper';
comment on function bulk.load_from_bucket(jsonb) is
    'Loads the new files of a bucket in background workers: {"bucket": "s3://…", "thread-num": 4, …} to {"message", "progress", "new-files-count"} or {"error"}';

create function bulk.load_from_bucket_status(params jsonb) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'load_from_bucket_status_wrapper';
comment on function bulk.load_from_bucket_status(jsonb) is
    'The state of the load of a bucket: {"bucket": "s3://…"} to {"state": "in-progress" | "completed" | "interrupted", "progress"} or {"error"}';

create function bulk.restore_indexes(table_name regclass default null) returns setof text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'restore_indexes_wrapper';
comment on function bulk.restore_indexes(regclass) is
    'Restores the indexes that bulk.load_from_bucket dropped from a table, or from all tables of the caller, and returns their names';

create function bulk.forget_file(bucket text, file text) returns boolean
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'forget_file_wrapper';
comment on function bulk.forget_file(text, text) is
    'Forgets a file of a bucket, named as in bulk.loader_file, so that the next bulk.load_from_bucket loads it again; false where there is none that the caller may forget';
create table bulk_internal.export_run (
    number bigint primary key default bulk_internal.random_number() check (number > 0),
    job bigint not null references bulk_internal.job (number) on delete cascade,
    folder text not null,
    transaction_time timestamptz not null,
    database_identity text,
    began timestamptz not null default pg_catalog.clock_timestamp()
);
create index on bulk_internal.export_run (job);
comment on table bulk_internal.export_run is 'Runs of exports: see the view bulk.export_run';
comment on column bulk_internal.export_run.database_identity is 'The database that began the run: a copy of it does not delete its files';

create table bulk_internal.export_file (
    run bigint not null references bulk_internal.export_run (number) on delete cascade,
    task bigint,
    file text collate "C" not null,
    kind text not null check (kind in ('output', 'deleted', 'error', 'left')),
    type text,
    count bigint,
    size bigint,
    message text,
    primary key (run, file)
);
comment on table bulk_internal.export_file is 'Files of exports: see the view bulk.export_file';
comment on column bulk_internal.export_file.task is 'Number of the task that wrote it';

create view bulk.export_run with (security_barrier) as
    select r.number, r.job, r.folder, r.transaction_time, r.began, j.id as job_id
    from bulk_internal.export_run r join bulk_internal.job j on j.number = r.job where bulk_internal.may_see(j.role);
comment on view bulk.export_run is 'Runs of exports: an export that began anew has several until the files of the earlier ones are deleted';
comment on column bulk.export_run.job is 'Number of the job';
comment on column bulk.export_run.job_id is 'The id in bulk.job';
comment on column bulk.export_run.folder is 'The folder of its files in the storage';
comment on column bulk.export_run.transaction_time is 'All that was committed by then is in the files; what was committed later may be missing';

create view bulk.export_file with (security_barrier) as
    select f.run, f.file, f.kind, f.type, f.count, f.size, f.message, j.id as job_id
    from bulk_internal.export_file f join bulk_internal.export_run r on r.number = f.run join bulk_internal.job j on j.number = r.job
    where bulk_internal.may_see(j.role);
comment on view bulk.export_file is 'Files of exports that are complete; those of one that was cancelled or failed, until they are deleted';
comment on column bulk.export_file.run is 'Number of the run in bulk.export_run';
comment on column bulk.export_file.job_id is 'The id in bulk.job';
comment on column bulk.export_file.file is 'The key of the object, or the path below the directory';
comment on column bulk.export_file.kind is 'output, deleted, error: the list of the manifest in which it is; left: it was to be deleted';
comment on column bulk.export_file.type is 'Type of all resources in it';
comment on column bulk.export_file.count is 'Number of its lines';
comment on column bulk.export_file.size is 'Bytes as they are stored';
comment on column bulk.export_file.message is 'Why it could not be deleted';

select pg_catalog.pg_extension_config_dump('bulk_internal.export_run', '');
select pg_catalog.pg_extension_config_dump('bulk_internal.export_file', '');

create function bulk_internal.export(level text, params jsonb, group_id text) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'export_wrapper';
comment on function bulk_internal.export(text, jsonb, text) is 'Implements bulk.export';

create function bulk.export(level text default 'system', params jsonb default '{}', group_id text default null) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.export(level, params, group_id));
    end;
comment on function bulk.export(text, jsonb, text) is
    'Exports all resources (system), those of patients (patient) or of the members of a Group (group) to the storage that the settings bulk.storage_… name: 202 with the content-location of its status, or a refusal with an OperationOutcome';

create function bulk_internal.export_status(id text) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'export_status_wrapper';
comment on function bulk_internal.export_status(text) is 'Implements bulk.export_status';

create function bulk.export_status(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.export_status(id));
    end;
comment on function bulk.export_status(text) is
    'The state of an export: 202 with x-progress and retry-after, 200 with the manifest, whose URLs are signed anew each time, 500 with an OperationOutcome, 404';

create function bulk_internal.export_cancel(id text) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'export_cancel_wrapper';
comment on function bulk_internal.export_cancel(text) is 'Implements bulk.export_cancel';

create function bulk.export_cancel(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk_internal.response(bulk_internal.export_cancel(id));
    end;
comment on function bulk.export_cancel(text) is 'Cancels an export, or has the files of one that has ended deleted: 202, and the files are deleted in the background; 404';
create table bulk_internal.storage_account (
    resource_type text collate "C" not null,
    id text collate "C" not null,
    account jsonb not null,
    primary key (resource_type, id)
);
comment on table bulk_internal.storage_account is 'Accounts at object stores without their secrets: see the view bulk.storage_account';

create table bulk_internal.storage_secret (
    resource_type text collate "C" not null,
    id text collate "C" not null,
    secret jsonb not null,
    primary key (resource_type, id),
    foreign key (resource_type, id) references bulk_internal.storage_account on delete cascade
);
comment on table bulk_internal.storage_secret is 'The secrets of accounts: superusers read them, and roles with BYPASSRLS that may read all data; they are not dumped';
alter table bulk_internal.storage_secret alter column secret set statistics 0;
alter table bulk_internal.storage_secret enable row level security;

create view bulk.storage_account with (security_barrier) as
    select a.resource_type, a.id, a.account from bulk_internal.storage_account a;
comment on view bulk.storage_account is 'Accounts at object stores, set by bulk.set_account; without their secrets';

select pg_catalog.pg_extension_config_dump('bulk_internal.storage_account', '');

create function bulk.storage_healthcheck() returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'storage_healthcheck_wrapper';
comment on function bulk.storage_healthcheck() is
    'Writes, reads and deletes an object of the storage that the settings bulk.storage_… name: {"message": "ok", "storage"} or {"error"}';

create function bulk.set_account(account jsonb) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'set_account_wrapper';
comment on function bulk.set_account(jsonb) is
    'Stores an account at an object store: an AwsAccount, GcpServiceAccount, AzureAccount or AzureContainer resource of Aidbox. Its secret is shown nowhere';

create function bulk.drop_account(resource_type text, id text) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'drop_account_wrapper';
comment on function bulk.drop_account(text, text) is 'Deletes an account at an object store';
create function bulk.dump(resource_type text, since timestamptz default null, fhir boolean default false) returns setof text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'dump_wrapper';
comment on function bulk.dump(text, timestamptz, boolean) is
    'The current resources of a type as lines of NDJSON, in Aidbox or FHIR format; since keeps those created after it. Streams in a SELECT list';

create function bulk.dump_bytes(resource_type text, since timestamptz default null, fhir boolean default false, gzip boolean default false)
    returns setof bytea
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'dump_bytes_wrapper';
comment on function bulk.dump_bytes(text, timestamptz, boolean, boolean) is
    'The lines of bulk.dump as chunks of about 64 KiB, gzipped on demand: the body of an HTTP answer';

create function bulk.dump_csv(resource_type text) returns setof text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'dump_csv_wrapper';
comment on function bulk.dump_csv(text) is
    'The current resources of a type as CSV, header first: a column for every path that any resource has, like name.0.given.0. Reads the table twice';

create function bulk.dump_csv_bytes(resource_type text, gzip boolean default false) returns setof bytea
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'dump_csv_bytes_wrapper';
comment on function bulk.dump_csv_bytes(text, boolean) is
    'The lines of bulk.dump_csv as chunks of about 64 KiB, gzipped on demand: the body of an HTTP answer';

create function bulk.dump_sql(query text, format text default 'tsv', options jsonb default '{}') returns setof text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'dump_sql_wrapper';
comment on function bulk.dump_sql(text, text, jsonb) is
    'The rows of a query that only reads, as lines of tsv, csv, ndjson (json), sql or elastic-bulk. Streams in a SELECT list';

create function bulk.dump_sql_bytes(query text, format text default 'tsv', options jsonb default '{}', gzip boolean default false)
    returns setof bytea
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'dump_sql_bytes_wrapper';
comment on function bulk.dump_sql_bytes(text, text, jsonb, boolean) is
    'The lines of bulk.dump_sql as chunks of about 64 KiB, gzipped on demand: the body of an HTTP answer';
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

-- Each script of an upgrade ends with it too: it makes what is missing, and has all fire whatever session_replication_role says. Replication
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
            if not exists (select from pg_trigger t where t.tgrelid = guarded
                and t.tgname = ('guard_' || level)) then
                -- The condition only spares the owner's own statements the call for every row.
                execute format('create trigger guard_%s before insert or update or delete%s on %s for each %s '
                    'when (not pg_catalog.pg_has_role(current_user, %s::oid, ''usage'')) execute function bulk_internal.guard()',
                    level, case level when 'statement' then ' or truncate' else '' end, guarded, level,
                    (select c.relowner from pg_class c where c.oid = guarded));
            end if;
            execute format('alter table %s enable always trigger guard_%s', guarded, level);
        end loop;
    end loop;
end
$$;
comment on function bulk_internal.protect_tables() is 'Sets the guards of all tables of bulk_internal, where one is missing or was disabled';
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
