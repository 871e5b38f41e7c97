-- What the extension writes down. Everybody reads what is theirs; only the extension writes.
create table bulk.job (
    id text primary key,
    kind text not null,
    role text not null,
    state text not null,
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
comment on table bulk.job is 'Loads and other work; members of a job''s role and of bulk_admin see it';
comment on column bulk.job.kind is 'load: a call of bulk.load';
comment on column bulk.job.role is 'Who asked for it';
comment on column bulk.job.state is 'done';
comment on column bulk.job.request is 'What was asked for, without secrets';
comment on column bulk.job.read is 'Lines that held something: stored, skipped and rejected add up to them';
comment on column bulk.job.stored is 'Lines stored; a repeated id counts each time';
comment on column bulk.job.skipped is 'Lines passed over by on-conflict';
comment on column bulk.job.rejected is 'Lines in bulk.load_error';

create table bulk.load_error (
    load_id text not null references bulk.job on delete cascade,
    source text not null,
    line bigint not null,
    byte_offset bigint not null,
    resource_type text,
    id text,
    sqlstate text not null,
    message text not null,
    path text,
    raw text
);
create index on bulk.load_error (load_id, source, line);
comment on table bulk.load_error is 'Lines that were rejected; who sees their job sees them';
comment on column bulk.load_error.load_id is 'The id in bulk.job';
comment on column bulk.load_error.source is 'Without query string and credentials';
comment on column bulk.load_error.line is 'In the inflated source, from 1';
comment on column bulk.load_error.byte_offset is 'Bytes of the inflated source before the line';
comment on column bulk.load_error.path is 'The element that is wrong: name[0].given';
comment on column bulk.load_error.raw is 'The line, its first 16 kB';

-- By name, because a dump keeps no oids; a role may be gone.
create function bulk.may_see(role text) returns boolean
    language sql stable parallel safe
    return exists (select from pg_catalog.pg_roles r where r.rolname = role and pg_catalog.pg_has_role(r.oid, 'usage'))
        or pg_catalog.pg_has_role('bulk_admin', 'usage');
comment on function bulk.may_see(text) is 'Whether the current user sees what belongs to a role';

alter table bulk.job enable row level security;
create policy own on bulk.job for select using (bulk.may_see(role));
grant select on bulk.job to public;
alter table bulk.load_error enable row level security;
create policy own on bulk.load_error for select using (exists (select from bulk.job j where j.id = load_id));
grant select on bulk.load_error to public;
-- Old entries go when an administrator says so: their lines go with them.
grant delete on bulk.job to bulk_admin;
create policy clean on bulk.job for delete to bulk_admin using (true);

select pg_catalog.pg_extension_config_dump('bulk.job', '');
select pg_catalog.pg_extension_config_dump('bulk.load_error', '');
