//! What a job was asked, as it is kept from the call that asks for it until the job ends.

use crate::error::Error;
use crate::pg::sys::kept_settings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of what is kept. A job that waits survives an upgrade: a library reads the versions before its own as well.
const VERSION: u32 = 2;

/// What a verb keeps of what it was asked.
pub trait Work: Serialize + DeserializeOwned {
    /// Names the verb in what is kept.
    const NAME: &'static str;
}

/// What a job was asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobSpec {
    version: u32,
    /// Of the session that asked, by name.
    pub settings: BTreeMap<String, String>,
    verb: String,
    work: Value,
}

impl JobSpec {
    /// # Errors
    /// `Internal` if JSON cannot hold it.
    pub fn new<W: Work>(settings: BTreeMap<String, String>, work: &W) -> Result<JobSpec, Error> {
        let work = serde_json::to_value(work).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(JobSpec { version: VERSION, settings, verb: W::NAME.to_owned(), work })
    }

    /// What is kept in `bulk_internal.job_spec`.
    ///
    /// # Errors
    /// `Internal` if JSON cannot hold it.
    pub fn to_json(&self) -> Result<Value, Error> {
        serde_json::to_value(self).map_err(|error| Error::Internal(error.to_string()))
    }

    /// # Errors
    /// `Internal` if it is of a later version of the extension.
    pub fn from_json(value: Value) -> Result<JobSpec, Error> {
        let spec: Option<JobSpec> = serde_json::from_value(value).ok();
        let mut spec = spec.filter(|spec| spec.version <= VERSION).ok_or_else(JobSpec::unreadable)?;
        if spec.version < 2 {
            // They were kept whether a session had set them or not.
            kept_settings::forget_doors(&mut spec.settings);
        }
        Ok(spec)
    }

    /// What a verb was asked; None where the job is another's.
    ///
    /// # Errors
    /// `Internal` if it is of a later version of the extension.
    pub fn work<W: Work>(&self) -> Result<Option<W>, Error> {
        if self.verb != W::NAME {
            return Ok(None);
        }
        W::deserialize(&self.work).map(Some).map_err(|_| JobSpec::unreadable())
    }

    /// A job of a later version.
    pub fn unreadable() -> Error {
        Error::Internal("the plan of the job is not one of this version".to_owned())
    }
}
