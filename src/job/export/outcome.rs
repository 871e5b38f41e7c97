//! Answers as HTTP has them: what is refused comes with an OperationOutcome.

use crate::error::Error;
use crate::op::export::outcome;
use crate::pg::report;
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
    pub fn new(status: u16, code: &'static str, text: impl Into<String>) -> Refusal {
        Refusal { status, code, text: text.into(), expression: None }
    }

    /// The same, of that part of the request.
    pub fn at(self, expression: impl Into<String>) -> Refusal {
        Refusal { expression: Some(expression.into()), ..self }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        Answer::new(refusal.status, outcome("error", refusal.code, &refusal.text, refusal.expression.as_deref()))
    }
}

impl Answer {
    pub fn new(status: u16, body: Value) -> Answer {
        Answer { status, headers: Map::new(), body }
    }

    /// The same with a header.
    pub fn with(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.insert(name.to_owned(), json!(value.to_string()));
        self
    }

    /// What a request can be the cause of; anything else stays an error.
    pub fn of_error(error: Error) -> Result<Answer, Error> {
        let (status, code) = match &error {
            Error::MissingRole { .. } | Error::ForeignJob | Error::Unreadable(_) => (403, "forbidden"),
            Error::NoJob(_) => (404, "not-found"),
            Error::WrongShape { .. } | Error::InvalidType(_) | Error::NoUpdateTime(_) | Error::InvalidOption { .. } => (400, "invalid"),
            Error::UnknownType(_) => (400, "not-supported"),
            Error::Source { .. } | Error::NoAccount { .. } | Error::NoAccountSecret { .. } | Error::WhichAccount(_) => (500, "exception"),
            Error::Server { sqlstate, .. } if report::sqlstate(*sqlstate) == "42501" => (403, "forbidden"),
            _ => return Err(error),
        };
        Ok(Refusal::new(status, code, error.to_string()).into())
    }
}
