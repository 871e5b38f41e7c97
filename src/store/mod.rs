//! Where bytes live outside the database: `source` and `bucket` open them by URL, `object` has the stores, `net` the one HTTP client. What stands beside them
//! here is what all build on: accounts, opened sources, inflating. Runs on threads of its own and knows nothing of PostgreSQL.

pub mod account;
pub mod bucket;
pub mod file;
pub mod file_pattern;
pub mod inflate;
pub mod interrupt;
pub mod net;
pub mod object;
pub mod open_source;
pub mod redact;
pub mod source;
