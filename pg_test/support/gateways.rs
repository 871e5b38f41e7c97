//! The gateway of `examples/gateway` as tests run it.

use crate::support::cluster::{Cluster, Database};
use crate::support::front::Front;
use crate::support::servers::Server;
use std::path::PathBuf;
use std::process::Command;

/// The gateway before a database.
pub fn gateway(cluster: &Cluster, database: &Database) -> Server {
    let database = format!("{} options='-c bulk.export_file_rows=500'", cluster.keywords(&database.name));
    Server::start(|port| {
        let mut command = Command::new(program());
        command.arg(format!("127.0.0.1:{port}")).arg(&database);
        command
    })
}

pub fn asker(gateway: &Server, authorization: &str) -> Front {
    Front { base: format!("http://127.0.0.1:{}", gateway.port), authorization: Some(authorization.to_owned()) }
}

pub fn program() -> PathBuf {
    std::env::var_os("BULK_GATEWAY").expect("BULK_GATEWAY is set by make test").into()
}
