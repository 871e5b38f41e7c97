//! `bulk.http`: every operation of the Bulk API by method, path and query, so that an HTTP layer forwards without knowing FHIR.

mod call;
mod reply;
mod request;
mod route;
mod stream;
