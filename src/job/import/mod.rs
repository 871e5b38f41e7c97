//! Import: sources loaded in the background, each from checkpoint to checkpoint.
//!
//! A *session* is a job of the kind `import`; an *input* is a part of it, one source of one type.

pub mod action;
pub mod divide;
pub mod request;
pub mod rpc;
pub mod run;
pub mod status;
