//! What an export was asked, as its job keeps it.

use crate::fhir::elements::Elements;
use crate::job::spec::Work;
use crate::store::bucket::Bucket;
use serde::{Deserialize, Serialize};

/// Exports tables, as of one moment.
#[derive(Debug, Serialize, Deserialize)]
pub struct Export {
    pub sink: ExportTarget,
    pub gzip: bool,
    /// Types and their tables, qualified and quoted.
    pub tables: Vec<(String, String)>,
    /// Of `ts`, in microseconds since 2000-01-01 UTC.
    pub since: Option<i64>,
    pub until: Option<i64>,
    pub scope: PatientScope,
    /// Types and searches of them.
    pub filters: Vec<(String, String)>,
    pub elements: Elements,
    pub file_rows: u64,
    /// In bytes.
    pub file_size: u64,
}

/// Whose resources are exported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum PatientScope {
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
pub struct ExportTarget {
    pub bucket: Bucket,
    /// The id of an account that is kept.
    pub account: Option<String>,
}

/// Deletes the files of an export.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cleanup {
    /// Number of the export.
    pub job: i64,
    pub sink: ExportTarget,
}

impl Work for Export {
    const NAME: &'static str = "export";
}

impl Work for Cleanup {
    const NAME: &'static str = "cleanup";
}
