//! `bulk`: moves FHIR resources in and out of PostgreSQL from inside the backend.
//!
//! The rooms, from the entrance down; a room imports from those below it only (`scripts/architecture/src.rules`), and each says in its `mod.rs` what
//! lives there:
//!
//! | room | |
//! |---|---|
//! | `api`, `api::http` | SQL functions, and the same operations by HTTP's method and path |
//! | `operation` | a folder a verb (bucket, export, import, validate): what may be asked, how it is submitted, controlled, reported, done |
//! | `job` | the job machine: a worker's loop, for any verb |
//! | `pg` | PostgreSQL: `write` and `read` rows, `state` (the extension's own tables), `process`, `catalog`, `sys` |
//! | `pipeline` | threads and bounded queues, without a database: `load`, `dump` |
//! | `store` | bytes outside the database: sources, buckets, the HTTP client |
//! | `fhir`, `text`, `jsonb` | FHIR; NDJSON and keys; PostgreSQL's jsonb |
//! | `retry`, `error` | what is tried again, and when; what can go wrong |
//!
//! Only this file, `api` and `pg` name pgrx, only `pg` has unsafe code; without the feature `server` the rooms from `pipeline` down build alone.
//!
//! A load goes `api::load` → `pg::write::assemble` → `pipeline::load::source_reader` (threads) → `pg::write::group_sink` → `pg::write::table_router`. A dump goes
//! `api::dump` → `pg::read::table_scan` → `pipeline::dump`. A job is submitted by `operation::*::submit` (or `control`), which enters it by `pg::state::job`; its
//! worker begins in `job::worker`, which claims tasks and hands each to `operation::work`.

#![cfg_attr(not(feature = "server"), forbid(unsafe_code))]

pub mod error;
pub mod fhir;
pub mod jsonb;
pub mod pipeline;
pub mod retry;
pub mod store;
pub mod text;

#[cfg(feature = "server")]
mod api;
#[cfg(feature = "server")]
mod job;
#[cfg(feature = "server")]
mod operation;
#[cfg(feature = "server")]
mod pg;

#[cfg(feature = "server")]
mod module {
    pgrx::pg_module_magic!(name, version);

    pgrx::extension_sql_file!("../sql/install/10_schemas.sql", name = "schemas");
    pgrx::extension_sql_file!("../sql/install/20_job.sql", name = "job", requires = ["schemas"]);
    pgrx::extension_sql_file!("../sql/install/30_load.sql", name = "load", requires = ["job"]);
    pgrx::extension_sql_file!("../sql/install/40_http.sql", name = "http", requires = ["load"]);
    pgrx::extension_sql_file!("../sql/install/50_import.sql", name = "import", requires = ["http"]);
    pgrx::extension_sql_file!("../sql/install/60_bucket.sql", name = "bucket", requires = ["import"]);
    pgrx::extension_sql_file!("../sql/install/70_export.sql", name = "export", requires = ["bucket"]);
    pgrx::extension_sql_file!("../sql/install/80_storage.sql", name = "storage", requires = ["export"]);
    pgrx::extension_sql_file!("../sql/install/90_dump.sql", name = "dump", requires = ["storage"]);
    pgrx::extension_sql_file!("../sql/install/99_rights.sql", name = "rights", requires = ["dump"]);

    /// Called when a backend loads the library.
    #[pgrx::pg_guard]
    pub extern "C-unwind" fn _PG_init() {
        crate::pg::sys::version::warn_of_older_server();
        crate::pg::sys::backend::leave_out_backtraces();
        crate::pg::sys::guc::register();
        crate::pg::process::launcher::register();
    }

    /// Where a background worker begins.
    #[pgrx::pg_guard]
    #[unsafe(no_mangle)]
    pub extern "C-unwind" fn bulk_worker(_arg: pgrx::pg_sys::Datum) {
        crate::job::worker::main(crate::operation::work::open);
    }

    /// Where the launcher begins.
    #[pgrx::pg_guard]
    #[unsafe(no_mangle)]
    pub extern "C-unwind" fn bulk_launcher(_arg: pgrx::pg_sys::Datum) {
        crate::pg::process::launcher::main();
    }
}
