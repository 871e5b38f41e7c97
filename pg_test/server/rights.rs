//! Who may do what: the server's files, the network, tables, settings.

use crate::support::cluster::{Database, shared};
use crate::support::source::File;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;

parts!(SERVER, WRITING);

fn role(database: &Database, client: &mut Client, suffix: &str) -> String {
    let name = format!("{}_{suffix}", database.name);
    client.batch_execute(&format!("create role {name} login")).unwrap();
    name
}

test!("files take pg_read_server_files and remote sources take bulk_remote", roles);
fn roles() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let name = role(&database, &mut client, "nobody");
    client.batch_execute(&format!("grant all on patient to {name}; grant all on transaction_id_seq to {name}")).unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n");
    let mut nobody = database.connect_as(&name);
    let load = format!("select bulk.load('{}', 'Patient')", file.url());
    let error = failure(&mut nobody, &load);
    assert_eq!(error.code, "42501");
    assert!(error.hint.contains("pg_read_server_files"), "{error:?}");
    let error = failure(&mut nobody, "select bulk.load('http://127.0.0.1:1/x', 'Patient')");
    assert_eq!(error.code, "42501");
    assert!(error.hint.contains("bulk_remote"), "{error:?}");
    client.batch_execute(&format!("grant bulk_remote, pg_read_server_files to {name}")).unwrap();
    nobody.batch_execute(&load).unwrap();
    // The role opens the network, not the loopback.
    let error = failure(&mut nobody, "select bulk.load('http://127.0.0.1:1/x?token=SECRET', 'Patient')");
    assert_eq!(error.code, "42501");
    assert!(error.message.contains("127.0.0.1") && error.hint.contains("bulk.allowed_hosts"), "{error:?}");
    assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
    for url in [
        "http://localhost:1/x",
        "http://[::1]:1/x",
        "http://0.0.0.0:1/x",
        "http://2130706433:1/x",
        "http://0x7f.1:1/x",
        "http://[::ffff:127.0.0.1]:1/x",
        "http://169.254.169.254/latest",
    ] {
        assert_eq!(failure(&mut nobody, &format!("select bulk.load('{url}', 'Patient')")).code, "42501", "{url}");
    }
    client.batch_execute(&format!("drop owned by {name}")).unwrap();
}

test!("a load takes the table's rights, column grants included", tables);
fn tables() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let name = role(&database, &mut client, "clerk");
    client.batch_execute(&format!("grant pg_read_server_files to {name}")).unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n");
    let mut clerk = database.connect_as(&name);
    let load = format!("select bulk.load('{}', 'Patient')", file.url());
    for grant in ["insert on patient", "update on patient", "usage on sequence transaction_id_seq", "select on patient"] {
        assert_eq!(failure(&mut clerk, &load).code, "42501", "before {grant}");
        client.batch_execute(&format!("grant {grant} to {name}")).unwrap();
    }
    clerk.batch_execute(&load).unwrap();
    assert_eq!(value(&mut clerk, "select count(*) from (select bulk.dump('Patient')) x"), "1");
    client.batch_execute(&format!("revoke select on patient from {name}; grant select (id) on patient to {name}")).unwrap();
    assert_eq!(failure(&mut clerk, "select bulk.dump('Patient')").code, "42501");
    assert_eq!(failure(&mut clerk, "select bulk.create_resource_table('Goal')").code, "42501");
    client.batch_execute(&format!("create schema own authorization {name}")).unwrap();
    clerk.batch_execute("set search_path = own, public; select bulk.create_resource_table('Goal')").unwrap();
    assert_eq!(value(&mut clerk, "select relowner::regrole from pg_class where oid = 'own.goal'::regclass"), name);
    client.batch_execute(&format!("drop owned by {name} cascade")).unwrap();
}

test!("settings that open doors are a superuser's", settings);
fn settings() {
    let database = shared().database();
    let mut client = database.connect();
    let name = role(&database, &mut client, "user");
    let mut user = database.connect_as(&name);
    user.batch_execute("select bulk.dump('Goal')").unwrap();
    for setting in ["bulk.allowed_hosts = '*'", "bulk.max_line_size = '1MB'", "bulk.max_depth = 20", "bulk.encode_threads = 3"] {
        assert_eq!(failure(&mut user, &format!("set {setting}")).code, "42501", "{setting}");
    }
    user.batch_execute("set bulk.resource_format = fhir; set bulk.created_at_url = 'x'").unwrap();
    assert_eq!(failure(&mut user, "set bulk.nonsense = 1").code, "42602");
    assert_eq!(failure(&mut user, "set bulk.resource_format = xml").code, "22023");
}

test!("a schema of the caller's cannot hijack what a function means", hijack);
fn hijack() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
             create schema evil;
             create function evil.now() returns timestamptz language plpgsql as $$ begin raise 'hijacked'; end $$;
             create function evil.unnest(anyarray) returns setof anyelement language plpgsql as $$ begin raise 'hijacked'; end $$;
             create function evil.nextval(regclass) returns bigint language plpgsql as $$ begin raise 'hijacked'; end $$;
             create function evil.bad(text, text) returns boolean language plpgsql as $$ begin raise 'hijacked'; end $$;
             create operator evil.= (leftarg = text, rightarg = text, function = evil.bad);
             create operator evil.<> (leftarg = text, rightarg = text, function = evil.bad);
             create function evil.to_char(timestamp, text) returns text language plpgsql as $$ begin raise 'hijacked'; end $$;
             create domain evil.text as pg_catalog.text check (false);
             create domain evil.timestamptz as pg_catalog.timestamptz check (false);
             set search_path = evil, pg_catalog, public",
        )
        .unwrap();
    let file = File::new(b"{\"id\":\"1\",\"resourceType\":\"Patient\"}\n");
    client.batch_execute(&format!("select bulk.load('{}'), bulk.load('{}')", file.url(), file.url())).unwrap();
    client.batch_execute("select bulk.dump('Patient', since => '2001-01-01')").unwrap();
    client.batch_execute("select bulk.create_resource_table('Goal')").unwrap();
}
