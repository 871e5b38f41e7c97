//! `bulk.http`, and HTTP layers before it.

mod documents;
mod gateway;
mod operations;
mod postgrest;
mod readme;
mod requests;
