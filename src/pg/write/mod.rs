//! Rows in: which way into a table, each of the ways, and the sinks that a load's batches end in. Batches are made by `pipeline::load`, on threads.

pub mod assemble;
pub mod batch_relation;
pub mod bulk_update;
pub mod checkpoint_sink;
pub mod conflict_writer;
pub mod counting_sink;
pub mod dangling_references;
pub mod deferred_index;
pub mod destination;
pub mod fast_writer;
pub mod group_sink;
pub mod heap_insert;
pub mod reference_check;
pub mod sql_writer;
pub mod staging_table;
pub mod table_router;
