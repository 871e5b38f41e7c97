//! The server without FHIR: settings, users, subtransactions (and which errors are a row's fault), error reports, waiting, locks, memory, statements,
//! results of set-returning functions as rows or in chunks. What a table holds, or a job is, is above.

pub mod advisory_lock;
pub mod argument;
pub mod backend;
pub mod compat;
pub mod ephemeral_relation;
pub mod error_context;
pub mod guc;
pub mod kept_settings;
pub mod latch;
pub mod lock_holder;
pub mod memory_context;
pub mod owner_sql;
pub mod padded;
pub mod privilege;
pub mod progress_copy;
pub mod random;
pub mod sql;
pub mod sqlstate;
pub mod srf_result;
pub mod subtransaction;
pub mod switch_user;
pub mod temp_file;
pub mod timer;
pub mod unguarded;
pub mod version;
