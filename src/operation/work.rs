//! Which verb a job is of.

use crate::error::Error;
use crate::job::spec::JobSpec;
use crate::job::worker::Operation;
use crate::operation::bucket::spec::BucketLoad;
use crate::operation::export::spec::{Cleanup, Export};
use crate::operation::export::work::Exporting;
use crate::operation::import::spec::Import;
use crate::operation::validate::Validate;

/// The verb that a job is of, with what it was asked.
///
/// # Errors
/// `Internal` if the job is of a later version of the extension.
pub fn open(spec: &JobSpec) -> Result<Box<dyn Operation>, Error> {
    if let Some(import) = spec.work::<Import>()? {
        return Ok(Box::new(import));
    }
    if let Some(load) = spec.work::<BucketLoad>()? {
        return Ok(Box::new(load));
    }
    if let Some(export) = spec.work::<Export>()? {
        return Ok(Box::new(Exporting::new(export)));
    }
    if let Some(cleanup) = spec.work::<Cleanup>()? {
        return Ok(Box::new(cleanup));
    }
    match spec.work::<Validate>()? {
        Some(validate) => Ok(Box::new(validate)),
        None => Err(JobSpec::unreadable()),
    }
}
