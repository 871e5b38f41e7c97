//! Validation of resources, beside other validators.

mod resources;
