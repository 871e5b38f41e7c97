//! What a load of a bucket was asked, as its job keeps it.

use crate::job::spec::Work;
use crate::store::bucket::Bucket;
use serde::{Deserialize, Serialize};

/// Loads the files of a bucket that are the job's tasks.
#[derive(Debug, Serialize, Deserialize)]
pub struct BucketLoad {
    pub bucket: Bucket,
    /// The server that the bucket was on when it was listed, as `BucketPlace` has it.
    pub endpoint: String,
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

impl Work for BucketLoad {
    const NAME: &'static str = "bucket";
}
