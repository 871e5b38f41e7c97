//! What a resource table is: found, described, created, and whether rows may go into it past the executor. It reads and writes no resource.

pub mod ddl;
pub mod fast_path_check;
pub mod resource_table;
pub mod toast_rule;
pub mod txid_sequence;
