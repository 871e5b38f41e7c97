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
