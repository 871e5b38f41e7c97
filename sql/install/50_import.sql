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
