//! What a job's workers go by, as it is kept from the call that asks for it until the job ends.

use crate::error::Error;
use crate::fhir::elements::Elements;
use crate::store::bucket::Bucket;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Of the session that asked, by name.
    pub settings: BTreeMap<String, String>,
    pub work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    Validate(Validate),
    Import(Import),
    Bucket(BucketLoad),
    Export(Export),
    Cleanup(Cleanup),
}

/// Exports tables, as of one moment.
#[derive(Debug, Serialize, Deserialize)]
pub struct Export {
    pub sink: Sink,
    pub gzip: bool,
    /// Types and their tables, qualified and quoted.
    pub tables: Vec<(String, String)>,
    /// Of `ts`, in microseconds since 2000-01-01 UTC.
    pub since: Option<i64>,
    pub until: Option<i64>,
    pub whose: Whose,
    /// Types and searches of them.
    pub filters: Vec<(String, String)>,
    pub elements: Elements,
    pub file_rows: u64,
    /// In bytes.
    pub file_size: u64,
}

/// Whose resources are exported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Whose {
    Everybodys,
    AllPatients,
    /// By their ids.
    Patients(Vec<String>),
    Members {
        group: String,
        /// The table of Groups.
        table: String,
        /// Of them only these, if any are named.
        of_them: Option<Vec<String>>,
        /// Whether the Group's own resource is asked for.
        with_group: bool,
    },
}

/// Where files go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sink {
    pub bucket: Bucket,
    /// The id of an account that is kept.
    pub account: Option<String>,
}

/// Deletes the files of an export.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cleanup {
    /// Number of the export.
    pub job: i64,
    pub sink: Sink,
}

/// Loads the sources that are the job's parts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Import {
    /// Whether lines are in FHIR format.
    pub fhir: bool,
    /// Whether the request, and so the status, has the shape of 2019.
    pub of_2019: bool,
    /// Whether all parts are one transaction.
    pub transaction: bool,
    /// Times that a part is begun again after a fault of its source.
    pub retries: u32,
    /// Of the load, as JSON, but for what follows.
    pub options: String,
    /// The text of an object that is laid over every resource.
    pub merge: Option<String>,
    /// The text of an object that is laid over every `meta`.
    #[serde(default)]
    pub meta: Option<String>,
    /// What ids and references to them get before them.
    #[serde(default)]
    pub id_prefix: Option<String>,
    /// Of the parts in their order; None where it holds a secret, which is kept apart, as headers are.
    pub urls: Vec<Option<String>>,
    pub has_headers: bool,
}

/// Loads the files of a bucket that are the job's parts.
#[derive(Debug, Serialize, Deserialize)]
pub struct BucketLoad {
    pub bucket: Bucket,
    /// Whether lines are in FHIR format.
    pub fhir: bool,
    /// Whether resources that are there are written over.
    pub upsert: bool,
    /// Whether the tables may be without their keys.
    pub drop_key: bool,
    /// In milliseconds.
    pub connect_timeout: Option<u64>,
    pub read_timeout: Option<u64>,
    /// The id of an account that is kept; one that was given with the call is kept apart.
    pub account: Option<String>,
    pub has_secret: bool,
}

/// Looks through the tables that are the job's parts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Validate {
    pub structure: bool,
    pub references: bool,
    /// Rows of this `ts` only, in microseconds since 2000-01-01 UTC.
    pub written_at: Option<i64>,
    /// Invalid resources at which it ends.
    pub max_errors: Option<u64>,
}

impl Plan {
    pub fn to_json(&self) -> Result<Value, Error> {
        serde_json::to_value(self).map_err(|error| Error::Internal(error.to_string()))
    }

    pub fn from_json(value: Value) -> Result<Plan, Error> {
        serde_json::from_value(value).map_err(|_| Error::Internal("the plan of the job is not one of this version".to_owned()))
    }
}
