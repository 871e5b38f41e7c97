//! The account at Amazon that the machine has: by the environment's variables, of its container, of its instance's role. In the order and by
//! the names of Amazon's own libraries.

use crate::error::SourceFault;
use crate::store::account::AwsAccount;
use crate::store::interrupt::Interrupt;
use crate::store::net::client::{self, Client};
use crate::store::net::client_config::ClientConfig;
use crate::store::net::ip_policy::Allowed;
use serde::Deserialize;
use std::time::Duration;
use ureq::http::{Method, Request};

/// Where an instance asks about itself, and a container: both only from within.
const INSTANCE: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";
/// Bytes of an answer.
const MAX_BODY_BYTES: u64 = 64 << 10;

/// A variable of the environment.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

/// The account of the server's machine.
///
/// # Errors
/// `NoAccount` where none of the ways leads to credentials; that of the last of them.
pub fn account(interrupt: &Interrupt) -> Result<AwsAccount, SourceFault> {
    find(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()), interrupt)
}

fn find(variable: Variable, interrupt: &Interrupt) -> Result<AwsAccount, SourceFault> {
    // It is the machine's own, and no user named it.
    let (connect_timeout, read_timeout) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(5)));
    let access = ClientConfig { allowed_hosts: Allowed::parse("*"), connect_timeout, read_timeout, retries: 2, ..ClientConfig::default() };
    let client = Client::new(&access, interrupt);
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let (found, region) = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key_id), Some(secret_access_key)) => {
            (Credentials { access_key_id, secret_access_key, token: variable("AWS_SESSION_TOKEN") }, region)
        }
        _ => match container(variable)? {
            Some((url, token)) => {
                let headers: Vec<(&str, &str)> = token.iter().map(|token| ("authorization", token.as_str())).collect();
                (credentials(&ask(&client, Method::GET, &url, &headers)?)?, region)
            }
            None => instance(&client, variable, region)?,
        },
    };
    Ok(AwsAccount {
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: found.access_key_id,
        secret_access_key: found.secret_access_key,
        session_token: found.token,
        host: variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")),
        path_style: None,
        use_ssl: None,
    })
}

/// Where a container asks for its credentials, and with what.
fn container(variable: Variable) -> Result<Option<(String, Option<String>)>, SourceFault> {
    let url = match (variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        (Some(path), _) => format!("{CONTAINER}{path}"),
        (None, Some(url)) => url,
        (None, None) => return Ok(None),
    };
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => Some(std::fs::read_to_string(file).map_err(crate::store::file::fault)?.trim().to_owned()),
        None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    Ok(Some((url, token)))
}

/// The role of an instance, asked with a token of its own (IMDSv2).
fn instance(client: &Client, variable: Variable, region: Option<String>) -> Result<(Credentials, Option<String>), SourceFault> {
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(SourceFault::NoAccount);
    }
    let host = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| INSTANCE.to_owned());
    let data = format!("{}/latest/meta-data", host.trim_end_matches('/'));
    let token = format!("{}/latest/api/token", host.trim_end_matches('/'));
    let token = ask(client, Method::PUT, &token, &[("x-aws-ec2-metadata-token-ttl-seconds", "300")])?;
    let headers = [("x-aws-ec2-metadata-token", token.as_str())];
    let roles = ask(client, Method::GET, &format!("{data}/iam/security-credentials/"), &headers)?;
    let role = roles.lines().next().filter(|role| !role.is_empty()).ok_or(SourceFault::NoAccount)?;
    let found = credentials(&ask(client, Method::GET, &format!("{data}/iam/security-credentials/{role}"), &headers)?)?;
    let region = match region {
        Some(region) => Some(region),
        None => Some(ask(client, Method::GET, &format!("{data}/placement/region"), &headers)?.trim().to_owned()),
    };
    Ok((found, region))
}

fn credentials(text: &str) -> Result<Credentials, SourceFault> {
    serde_json::from_str(text).map_err(|_| client::unknown())
}

fn ask(client: &Client, method: Method, url: &str, headers: &[(&str, &str)]) -> Result<String, SourceFault> {
    let response = client.ask(|agent| {
        let mut request = Request::builder().method(&method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client::send(agent, request, (!method.is_safe()).then_some(&[]))
    })?;
    match response.status().as_u16() {
        200 => response.into_body().into_with_config().limit(MAX_BODY_BYTES).read_to_string().map_err(client::fault),
        // It has no role.
        404 => Err(SourceFault::NoAccount),
        status => Err(SourceFault::Refused { status, code: client::code_of(status) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object::suite::servers::read_head;
    use std::collections::HashMap;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// A service that answers by the first line of a request, and what it was asked.
    fn serve(answers: &'static [(&'static str, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for _ in answers {
                let (mut client, _) = listener.accept().unwrap();
                let head = read_head(&mut client).to_lowercase();
                let answer = answers.iter().find(|(line, _)| head.starts_with(&format!("{} ", line.to_lowercase())));
                let (status, body) = answer.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                // Counted before the answer is sent, since the caller looks at once.
                seen.lock().unwrap().push(head);
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        (host, asked)
    }

    fn with(variables: &[(&str, &str)]) -> Result<AwsAccount, SourceFault> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        find(&|name| variables.get(name).map(|value| (*value).to_owned()), &Interrupt::new())
    }

    #[test]
    fn variables_come_first() {
        let account = with(&[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL", "http://minio:9000"),
        ])
        .unwrap();
        assert_eq!((account.access_key_id.as_str(), account.session_token.as_deref()), ("id", Some("token")));
        assert_eq!((account.region.as_str(), account.host.as_deref()), ("eu-west-1", Some("http://minio:9000")));
        assert_eq!(with(&[("AWS_EC2_METADATA_DISABLED", "true")]), Err(SourceFault::NoAccount));
    }

    #[test]
    fn a_container_is_asked_with_its_token() {
        let (host, asked) = serve(&[("GET /v1/credentials", r#"{"AccessKeyId": "id", "SecretAccessKey": "secret", "Token": "session"}"#)]);
        let url = format!("{host}/v1/credentials");
        let account =
            with(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let-me-in"), ("AWS_REGION", "r")]);
        assert_eq!(account.unwrap().session_token.as_deref(), Some("session"));
        assert!(asked.lock().unwrap()[0].contains("authorization: let-me-in"));
    }

    #[test]
    fn an_instance_is_asked_for_its_role() {
        let (host, asked) = serve(&[
            ("PUT /latest/api/token", "the-token"),
            ("GET /latest/meta-data/iam/security-credentials/", "the-role"),
            (
                "GET /latest/meta-data/iam/security-credentials/the-role",
                r#"{"AccessKeyId": "id", "SecretAccessKey": "secret", "Token": "session"}"#,
            ),
            ("GET /latest/meta-data/placement/region", "eu-central-1"),
        ]);
        let account = with(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &host)]).unwrap();
        assert_eq!((account.region.as_str(), account.access_key_id.as_str()), ("eu-central-1", "id"));
        let asked = asked.lock().unwrap();
        assert!(
            asked[0].contains("x-aws-ec2-metadata-token-ttl-seconds")
                && asked[1..].iter().all(|head| head.contains("x-aws-ec2-metadata-token: the-token"))
        );
    }
}
