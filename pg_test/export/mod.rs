//! Exports: what is in the files, what faults do to them, what the IG asks for.

mod compartment;
mod faults;
mod files;
mod guide;
