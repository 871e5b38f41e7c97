//! A streaming HTTP gateway for the PostgreSQL extension `bulk`: bulk-gateway ADDRESS DATABASE, as in
//! bulk-gateway 127.0.0.1:8080 'host=127.0.0.1 dbname=fhir'
//!
//! It knows nothing of FHIR: every request goes to `bulk.http`, and what that answers is passed on. Who may do what is PostgreSQL's to decide: a
//! client's basic authorization is the role and the password that the gateway connects with. A stream's rows are written as they come; a client that
//! reads slowly slows the query down, and one that leaves ends it. TLS is for the proxy before it; the database is on this machine.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Version, header, request::Parts};
use axum::response::Response;
use axum_extra::headers::{Authorization, authorization::Basic};
use axum_extra::{TypedHeader, typed_header::TypedHeaderRejection};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::task::AbortHandle;
use tokio_postgres::{CancelToken, Client, Config, Error, NoTls, Row};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, database] = &arguments[..] else { return Err("usage: bulk-gateway ADDRESS DATABASE".into()) };
    let mut config: Config = database.parse()?;
    // Should the gateway itself end, its queries do.
    let options = format!("{} -c client_connection_check_interval=1s", config.get_options().unwrap_or_default());
    config.options(options).application_name("bulk gateway");
    if config.get_password().is_some() {
        return Err("DATABASE must hold no password: clients bring theirs".into());
    }
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, Router::new().fallback(answer).with_state(config)).await?;
    Ok(())
}

/// Ends a query that nobody waits for any more, and its connection.
struct CancelOnDrop(Option<(CancelToken, AbortHandle)>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some((token, connection)) = self.0.take() {
            tokio::spawn(async move {
                let _ = token.cancel_query(NoTls).await;
                connection.abort();
            });
        }
    }
}

type Login = Result<TypedHeader<Authorization<Basic>>, TypedHeaderRejection>;
async fn answer(State(config): State<Config>, login: Login, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let yaml = wants_yaml(&head.headers);
    // Methods are told apart by case, and HTTP has none of small letters.
    if head.method.as_str().contains(|c: char| c.is_ascii_lowercase()) {
        return respond(outcome(501, "not-supported", "there is no such method"), yaml);
    }
    let unauthorized = || outcome(401, "login", "a role of the database and its password are needed");
    let Ok(TypedHeader(login)) = login else { return respond(unauthorized(), yaml) };
    let (role, password) = (login.username(), login.password());
    if role.contains('\0') || password.contains('\0') {
        return respond(unauthorized(), yaml);
    }
    // Where no password is asked for, any would do.
    if config.clone().user(role).connect(NoTls).await.is_ok() {
        // Not told apart from others: whoever asks would learn which roles need none.
        eprintln!("role {role:?} needs no password: pg_hba.conf must ask for one");
        return respond(unauthorized(), yaml);
    }
    let (client, mut cancel) = match connect(config, role, password).await {
        Ok(connected) => connected,
        Err(error) if error.code().is_some_and(|code| code.code().starts_with("28")) => return respond(unauthorized(), yaml),
        Err(error) => return respond(unavailable(&error), yaml),
    };
    let Ok(bytes) = to_bytes(body, 1 << 20).await else {
        return respond(outcome(413, "too-long", "the body is longer than 1 MiB, or did not come whole"), yaml);
    };
    let called = match read(&head.headers, &bytes) {
        Ok(body) => call(&client, &head, body).await,
        Err(problem) => return respond(outcome(400, "structure", &problem), yaml),
    };
    let (answer, statement) = match called {
        Ok(called) => called,
        Err(error) => (refusal(&client, &error).await, None),
    };
    let Some(statement) = statement else {
        cancel.0 = None;
        return respond(answer, yaml);
    };
    if head.version < Version::HTTP_11 {
        return respond(outcome(505, "not-supported", "a stream takes HTTP/1.1, by which its end is told from a failure"), yaml);
    }
    let chunk = |row: Row| Bytes::copy_from_slice(row.get(0));
    // Headers wait for the first chunk: until then an error still has a status.
    let mut rows = match client.query_raw(&statement, Vec::<String>::new()).await {
        Ok(rows) => Box::pin(rows),
        Err(error) => return respond(refusal(&client, &error).await, yaml),
    };
    let first = match rows.try_next().await {
        Ok(first) => first.map(chunk),
        Err(error) => return respond(refusal(&client, &error).await, yaml),
    };
    let rest = stream::try_unfold((rows, client, cancel, first.is_none()), move |(mut rows, client, mut cancel, ended)| async move {
        let row = if ended { None } else { rows.try_next().await? };
        if row.is_none() {
            cancel.0 = None;
        }
        Ok::<_, Error>(row.map(|row| (chunk(row), (rows, client, cancel, false))))
    });
    // An error on the way breaks off the body, which no client of HTTP/1.1 takes for its end.
    build(answer.status, &answer.headers, Body::from_stream(stream::iter(first.map(Ok)).chain(rest)))
}

/// What `bulk.http` answers; the body is JSON.
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Option<String>,
}

async fn connect(mut config: Config, role: &str, password: &str) -> Result<(Client, CancelOnDrop), Error> {
    let (client, connection) = config.user(role).password(password).connect(NoTls).await?;
    let cancel = CancelOnDrop(Some((client.cancel_token(), tokio::spawn(connection).abort_handle())));
    Ok((client, cancel))
}

/// Calls `bulk.http`. Where it answers with a stream, its statement is for the same transaction; else that has been committed.
async fn call(client: &Client, head: &Parts, body: Option<String>) -> Result<(Answer, Option<String>), Error> {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let prefer: Vec<&str> = head.headers.get_all("prefer").iter().flat_map(|value| value.to_str()).collect();
    client.batch_execute("begin").await?;
    let query = "select status, headers::text, body::text, stream from bulk.http($1, $2, '{}', $3::text::jsonb, $4::text::jsonb)";
    let row = client.query_one(query, &[&head.method.as_str(), &target, &json!({ "prefer": prefer }).to_string(), &body]).await?;
    let statement: Option<String> = row.get(3);
    if statement.is_none() {
        client.batch_execute("commit").await?;
    }
    Ok((read_answer(&row), statement))
}

fn read_answer(row: &Row) -> Answer {
    Answer { status: row.get::<_, i32>(0) as u16, headers: serde_json::from_str(row.get(1)).unwrap_or_default(), body: row.get(2) }
}

/// The answer to an error of PostgreSQL's, as the extension would have it.
async fn refusal(client: &Client, error: &Error) -> Answer {
    let Some(told) = error.as_db_error() else { return unavailable(error) };
    let _ = client.batch_execute("rollback").await;
    let query = "select status, headers::text, body::text from bulk.http_error($1, $2)";
    let answer = client.query_one(query, &[&told.code().code(), &told.message()]).await;
    answer.map_or_else(|_| unavailable(error), |row| read_answer(&row))
}

fn unavailable(error: &Error) -> Answer {
    let (status, code) = if error.code().is_some_and(|code| code.code() == "42501") { (403, "forbidden") } else { (503, "transient") };
    outcome(status, code, &error.as_db_error().map_or_else(|| error.to_string(), |told| told.message().to_owned()))
}

fn outcome(status: u16, code: &str, text: &str) -> Answer {
    let body = json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "diagnostics": text}]});
    let headers = [("content-type", "application/fhir+json"), ("www-authenticate", "Basic realm=\"bulk\"")];
    let headers = headers.into_iter().take(if status == 401 { 2 } else { 1 });
    Answer { status, headers: headers.map(|(name, value)| (name.into(), value.into())).collect(), body: Some(body.to_string()) }
}

/// The body as JSON text: verbatim, or turned from YAML, whose numbers are doubles.
fn read(headers: &HeaderMap, bytes: &Bytes) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    if value(headers, header::CONTENT_TYPE).contains("yaml") {
        let read: Result<Value, _> = serde_saphyr::from_str(text);
        return read.map(|value| Some(value.to_string())).map_err(|error| format!("the body is not YAML: {error}"));
    }
    let read: Result<Value, _> = serde_json::from_str(text);
    read.map(|_| Some(text.to_owned())).map_err(|error| format!("the body is not JSON: {error}"))
}

fn value(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whoever asks for YAML, or writes it and takes anything.
fn wants_yaml(headers: &HeaderMap) -> bool {
    let accept = value(headers, header::ACCEPT);
    accept.contains("yaml") || (["", "*/*"].contains(&accept) && value(headers, header::CONTENT_TYPE).contains("yaml"))
}

fn respond(mut answer: Answer, yaml: bool) -> Response {
    let json = answer.body.unwrap_or_default();
    // What no YAML library here can hold stays JSON.
    let turned = serde_json::from_str::<Value>(&json).ok().filter(|_| yaml).and_then(|value| serde_saphyr::to_string(&value).ok());
    if turned.is_some() {
        answer.headers.insert("content-type".to_owned(), "text/yaml".to_owned());
    }
    build(answer.status, &answer.headers, Body::from(turned.unwrap_or(json)))
}

fn build(status: u16, headers: &HashMap<String, String>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = HeaderMap::try_from(headers).unwrap_or_default();
    response
}
