//! Background workers, by the jobs that validate: for whom they work, and what can happen to them.

mod cancel;
mod lifetime;
mod rights;
mod shares;
