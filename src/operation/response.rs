//! Answers as HTTP has them: what is refused comes with an OperationOutcome.

use crate::error::Error;
use crate::fhir::outcome::outcome;
use serde_json::{Map, Value, json};

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: Map<String, Value>,
    pub body: Value,
}

/// What is wrong with a request: of which parameter, in words, and FHIR's code for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub text: String,
    /// Where in the request, as FHIRPath.
    pub expression: Option<String>,
}

impl Refusal {
    /// A refusal with its HTTP status, FHIR's code of the issue, and a sentence.
    pub fn new(status: u16, code: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { status, code, text: text.into(), expression: None }
    }

    /// Of a path that is none.
    pub fn not_found() -> Refusal {
        Refusal::new(404, "not-found", "there is no such path")
    }

    /// The same, of that part of the request.
    pub fn at(self, expression: impl Into<String>) -> Refusal {
        Refusal { expression: Some(expression.into()), ..self }
    }
}

/// What is wrong with a call, as an answer or an error.
#[derive(Debug)]
pub enum Wrong {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Wrong {
        Wrong::Refused(refusal)
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Failed(error)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        Answer::new(refusal.status, outcome("error", refusal.code, &refusal.text, refusal.expression.as_deref()))
    }
}

impl Answer {
    /// An answer without headers.
    pub fn new(status: u16, body: Value) -> Answer {
        Answer { status, headers: Map::new(), body }
    }

    /// A refusal in a sentence, as imports have them.
    pub fn refuse(status: u16, message: impl Into<String>) -> Answer {
        Answer::new(status, json!({"message": message.into()}))
    }

    /// The same with a header.
    pub fn with(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.insert(name.to_owned(), json!(value.to_string()));
        self
    }

    /// As SQL takes it apart.
    pub fn into_json(self) -> Value {
        json!({"status": self.status, "headers": self.headers, "body": self.body})
    }
}
