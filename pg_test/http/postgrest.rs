//! The recipe of examples/postgrest: PostgREST as it is, nginx before it.

use crate::support::cluster::{Cluster, Database, cache};
use crate::support::front::{self, Front};
use crate::support::servers::Server;
use crate::support::source::Nginx;
use crate::support::statement::{value, wait_until};
use crate::support::trial::test;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECRET: &str = "a secret of thirty-two characters";

fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/postgrest")
}

/// Base64 for URLs, without padding.
fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let of_chunk = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(|place| DIGITS[(bits >> (18 - 6 * place) & 63) as usize] as char).collect::<String>()
    };
    bytes.chunks(3).map(of_chunk).collect()
}

fn token(payload: &Value) -> String {
    let signed = format!("{}.{}", encoded(br#"{"alg":"HS256","typ":"JWT"}"#), encoded(payload.to_string().as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", encoded(&mac.finalize().into_bytes()))
}

fn of_role(base: &str, role: &str) -> Front {
    Front { base: base.to_owned(), authorization: Some(format!("authorization: Bearer {}", token(&json!({"role": role})))) }
}

fn postgrest(cluster: &Cluster, database: &Database) -> Server {
    let mut psql = database.psql();
    let sql = std::fs::read(recipe().join("bulk_http.sql")).unwrap();
    crate::support::cluster::replay(&mut psql, &sql);
    cluster
        .connect("postgres", "postgres")
        .batch_execute("create role authenticator login noinherit; grant \"bulk-client\", poor to authenticator")
        .unwrap();
    let uri = cluster.uri("authenticator", &database.name);
    Server::start(|port| {
        let mut command = Command::new(cache().join("postgrest/postgrest"));
        command.arg(recipe().join("postgrest.conf"));
        command.env("PGRST_DB_URI", &uri).env("PGRST_JWT_SECRET", SECRET).env("PGRST_SERVER_PORT", port.to_string());
        command
    })
}

test!("every operation behind PostgREST answers as the contract says", contract);
fn contract() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let postgrest = postgrest(&cluster, &database);
    let upstream = format!("upstream postgrest {{ server 127.0.0.1:{}; }}", postgrest.port);
    let proxy = Nginx::start_with(Path::new("/nonexistent"), &format!("include {};", recipe().join("nginx.conf").display()), &upstream);
    let base = proxy.url("");
    let base = base.trim_end_matches('/');
    front::wait_for(&of_role(base, "bulk-client"));
    front::contract(&of_role(base, "bulk-client"), &of_role(base, "poor"), &mut client);
    // Who brings no token, a forged one, an old one, or one for a role that is not granted.
    let target = "/Patient/$dump";
    assert_eq!(Front { base: base.to_owned(), authorization: None }.get(target).status, 401);
    let forged =
        Front { base: base.to_owned(), authorization: Some(format!("authorization: Bearer {}x", token(&json!({"role": "bulk-client"})))) };
    assert_eq!(forged.get(target).status, 401);
    let old = token(&json!({"role": "bulk-client", "exp": 1}));
    assert_eq!(Front { base: base.to_owned(), authorization: Some(format!("authorization: Bearer {old}")) }.get(target).status, 401);
    assert_eq!(of_role(base, "postgres").get(target).status, 403);
    // A function that runs too long is cancelled by a timeout of the role's, which is an answer too.
    client.batch_execute(&format!("alter role authenticator in database {} set statement_timeout = '500ms'", database.name)).unwrap();
    client.batch_execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'authenticator'").unwrap();
    wait_until("a query takes too long", || {
        let slow = of_role(base, "bulk-client").post("/$dump-sql", &json!({"query": "select pg_sleep(5)"}));
        slow.status == 503 && slow.json()["issue"][0]["code"] == "transient"
    });
}

test!("PostgREST by itself gives dumps as NDJSON and CSV", alone);
fn alone() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    client.batch_execute("select bulk.create_resource_table('Patient'); insert into patient (id, txid, status, resource) select g, 1, 'created', '{\"active\": true}' from generate_series(1, 3) g; grant pg_read_all_data to \"bulk-client\"").unwrap();
    let postgrest = postgrest(&cluster, &database);
    let asker = of_role(&format!("http://127.0.0.1:{}", postgrest.port), "bulk-client");
    front::wait_for(&asker);
    let dumped = value(&mut client, "select string_agg(line || e'\\n', '') from (select bulk.dump('Patient', fhir => true) as line) x");
    let ndjson = asker.call("GET", "/rpc/dump?resource_type=Patient&fhir=true", &["accept: application/ndjson"], b"");
    assert_eq!((ndjson.status, ndjson.kind(), ndjson.text()), (200, "application/ndjson", dumped), "{ndjson:?}");
    let csv = asker.call("GET", "/rpc/dump_csv?resource_type=Patient", &["accept: text/csv"], b"");
    assert_eq!((csv.status, csv.kind(), csv.text().lines().count()), (200, "text/csv", 4), "{csv:?}");
    let unknown = asker.call("GET", "/rpc/dump?resource_type=Unknown", &["accept: application/ndjson"], b"");
    assert_eq!(unknown.status, 404, "{unknown:?}");
}
