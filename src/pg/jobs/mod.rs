//! Jobs as they are written down, and the workers that are started for them.

pub mod act;
pub mod entry;
pub mod look;
pub mod start;
