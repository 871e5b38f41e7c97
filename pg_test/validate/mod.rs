//! Validation of resources, beside other validators, and of what is stored.

mod resources;
mod stored;
