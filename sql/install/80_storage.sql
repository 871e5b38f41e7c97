create table bulk_internal.storage_account (
    resource_type text collate "C" not null,
    id text collate "C" not null,
    account jsonb not null,
    primary key (resource_type, id)
);
comment on table bulk_internal.storage_account is 'Accounts at object stores without their secrets: see the view bulk.storage_account';

create table bulk_internal.storage_secret (
    resource_type text collate "C" not null,
    id text collate "C" not null,
    secret jsonb not null,
    primary key (resource_type, id),
    foreign key (resource_type, id) references bulk_internal.storage_account on delete cascade
);
comment on table bulk_internal.storage_secret is 'The secrets of accounts: superusers read them, and roles with BYPASSRLS that may read all data; they are not dumped';
alter table bulk_internal.storage_secret alter column secret set statistics 0;
alter table bulk_internal.storage_secret enable row level security;

create view bulk.storage_account with (security_barrier) as
    select a.resource_type, a.id, a.account from bulk_internal.storage_account a;
comment on view bulk.storage_account is 'Accounts at object stores, set by bulk.set_account; without their secrets';

select pg_catalog.pg_extension_config_dump('bulk_internal.storage_account', '');

create function bulk.storage_healthcheck() returns jsonb
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'storage_healthcheck_wrapper';
comment on function bulk.storage_healthcheck() is
    'Writes, reads and deletes an object of the storage that the settings bulk.storage_… name: {"message": "ok", "storage"} or {"error"}';

create function bulk.set_account(account jsonb) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'set_account_wrapper';
comment on function bulk.set_account(jsonb) is
    'Stores an account at an object store: an AwsAccount, GcpServiceAccount, AzureAccount or AzureContainer resource of Aidbox. Its secret is shown nowhere';

create function bulk.drop_account(resource_type text, id text) returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'drop_account_wrapper';
comment on function bulk.drop_account(text, text) is 'Deletes an account at an object store';
