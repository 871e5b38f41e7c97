//! One statement and its value, or its error; and conditions that come true.

use postgres::Client;
use std::time::{Duration, Instant};

/// Waits for a condition, at most half a minute: a machine may be busy.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The SQLSTATE, message, detail and constraint of a statement that must fail.
pub fn failure(client: &mut Client, statement: &str) -> Failure {
    let error = client.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    Failure {
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().unwrap_or_default().to_owned(),
        hint: error.hint().unwrap_or_default().to_owned(),
        constraint: error.constraint().unwrap_or_default().to_owned(),
        context: error.where_().unwrap_or_default().to_owned(),
    }
}

#[derive(Debug)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    pub constraint: String,
    pub context: String,
}

/// The one value of a query, as text.
pub fn value(client: &mut Client, query: &str) -> String {
    let row = client.query_one(&format!("select ({query})::text"), &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "null".to_owned())
}
