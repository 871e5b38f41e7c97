//! Where bytes live outside the database, and how they come in. Runs on threads of its own; knows nothing of PostgreSQL.

pub mod address;
pub mod file;
pub mod http;
pub mod inflate;
pub mod interrupt;
pub mod opened;
pub mod source;

pub use interrupt::Interrupt;
pub use source::Source;
