//! Rows in: which way into a table, each of the ways, and the sinks that a load's batches end in. Batches are made by `pipeline::load`, on threads.
//!
//! `table_router` chooses by which way rows go into a table: `fast_writer` (`heap_insert`, `deferred_entries` for its index, `bulk_update` for rows that
//! exist), `sql_writer` (the one INSERT, which also says what a row's status becomes), `conflict_writer` (history, skip, error, newer). `group_sink`
//! writes one group of batches, strictly or finding the lines that are refused; `checkpoint_sink` commits the groups of an import one after
//! another, each tried again after a conflict. `staging_table` finds, merges and drops stages; `catalog::ddl` creates their tables.

pub mod assemble;
pub mod batch_relation;
pub mod bulk_update;
pub mod checkpoint_sink;
pub mod conflict_writer;
pub mod counting_sink;
pub mod dangling_references;
pub mod deferred_entries;
pub mod destination;
pub mod fast_writer;
pub mod group_sink;
pub mod heap_insert;
pub mod reference_check;
pub mod sql_writer;
pub mod staging_table;
pub mod table_router;
