//! The verbs: what may be asked for, how it is submitted, controlled, reported and done. One folder a verb, and beside them what verbs share: answers,
//! statuses, the configured storage. Neither SQL arguments nor rows: those are of `api` and `pg`.

pub mod bucket;
pub mod bucket_access;
pub mod export;
pub mod http_status;
pub mod import;
pub mod loader_error;
pub mod response;
pub mod storage;
pub mod validate;
pub mod work;
