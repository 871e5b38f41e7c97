//! Rows out: scans of tables, cursors, a caller's query, which may only read (`nested_query`). It hands blocks of raw rows to `pipeline::dump`, which makes text of them.

pub mod cursor_scan;
pub mod nested_query;
pub mod patient_ids;
pub mod query_printer;
pub mod table_scan;
