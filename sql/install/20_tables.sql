-- What the extension writes down. Everybody reads what is theirs; only the extension writes. Whether work that began still goes on is known
-- by its worker's lock alone, so people read views that say it.
create sequence bulk.job_number;
comment on sequence bulk.job_number is 'Numbers jobs and their parts; workers lock them';

create table bulk.job_entry (
    id text primary key,
    number bigint not null unique default nextval('bulk.job_number'),
    kind text not null,
    role text not null,
    session_role text not null,
    origin text,
    state text not null,
    threads int,
    request jsonb,
    created timestamptz not null default now(),
    started timestamptz,
    finished timestamptz,
    read bigint,
    stored bigint,
    skipped bigint,
    rejected bigint,
    message text
);
comment on table bulk.job_entry is 'What bulk.job is made of';
comment on column bulk.job_entry.origin is 'The database that it was asked in: a copy does not go on with it by itself';
comment on column bulk.job_entry.threads is 'Workers that may be at it at a time; null for as many as there are';
comment on column bulk.job_entry.session_role is 'Who was connected when the job was asked for: its workers are too';

create table bulk.job_plan (
    job bigint primary key references bulk.job_entry (number) on delete cascade,
    plan jsonb not null
);
comment on table bulk.job_plan is 'What the workers of a job go by';

create table bulk.job_secret (
    job bigint primary key references bulk.job_entry (number) on delete cascade,
    secret jsonb not null
);
comment on table bulk.job_secret is 'Query strings and headers that a job needs: gone when it ends, and no part of a dump';

create table bulk.job_file_entry (
    number bigint primary key default nextval('bulk.job_number'),
    job bigint not null references bulk.job_entry (number) on delete cascade,
    ordinal int not null,
    source text not null,
    resource_type text,
    phase int not null default 0,
    task text,
    state text not null default 'waiting',
    checkpoint jsonb,
    storage text,
    tries int not null default 0,
    range_from bigint,
    range_to bigint,
    versions bigint,
    position bigint not null default 0,
    size bigint,
    bytes bigint,
    characters bigint,
    written bigint,
    started timestamptz,
    finished timestamptz,
    read bigint not null default 0,
    stored bigint,
    skipped bigint,
    rejected bigint not null default 0,
    message text
);
create index on bulk.job_file_entry (job, number);
comment on column bulk.job_file_entry.phase is 'Parts of a phase wait until all of those before have ended: 0 sources and tables, 1 indexes that are put back';
comment on column bulk.job_file_entry.task is 'Of an export: snapshot, the part that keeps it; deleted, resources that are gone; null, resources';
comment on table bulk.job_file_entry is 'What bulk.job_file is made of';
comment on column bulk.job_file_entry.versions is 'Of each row this and its offset is the version: reserved for the source';

-- Workers hold advisory locks of a class of their own on what they work on.
create function bulk.workers(number bigint) returns setof int
    language sql volatile parallel restricted
    begin atomic
        select l.pid from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.objsubid = 16962 and l.granted
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
            and l.classid = (number >> 32)::oid and l.objid = (number & 4294967295)::oid;
    end;
comment on function bulk.workers(bigint) is 'Processes that work on a job, or on a part of one, by its number';

create function bulk.waiting_for(role text, session_role text) returns text
    language sql volatile parallel restricted
    begin atomic
        select case
            when not exists (select from pg_catalog.pg_roles r where r.rolname = role) then 'role "' || role || '" does not exist'
            when not exists (select from pg_catalog.pg_roles r where r.rolname = session_role) then 'role "' || session_role || '" does not exist'
            when not pg_catalog.has_database_privilege(session_role, pg_catalog.current_database(), 'connect')
                then 'role "' || session_role || '" may not connect to the database'
            when (select count(distinct l.objid) from pg_catalog.pg_locks l
                    where l.locktype = 'advisory' and l.objsubid = 16963 and l.granted
                        and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
                    >= coalesce(pg_catalog.current_setting('bulk.max_workers', true), '4')::int
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
comment on function bulk.waiting_for(text, text) is 'Why no worker is at a job of this role, which this role was connected to ask for';

create function bulk._database_identity() returns text
    language c stable strict parallel safe
    as 'MODULE_PATHNAME', 'database_identity_wrapper';
comment on function bulk._database_identity() is 'This database, told apart from its copies';

-- Looks at the state again once the locks were looked at: a worker may end in between.
create function bulk._state(number bigint, kind text, seen text, origin text) returns text
    language plpgsql volatile parallel restricted
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if seen not in ('waiting', 'in-progress') or kind = 'load' or pg_is_in_recovery() then
        return seen;
    elsif origin <> bulk._database_identity() then
        return 'interrupted';
    elsif seen = 'waiting' or exists (select from bulk.workers(number)) then
        return seen;
    end if;
    return (select case when e.state = 'in-progress' then 'interrupted' else e.state end from bulk.job_entry e where e.number = _state.number);
end
$$;
comment on function bulk._state(bigint, text, text, text) is 'The state of a job as it is: interrupted where no worker is at it that should be';

create view bulk.job with (security_invoker) as
    select e.id, e.kind, e.role,
        bulk._state(e.number, e.kind, e.state, e.origin) as state,
        e.request, e.created, e.started, e.finished,
        coalesce(e.read, (select sum(f.read)::bigint from bulk.job_file_entry f where f.job = e.number)) as read,
        coalesce(e.stored, (select sum(f.stored)::bigint from bulk.job_file_entry f where f.job = e.number)) as stored,
        coalesce(e.skipped, (select sum(f.skipped)::bigint from bulk.job_file_entry f where f.job = e.number)) as skipped,
        coalesce(e.rejected, (select sum(f.rejected)::bigint from bulk.job_file_entry f where f.job = e.number)) as rejected,
        case when e.message is null and e.kind <> 'load' and e.state in ('waiting', 'in-progress')
                and not exists (select from bulk.workers(e.number))
            then bulk.waiting_for(e.role, e.session_role) else e.message end as message
    from bulk.job_entry e;
comment on view bulk.job is 'Loads and other work; members of a job''s role and of bulk_admin see it';
comment on column bulk.job.kind is 'load: a call of bulk.load; validate: of bulk.validate, or of a load that leaves validation for later; import: a session of bulk.import; bucket: a call of bulk.load_from_bucket; indexes: what puts back the indexes of one that was cancelled; export: a call of bulk.export; cleanup: what deletes the files of one that was cancelled or failed';
comment on column bulk.job.role is 'Who asked for it';
comment on column bulk.job.state is 'waiting, in-progress, interrupted (its worker is gone: bulk.resume_interrupted goes on with it), paused, done, completed (a bucket: all of its files are done or failed; an export), error, cancelled, aborted';
comment on column bulk.job.request is 'What was asked for, without secrets';
comment on column bulk.job.read is 'Lines that held something: stored, skipped and rejected add up to them; or resources that were validated';
comment on column bulk.job.stored is 'Lines stored; a repeated id counts each time';
comment on column bulk.job.skipped is 'Lines passed over by on-conflict';
comment on column bulk.job.rejected is 'Lines in bulk.load_error; or resources in which something was found';
comment on column bulk.job.message is 'Why it failed, or what it waits for';

create view bulk.job_file with (security_invoker) as
    select e.id as job_id, f.source, f.resource_type,
        case when f.state in ('waiting', 'in-progress') and e.state in ('cancelled', 'aborted', 'paused', 'error') then e.state
            when f.state = 'in-progress' and not exists (select from bulk.workers(f.number)) and not pg_catalog.pg_is_in_recovery() then 'interrupted'
            else f.state end as state,
        f.range_from, f.range_to, f.position, f.size, f.started, f.finished, f.read, f.stored, f.skipped, f.rejected, f.message,
        case when f.state = 'in-progress' then (select min(pid) from bulk.workers(f.number) pid) end as pid
    from bulk.job_file_entry f join bulk.job_entry e on e.number = f.job;
comment on view bulk.job_file is 'The parts of jobs: tables that are validated or exported, sources that are imported, indexes that are put back';
comment on column bulk.job_file.job_id is 'The id in bulk.job';
comment on column bulk.job_file.source is 'The table, or the source without query string and credentials';
comment on column bulk.job_file.state is 'waiting, in-progress, interrupted, done, error; cancelled, aborted or paused with its job';
comment on column bulk.job_file.range_from is 'Of a part that shares its source with others: the lines that begin at this byte or behind it are its own; of a table, pages';
comment on column bulk.job_file.range_to is 'And before this one';
comment on column bulk.job_file.position is 'How much of it is done: pages of the table, bytes of the source as they are sent';
comment on column bulk.job_file.size is 'How much there is, as far as that is known';
comment on column bulk.job_file.message is 'Why it failed; of one at work, what it was tried again for, or waits for';
comment on column bulk.job_file.pid is 'The worker at it';

create view bulk.progress with (security_invoker) as
    select f.job_id, e.kind, f.source, f.resource_type, f.state as phase, f.read as rows, f.rejected,
        f.read / nullif(extract(epoch from pg_catalog.clock_timestamp() - f.started), 0) as rows_per_second,
        round(100.0 * f.position / nullif(f.size, 0), 1) as percent,
        (pg_catalog.clock_timestamp() - f.started) * ((f.size - f.position)::float8 / nullif(f.position, 0)) as eta
    from bulk.job_file f join bulk.job_entry e on e.id = f.job_id
    where f.state in ('in-progress', 'interrupted', 'waiting');
comment on view bulk.progress is 'How far the parts of unfinished jobs are';
comment on column bulk.progress.phase is 'State of the part';
comment on column bulk.progress.eta is 'Time that the rest takes at the rate so far';

create table bulk.load_error (
    load_id text not null references bulk.job_entry on delete cascade,
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
create index on bulk.load_error (load_id, source, line);
comment on table bulk.load_error is 'Lines that were rejected, and what was found in stored resources; who sees their job sees them';
comment on column bulk.load_error.load_id is 'The id in bulk.job';
comment on column bulk.load_error.input is 'Which of an import''s sources, from 0';
comment on column bulk.load_error.source is 'Without query string and credentials; of a stored resource its table';
comment on column bulk.load_error.line is 'In the inflated source, from 1; null of a stored resource, and in a range of a source while the lines before it are not counted';
comment on column bulk.load_error.byte_offset is 'Bytes of the inflated source before the line';
comment on column bulk.load_error.path is 'The element that is wrong: name[0].given';
comment on column bulk.load_error.raw is 'The line, its first 16 kB; null of a stored resource';

create table bulk.loader_file (
    bucket text not null,
    file text not null,
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
    primary key (bucket, file)
);
comment on table bulk.loader_file is 'Files of buckets that bulk.load_from_bucket loads or has loaded. Delete a row to have its file loaded again';
comment on column bulk.loader_file.bucket is 's3://bucket, gs://bucket, az://container, or local for a directory of the server';
comment on column bulk.loader_file.file is 'The key of the object, or the path of the file';
comment on column bulk.loader_file.type is 'The resource type that its name begins with';
comment on column bulk.loader_file.size is 'Bytes as they are sent';
comment on column bulk.loader_file.loaded is 'Lines stored';
comment on column bulk.loader_file.status is 'pending, in-progress, done, error; one that no worker is at any more stays in-progress until it is loaded';
comment on column bulk.loader_file.message is 'Why it failed';
comment on column bulk.loader_file.error is '{"source": "postgres" | "aws" | "gcp" | "azure" | "aidbox", "code": …}: an SQLSTATE, or the store''s word for it';
comment on column bulk.loader_file.etag is 'Of the content that was loaded, or is to be';
comment on column bulk.loader_file.job is 'Number of the job that loads it';

create table bulk.disabled_index (
    schemaname text not null,
    tablename text not null,
    indexname text not null,
    indexdef text not null,
    tablespace text,
    status text not null default 'disabled' check (status in ('disabled', 'restored')),
    restore jsonb,
    message text,
    statements text[] not null,
    search_path text not null,
    owner text not null,
    role text not null,
    primary key (schemaname, tablename, indexname)
);
comment on table bulk.disabled_index is 'Indexes that bulk.load_from_bucket took off their tables, and how they are put back';
comment on column bulk.disabled_index.status is 'disabled, restored';
comment on column bulk.disabled_index.restore is '{"start", "end", "duration"}: when it was put back; milliseconds';
comment on column bulk.disabled_index.message is 'Why it could not be put back';
comment on column bulk.disabled_index.statements is 'What puts it back';
comment on column bulk.disabled_index.search_path is 'Under which it was dropped: functions of an index may need it';
comment on column bulk.disabled_index.owner is 'Of the table: for no other it is put back';

create table bulk.export_run (
    number bigint primary key default nextval('bulk.job_number'),
    job bigint not null references bulk.job_entry (number) on delete cascade,
    folder text not null,
    transaction_time timestamptz not null,
    origin text,
    began timestamptz not null default now()
);
create index on bulk.export_run (job);
comment on table bulk.export_run is 'Exports as they began: one that began anew has several, until the files of those before are deleted';
comment on column bulk.export_run.folder is 'Below which its files are';
comment on column bulk.export_run.origin is 'The database that began it: a copy does not delete its files';
comment on column bulk.export_run.transaction_time is 'What is written after it may be missing; all that was written until then is there';

create table bulk.export_file (
    run bigint not null references bulk.export_run (number) on delete cascade,
    part bigint,
    file text not null,
    kind text not null check (kind in ('output', 'deleted', 'error', 'left')),
    type text,
    count bigint,
    size bigint,
    message text,
    primary key (run, file)
);
comment on table bulk.export_file is 'Files of exports that are written, whole; those of one that was cancelled or failed, until they are deleted';
comment on column bulk.export_file.run is 'Number of the bulk.export_run';
comment on column bulk.export_file.part is 'Number of the part of the job that wrote it';
comment on column bulk.export_file.file is 'The key of the object, or the path below the directory';
comment on column bulk.export_file.kind is 'output, deleted, error: where the manifest names it; left: it was to be deleted';
comment on column bulk.export_file.type is 'Of all resources in it';
comment on column bulk.export_file.count is 'Of its lines';
comment on column bulk.export_file.size is 'Bytes as they are stored';
comment on column bulk.export_file.message is 'Why it could not be deleted';

create table bulk.storage_account (
    resource_type text not null,
    id text not null,
    account jsonb not null,
    primary key (resource_type, id)
);
comment on table bulk.storage_account is 'Accounts at stores, set by bulk.set_account; without what is secret of them';

create table bulk.storage_secret (
    resource_type text not null,
    id text not null,
    secret jsonb not null,
    primary key (resource_type, id),
    foreign key (resource_type, id) references bulk.storage_account on delete cascade
);
comment on table bulk.storage_secret is 'What is secret of accounts: only superusers read it, and no dump holds it';

-- By name, because a dump keeps no oids; a role may be gone.
create function bulk.may_see(role text) returns boolean
    language sql stable parallel safe
    return exists (select from pg_catalog.pg_roles r where r.rolname = role and pg_catalog.pg_has_role(r.oid, 'usage'))
        or pg_catalog.pg_has_role('bulk_admin', 'usage');
comment on function bulk.may_see(text) is 'Whether the current user sees what belongs to a role';

alter table bulk.job_entry enable row level security;
create policy own on bulk.job_entry for select using (bulk.may_see(role));
grant select on bulk.job_entry, bulk.job to public;
alter table bulk.job_file_entry enable row level security;
create policy own on bulk.job_file_entry for select using (exists (select from bulk.job_entry j where j.number = job));
grant select on bulk.job_file_entry, bulk.job_file, bulk.progress to public;
alter table bulk.load_error enable row level security;
create policy own on bulk.load_error for select using (exists (select from bulk.job_entry j where j.id = load_id));
grant select on bulk.load_error to public;
-- Old entries go when an administrator says so: all that belongs to them goes with them.
grant delete on bulk.job_entry, bulk.job to bulk_admin;
create policy clean on bulk.job_entry for delete to bulk_admin using (true);

alter table bulk.loader_file enable row level security;
create policy own on bulk.loader_file for select using (bulk.may_see(role));
create policy forget on bulk.loader_file for delete using (bulk.may_see(role));
grant select, delete on bulk.loader_file to public;
alter table bulk.disabled_index enable row level security;
create policy own on bulk.disabled_index for select using (bulk.may_see(role));
grant select on bulk.disabled_index to public;

alter table bulk.export_run enable row level security;
create policy own on bulk.export_run for select using (exists (select from bulk.job_entry j where j.number = job));
alter table bulk.export_file enable row level security;
create policy own on bulk.export_file for select using (exists (select from bulk.export_run r where r.number = run));
grant select on bulk.export_run, bulk.export_file to public;

grant select on bulk.storage_account to bulk_admin, bulk_remote;
-- Roles that read or write all data see no secret, and change no account.
alter table bulk.storage_account enable row level security;
create policy show on bulk.storage_account for select using (true);
alter table bulk.storage_secret enable row level security;
alter table bulk.job_secret enable row level security;

select pg_catalog.pg_extension_config_dump('bulk.storage_account', '');
select pg_catalog.pg_extension_config_dump('bulk.job_number', '');
select pg_catalog.pg_extension_config_dump('bulk.job_entry', '');
select pg_catalog.pg_extension_config_dump('bulk.job_plan', '');
select pg_catalog.pg_extension_config_dump('bulk.job_file_entry', '');
select pg_catalog.pg_extension_config_dump('bulk.load_error', '');
select pg_catalog.pg_extension_config_dump('bulk.export_run', '');
select pg_catalog.pg_extension_config_dump('bulk.export_file', '');
select pg_catalog.pg_extension_config_dump('bulk.loader_file', '');
select pg_catalog.pg_extension_config_dump('bulk.disabled_index', '');
