//! What happens to the server meanwhile: crashes, shutdowns, other versions, other roles.

mod attacker;
mod hostile_owner;
mod installation;
mod killed_imports;
mod rights;
mod secrets;
mod shutdown;
mod unfinished;
mod version;
mod waits;
