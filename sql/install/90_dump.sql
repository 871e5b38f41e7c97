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
