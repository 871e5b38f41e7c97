//! `bulk`: moves FHIR resources in and out of PostgreSQL from inside the backend.
//!
//! `api` (SQL functions) and `job` (what background workers do) call `op` (the verbs as pipelines), which stands on `jsonb`, `fhir` and `store`; `pg` is
//! PostgreSQL, the only home of unsafe code, and implements `op`'s traits. `error` is at the bottom. Only this file, `api` and
//! `pg` name pgrx; without the feature `server` the rest builds alone.

#![cfg_attr(not(feature = "server"), forbid(unsafe_code))]

pub mod error;
pub mod fhir;
pub mod jsonb;
pub mod op;
pub mod store;

#[cfg(feature = "server")]
mod api;
#[cfg(feature = "server")]
mod job;
#[cfg(feature = "server")]
mod pg;

#[cfg(feature = "server")]
mod module {
    pgrx::pg_module_magic!(name, version);

    pgrx::extension_sql_file!("../sql/install/10_functions.sql", name = "functions");
    pgrx::extension_sql_file!("../sql/install/20_tables.sql", name = "tables", requires = ["functions"]);

    /// Called when a backend loads the library.
    #[pgrx::pg_guard]
    pub extern "C-unwind" fn _PG_init() {
        crate::pg::version::warn_of_older_server();
        crate::pg::setting::register();
        crate::pg::launcher::register();
    }

    /// Where a background worker begins.
    #[pgrx::pg_guard]
    #[unsafe(no_mangle)]
    pub extern "C-unwind" fn bulk_worker(_arg: pgrx::pg_sys::Datum) {
        crate::job::worker::main();
    }

    /// Where the launcher begins.
    #[pgrx::pg_guard]
    #[unsafe(no_mangle)]
    pub extern "C-unwind" fn bulk_launcher(_arg: pgrx::pg_sys::Datum) {
        crate::pg::launcher::main();
    }
}
