//! Imports: sources loaded in the background, each from checkpoint to checkpoint. A *session* is a job of the kind `import`, an *input* a task of it: one
//! source of one type.

pub mod control;
pub mod divide;
pub mod request;
pub mod rpc;
pub mod spec;
pub mod status;
pub mod work;
