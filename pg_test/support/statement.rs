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

/// What a statement that must fail says.
pub fn failure(client: &mut Client, statement: &str) -> Failure {
    Failure::of(&client.batch_execute(statement).expect_err(statement))
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

impl Failure {
    /// Of an error of the server's.
    pub fn of(error: &postgres::Error) -> Failure {
        let said = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
        Failure {
            code: said.code().code().to_owned(),
            message: said.message().to_owned(),
            detail: said.detail().unwrap_or_default().to_owned(),
            hint: said.hint().unwrap_or_default().to_owned(),
            constraint: said.constraint().unwrap_or_default().to_owned(),
            context: said.where_().unwrap_or_default().to_owned(),
        }
    }
}

/// The one value of a query, as text.
pub fn value(client: &mut Client, query: &str) -> String {
    let row = client.query_one(&format!("select ({query})::text"), &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "null".to_owned())
}
