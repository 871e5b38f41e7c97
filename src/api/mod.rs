//! The SQL surface, one verb a file: read the arguments, check the rights, call, return. The signatures stand in `sql/`.

pub mod account;
pub mod bucket;
pub mod create_resource_table;
pub mod dump;
pub mod dump_csv;
pub mod dump_sql;
pub mod export;
mod http;
pub mod import;
pub mod job;
pub mod load;
pub mod option;
pub mod rpc;
mod stage;
pub mod validate;
