//! The verbs as pipelines: what runs on threads, in which order results come back, what bounds the memory. Knows the
//! database only through the small traits here.

pub mod aside;
pub mod batch;
pub mod checkpoint;
pub mod control;
pub mod crew;
pub mod csv;
pub mod dump;
pub mod examine;
pub mod export;
pub mod field;
pub mod gzip;
pub mod ids;
pub mod ledger;
pub mod line;
pub mod load;
pub mod option;
pub mod outbox;
pub mod params;
pub mod piece;
pub mod pipe;
pub mod policy;
pub mod queue;
pub mod rows;
pub mod seen;
pub mod sink;
pub mod spool;
