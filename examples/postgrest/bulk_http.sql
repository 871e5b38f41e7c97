-- The Bulk API behind PostgREST 12: psql -d fhir -f bulk_http.sql, then db-schemas = "bulk_http" (postgrest.conf) and nginx.conf before it.
-- Run as a superuser or as the owner of the schemas. Needs the extension bulk.

create schema bulk_http;
grant usage on schema bulk_http to public;

-- Media types, as PostgREST knows them: the names of domains.
create domain bulk_http."*/*" as bytea;
create domain bulk_http."application/ndjson" as bytea;
create domain bulk_http."text/csv" as bytea;

-- Every operation: the proxy says in headers which request it was, and its body is this function's. A body is one value here, so it does
-- not stream, and ends at 1 GB. search_path is where the tables of resources are, and are made.
create function bulk_http.operation(bytea) returns bulk_http."*/*"
    language plpgsql volatile
    set search_path from current
    as $$
declare
    request constant json := current_setting('request.headers', true);
    answer record;
    content bytea;
begin
    begin
        select * into answer from bulk.http(
            request->>'x-bulk-method',
            request->>'x-bulk-target',
            headers => jsonb_build_object('prefer', request->>'x-bulk-prefer'),
            body => nullif(convert_from($1, 'UTF8'), '')::jsonb);
        if answer.stream is not null then
            execute format('select string_agg(chunk, '''') from (%s) as stream(chunk)', answer.stream) into content;
        end if;
    -- A timeout of the role is a query_canceled, which is none of the others.
    exception when query_canceled or others then
        select error.*, null::text as stream into answer from bulk.http_error(sqlstate, sqlerrm) as error;
    end;
    perform set_config('response.status', answer.status::text, true);
    perform set_config('response.headers', (
        select coalesce(json_agg(json_build_object(name, value)), '[]') from jsonb_each_text(answer.headers) as header(name, value))::text, true);
    return coalesce(content, convert_to(answer.body::text, 'UTF8'), '');
end
$$;
comment on function bulk_http.operation(bytea) is 'A request to the Bulk API, as the proxy before PostgREST hands it over';

-- What can be had without a proxy: GET /rpc/dump?resource_type=Patient
create function bulk_http.dump(resource_type text, since timestamptz default null, fhir boolean default false) returns bulk_http."application/ndjson"
    language sql volatile
    set search_path from current
    as $$
    select coalesce(string_agg(chunk, ''), '') from (select bulk.dump_bytes(resource_type, since, fhir)) as stream(chunk)
$$;
comment on function bulk_http.dump(text, timestamptz, boolean) is 'The resources of a type as NDJSON';

create function bulk_http.dump_csv(resource_type text) returns bulk_http."text/csv"
    language sql volatile
    set search_path from current
    as $$
    select coalesce(string_agg(chunk, ''), '') from (select bulk.dump_csv_bytes(resource_type)) as stream(chunk)
$$;
comment on function bulk_http.dump_csv(text) is 'The resources of a type as CSV';

notify pgrst, 'reload schema';
