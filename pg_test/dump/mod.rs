//! `bulk.dump`, `bulk.dump_csv`, `bulk.dump_sql`: rows out.

mod csv;
mod ndjson;
mod query;
