//! Commands of a shell, such as COPY and psql.

use crate::support::cluster::{Database, server_directory};
use std::os::unix::fs::PermissionsExt;

/// Runs a README line in a directory of its own, with psql pointed at the test's database.
pub fn run_in_shell(database: &Database, line: &str) -> tempfile::TempDir {
    let directory = server_directory();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let psql = database.psql();
    let arguments: Vec<String> = psql.get_args().map(|argument| format!("'{}'", argument.to_str().unwrap())).collect();
    let function = format!("psql() {{ '{}' {} \"$@\"; }}", psql.get_program().to_str().unwrap(), arguments.join(" "));
    let output =
        std::process::Command::new("bash").args(["-euc", &format!("{function}\n{line}")]).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    directory
}
