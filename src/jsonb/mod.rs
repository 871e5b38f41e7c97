//! JSON text and PostgreSQL's jsonb bytes, both ways, byte-equal to what the server makes. Pure: no server needed.

pub mod decode;
pub mod document;
pub mod encode;
pub mod numeric;
pub mod parse;
pub mod pglz;
pub mod scan;
pub mod text;
pub mod toast;
pub mod varlena;
