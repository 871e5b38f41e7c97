//! What `bulk.http` answers.

use crate::operation::response::{Answer, Refusal};
use serde_json::{Map, Value, json};

/// An HTTP answer, its body JSON text or made by a statement.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Map<String, Value>,
    pub body: Option<String>,
    /// One statement whose one column, of type bytea, is the body in chunks.
    pub stream: Option<String>,
}

impl Reply {
    /// One whose body is JSON, as text.
    pub fn json(status: u16, body: String) -> Reply {
        let headers = Map::from_iter([("content-type".to_owned(), json!("application/json"))]);
        Reply { status, headers, body: Some(body), stream: None }
    }

    /// One whose body a statement makes.
    pub fn stream(statement: String, content_type: &str, gzip: bool) -> Reply {
        let mut headers = Map::from_iter([("content-type".to_owned(), json!(content_type))]);
        if gzip {
            headers.insert("content-encoding".to_owned(), json!("gzip"));
        }
        Reply { status: 200, headers, body: None, stream: Some(statement) }
    }

    /// The same with a header.
    pub fn with(mut self, name: &str, value: String) -> Reply {
        self.headers.insert(name.to_owned(), json!(value));
        self
    }

    /// As SQL takes it apart.
    pub fn into_json(self) -> String {
        let body = self.body.as_deref().unwrap_or("null");
        let stream = json!(self.stream);
        format!("{{\"status\":{},\"headers\":{},\"body\":{body},\"stream\":{stream}}}", self.status, Value::Object(self.headers))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        let Answer { status, mut headers, body } = answer;
        if !body.is_null() {
            let is_outcome = body["resourceType"] == "OperationOutcome";
            let content_type = if is_outcome { "application/fhir+json" } else { "application/json" };
            headers.entry("content-type").or_insert_with(|| json!(content_type));
        }
        Reply { status, headers, body: (!body.is_null()).then(|| body.to_string()), stream: None }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Answer::from(refusal).into()
    }
}
