//! The real data of `../shared/data`.

use crate::support::cluster::Database;
use std::path::Path;
use std::process::{Command, Stdio};

/// Reads the lines of a gzip into the table `source`, by psql and the server's own JSON parser.
pub fn copy_source(database: &Database, gz: &Path) {
    let mut zcat = Command::new("zcat").arg(gz).stdout(Stdio::piped()).spawn().expect("zcat runs");
    let lines = zcat.stdout.take().unwrap();
    let copy = "\\copy source (j) from pstdin with (format csv, quote e'\\x01', delimiter e'\\x02')";
    let output = database.psql().args(["-c", copy]).stdin(lines).output().expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(zcat.wait().unwrap().success());
}
