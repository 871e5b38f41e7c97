//! What an import was asked, as its job keeps it.

use crate::job::spec::Work;
use serde::{Deserialize, Serialize};

/// Loads the sources that are the job's tasks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Import {
    /// Whether lines are in FHIR format.
    pub fhir: bool,
    /// Whether the request, and so the status, has the shape of 2019.
    pub of_2019: bool,
    /// Whether all tasks are one transaction.
    pub transaction: bool,
    /// Times that a task is begun again after a fault of its source.
    pub retries: u32,
    /// Of the load, as JSON, but for what follows.
    pub options: String,
    /// Whether an object is laid over every resource: the secret `merge`.
    pub has_merge: bool,
    /// The text of an object that is laid over every `meta`.
    pub meta: Option<String>,
    /// What ids and references to them get before them.
    pub id_prefix: Option<String>,
    /// Of the tasks in their order; None where it holds a secret, which is kept apart, as headers are.
    pub urls: Vec<Option<String>>,
    /// Whether requests have headers of their own: the secret `headers`.
    pub has_headers: bool,
}

impl Work for Import {
    const NAME: &'static str = "import";
}
