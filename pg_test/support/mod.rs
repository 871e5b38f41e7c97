//! What tests share: clusters and databases, real servers, sources that misbehave, faults that happen to a server, and how a test is registered. No test.

pub mod buckets;
pub mod cluster;
pub mod exports;
pub mod faults;
pub mod front;
pub mod gateways;
pub mod imports;
pub mod integrity;
pub mod jobs;
pub mod memory_peak;
pub mod proxy;
pub mod real_data;
pub mod servers;
pub mod shell;
pub mod source;
pub mod statement;
pub mod trial;
