//! Imports in the background, by SQL and by the calls of `aidbox.bulk`.

mod concurrency;
mod interruption;
mod requests;
mod rpc;
mod sources;
