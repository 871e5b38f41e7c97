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
