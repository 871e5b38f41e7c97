//! `bulk.load`: rows in, by every way into a table.

mod both_ways;
mod errors;
mod fast_writer;
mod formats;
mod framing;
mod functions;
mod memory;
mod options;
mod rejected_lines;
mod remote_sources;
mod round_trip;
mod stages;
mod swallowed;
mod versions;
