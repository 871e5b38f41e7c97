//! Jobs as they are written down, and the workers that are started for them.

mod act;
mod entry;
mod look;
mod start;

pub use act::{Standing, Stop, cancel, go_on, latest, one_after_another, standing, stop, supersede};
pub use entry::{Job, Order, activity, begin, end, enter, fail, is_wanted, open, origin, plan, role};
pub use look::{is_held, live, of_bucket, rejected, report};
pub use start::{WORKERS, call, next, resume_all, resume_interrupted, start_more, start_waiting, workers};
