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
    message text,
    queued timestamptz,
    at_work_since timestamptz,
    worked interval
);
comment on table bulk_internal.job is 'Foreground loads and background jobs: see the view bulk.job';
comment on column bulk_internal.job.database_identity is 'The database in which the job was submitted: a copy of it does not resume the job by itself';
comment on column bulk_internal.job.queued is 'When it last gave its place to another role''s job; null where it did not';
comment on column bulk_internal.job.at_work_since is 'When it began, or began again after it was stopped or gave its place away';
comment on column bulk_internal.job.worked is 'How long it was at work before it gave its place away: bulk.job_timeout counts that too';
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

create table bulk_internal.role_turn (
    role text collate "C" primary key,
    served timestamptz not null
);
comment on table bulk_internal.role_turn is 'When a worker was last started for a role''s jobs, or left them: of roles that have as few workers the one that waits longest comes first';

create function bulk_internal.role_slots() returns table (role oid, places bigint)
    language sql volatile parallel restricted
    begin atomic
        select l.classid, count(*) from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = bulk_internal.lock_class('role-slot') and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
        group by 1;
    end;
comment on function bulk_internal.role_slots() is 'How many workers are at work in this database on the jobs of each role that has any';

create function bulk_internal.leavers(number bigint) returns setof int
    language sql volatile parallel restricted
    begin atomic
        select l.pid from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = bulk_internal.lock_class('leaving') and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
            and l.classid = (number >> 32)::oid and l.objid = (number & 4294967295)::oid;
    end;
comment on function bulk_internal.leavers(bigint) is 'Workers that leave a job for another role''s turn';

create function bulk_internal.max_workers_per_role() returns int
    language c volatile parallel restricted
    as 'MODULE_PATHNAME', 'max_workers_per_role_wrapper';
comment on function bulk_internal.max_workers_per_role() is 'bulk.max_workers_per_role, or what stands for its 0';

create function bulk_internal.waiting_for(role text, session_role text) returns text
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

create function bulk_internal.committed_state(number bigint) returns text
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'committed_state_wrapper';
comment on function bulk_internal.committed_state(bigint) is 'The state of a job as it is committed by now, whatever the snapshot of the query';

-- The state is read again after the locks: a worker may have ended its job in between.
create function bulk_internal.seen_state(number bigint, kind bulk_internal.job_kind, state bulk_internal.state, database_identity text)
    returns bulk_internal.state
    language sql volatile parallel unsafe
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
comment on column bulk.job.skipped is 'Lines that on-conflict, a trigger or a rule left out';
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
