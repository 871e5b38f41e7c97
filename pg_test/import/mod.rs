//! Imports in the background, by SQL and by the calls of `aidbox.bulk`.

mod rpc;
mod sessions;
