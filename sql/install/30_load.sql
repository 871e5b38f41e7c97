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
