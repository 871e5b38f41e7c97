-- Roles that are granted, not owned, by the extension: they belong to the cluster and outlive it.
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

create function bulk.create_resource_table(resource_type text) returns regclass
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'create_resource_table_wrapper';
comment on function bulk.create_resource_table(text) is
    'The table of a resource type, created with its history table in the first schema of the search path where it is missing';

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
    'Puts the rows of a stage, which a load with temp_table filled, into its type''s table, by that load''s on-conflict, update and keep-meta: {"total": n}';

create function bulk.stage_drop(name text) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'stage_drop_wrapper';
comment on function bulk.stage_drop(text) is 'Drops a stage, which a load with temp_table filled';

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

create function bulk._response(answer jsonb) returns bulk.response
    language sql immutable strict parallel safe
    begin atomic
        select row((answer->>'status')::int, answer->'headers', answer->'body')::bulk.response;
    end;
comment on function bulk._response(jsonb) is 'An answer of ours as SQL takes it apart';

create function bulk._import(request jsonb, fhir boolean) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'import_wrapper';
comment on function bulk._import(jsonb, boolean) is 'What bulk.import is made of';

create function bulk.import(request jsonb, fhir boolean default false) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk._response(bulk._import(request, fhir));
    end;
comment on function bulk.import(jsonb, boolean) is
    'Starts a session that loads its inputs in the background, or pauses, aborts or resumes one: the body of an $import request. Its answer, refusals among it';

create function bulk._import_status(id text, version int) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'import_status_wrapper';
comment on function bulk._import_status(text, int) is 'What bulk.import_status is made of';

create function bulk.import_status(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk._response(bulk._import_status(id, 1));
    end;
comment on function bulk.import_status(text) is 'How a session of bulk.import stands: 200 with the BulkImportStatus resource, 403, 404';

create function bulk.import_status_v2(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk._response(bulk._import_status(id, 2));
    end;
comment on function bulk.import_status_v2(text) is 'The same as GET /v2/$import/<id> shows it';

create function bulk._rpc(request jsonb) returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'rpc_wrapper';
comment on function bulk._rpc(jsonb) is 'What bulk.rpc is made of';

create function bulk.rpc(request jsonb) returns jsonb
    language sql volatile parallel unsafe
    begin atomic
        select bulk._rpc(request)::jsonb;
    end;
comment on function bulk.rpc(jsonb) is
    'Calls methods by name, the body of POST /rpc: {"method": "aidbox.bulk/…", "params": {…}} to {"result": …} or {"error": {"message": …}}, an array to an array';

create function bulk.load_from_bucket(params jsonb) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'load_from_bucket_wrapper';
comment on function bulk.load_from_bucket(jsonb) is
    'Loads the new files of a bucket in background workers: {"bucket": "s3://…", "thread-num": 4, …} to {"message", "progress", "new-files-count"} or {"error"}';

create function bulk.load_from_bucket_status(params jsonb) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'load_from_bucket_status_wrapper';
comment on function bulk.load_from_bucket_status(jsonb) is
    'How the load of a bucket stands: {"bucket": "s3://…"} to {"state": "in-progress" | "completed" | "interrupted", "progress"} or {"error"}';

create function bulk._export(level text, params jsonb, group_id text) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'export_wrapper';
comment on function bulk._export(text, jsonb, text) is 'What bulk.export is made of';

create function bulk.export(level text default 'system', params jsonb default '{}', group_id text default null) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk._response(bulk._export(level, params, group_id));
    end;
comment on function bulk.export(text, jsonb, text) is
    'Exports all resources (system), those of patients (patient) or of the members of a Group (group) to the storage that bulk.storage_backend and its fellows name: 202 with the content-location of its status, or a refusal with an OperationOutcome';

create function bulk._export_status(id text) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'export_status_wrapper';
comment on function bulk._export_status(text) is 'What bulk.export_status is made of';

create function bulk.export_status(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk._response(bulk._export_status(id));
    end;
comment on function bulk.export_status(text) is
    'How an export stands: 202 with x-progress and retry-after, 200 with the manifest, whose URLs are signed anew each time, 500 with an OperationOutcome, 404';

create function bulk._export_cancel(id text) returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'export_cancel_wrapper';
comment on function bulk._export_cancel(text) is 'What bulk.export_cancel is made of';

create function bulk.export_cancel(id text) returns bulk.response
    language sql volatile parallel unsafe
    begin atomic
        select bulk._response(bulk._export_cancel(id));
    end;
comment on function bulk.export_cancel(text) is 'Ends an export, or says that its files are not needed any more: 202, and its files are deleted in the background; 404';

create function bulk._http(method text, path text, query jsonb, headers jsonb, body jsonb) returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'http_wrapper';
comment on function bulk._http(text, text, jsonb, jsonb, jsonb) is 'What bulk.http is made of';

create function bulk.http(method text, path text, query jsonb default '{}', headers jsonb default '{}', body jsonb default null,
    out status int, out headers jsonb, out body jsonb, out stream text)
    language sql volatile parallel unsafe
    begin atomic
        select (a.answer->>'status')::int, a.answer->'headers', nullif(a.answer->'body', 'null'), a.answer->>'stream'
        from (select bulk._http(method, path, query, headers, body)::jsonb as answer offset 0) a;
    end;
comment on function bulk.http(text, text, jsonb, jsonb, jsonb) is
    'Answers a request to the Bulk API: what an HTTP layer calls with each, and passes on. Where stream is given, it is one statement with one column of type bytea: the chunks of the body';

create function bulk._http_error(sqlstate text, message text) returns jsonb
    language c stable parallel unsafe
    as 'MODULE_PATHNAME', 'http_error_wrapper';
comment on function bulk._http_error(text, text) is 'What bulk.http_error is made of';

create function bulk.http_error(sqlstate text, message text) returns bulk.response
    language sql stable parallel unsafe
    begin atomic
        select bulk._response(bulk._http_error(sqlstate, message));
    end;
comment on function bulk.http_error(text, text) is
    'The answer for an error that an HTTP layer meets itself, as in the first chunk of a stream: its HTTP status, and an OperationOutcome';

create function bulk.storage_healthcheck() returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'storage_healthcheck_wrapper';
comment on function bulk.storage_healthcheck() is
    'Writes, reads and deletes an object of the storage that bulk.storage_backend and its fellows name: {"message": "ok", "storage"} or {"error"}';

create function bulk.restore_indexes(table_name regclass default null) returns setof text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'restore_indexes_wrapper';
comment on function bulk.restore_indexes(regclass) is
    'Puts back the indexes that bulk.load_from_bucket took off a table, or off all tables of the caller''s: their names';

create function bulk.set_account(account jsonb) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'set_account_wrapper';
comment on function bulk.set_account(jsonb) is
    'Keeps an account at a store: an AwsAccount, GcpServiceAccount, AzureAccount or AzureContainer as Aidbox has them. Its secret is shown nowhere';

create function bulk.drop_account(resource_type text, id text) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'drop_account_wrapper';
comment on function bulk.drop_account(text, text) is 'Forgets an account at a store';

create function bulk.cancel(id text) returns boolean
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'cancel_wrapper';
comment on function bulk.cancel(text) is 'Ends a job that is waiting, at work or interrupted; false for one that has ended, or is not there';

create function bulk.wait(id text, timeout interval default null) returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'wait_for_wrapper';
comment on function bulk.wait(text, interval) is
    'Waits until a job is at work no more, or for the time that is given, and returns its state: done, error, cancelled, interrupted; else waiting or in-progress';

create function bulk.resume_interrupted() returns setof text
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'resume_interrupted_wrapper';
comment on function bulk.resume_interrupted() is
    'Goes on with the jobs whose workers are gone, of the caller''s roles, for bulk_admin of all: their ids. Jobs that wait are started as well';

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
