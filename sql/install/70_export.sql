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
