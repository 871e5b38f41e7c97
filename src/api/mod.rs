//! SQL functions. Each reads its arguments, checks rights, calls one operation and returns; the signatures stand in `sql/install`. `http` beside them serves
//! the same operations by method and path. No operation is done here.

pub mod account;
pub mod bucket;
pub mod create_resource_table;
pub mod dump;
pub mod dump_csv;
pub mod dump_sql;
pub mod export;
pub mod http;
pub mod import;
pub mod job;
pub mod load;
pub mod option;
pub mod rpc;
pub mod stage;
pub mod validate;
