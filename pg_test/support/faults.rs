//! Faults that a test has happen to a server: killed workers, killed postmasters.

use crate::support::cluster::{Database, checked};
use crate::support::statement::wait_until;
use postgres::Client;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Times that something happens.
pub fn rounds(default: u32) -> u32 {
    std::env::var("BULK_TEST_CRASHES").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

/// Numbers that repeat.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// What happens to the server.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// kill -9: the postmaster starts all processes anew.
    WorkerKilled,
    WorkerTerminated,
    ImmediateStop,
    PostmasterKilled,
}

pub const FAULTS: [Fault; 4] = [Fault::WorkerKilled, Fault::WorkerTerminated, Fault::ImmediateStop, Fault::PostmasterKilled];

/// Has it happen to a worker, or to its server, and comes back to the database; false if the worker had ended before.
pub fn happen(fault: Fault, pid: &str, database: &Database, client: &mut Client) -> bool {
    let cluster = database.cluster;
    match fault {
        Fault::WorkerKilled => {
            let before = cluster.log().matches("all server processes terminated; reinitializing").count();
            if !kill(pid) {
                return false;
            }
            wait_until("the server has noticed", || {
                cluster.log().matches("all server processes terminated; reinitializing").count() > before
            });
            wait_until("the cluster has recovered", || database.try_connect().is_some());
            *client = database.connect();
        }
        Fault::WorkerTerminated => client.batch_execute(&format!("select pg_terminate_backend({pid})")).unwrap(),
        Fault::ImmediateStop => {
            cluster.stop("immediate");
            cluster.boot();
            *client = database.connect();
        }
        Fault::PostmasterKilled => {
            let postmaster = fs::read_to_string(cluster.data_directory().join("postmaster.pid")).unwrap();
            checked(Command::new("kill").args(["-9", postmaster.lines().next().unwrap()]));
            wait_until("its processes are gone", || !Path::new(&format!("/proc/{pid}")).exists());
            wait_until("the cluster can start", || cluster.try_boot());
            *client = database.connect();
        }
    }
    true
}

/// kill -9; false if it had ended by itself, of which the server makes nothing.
pub fn kill(pid: &str) -> bool {
    let signal = |name: &str| Command::new("kill").args([name, pid]).stderr(Stdio::null()).status().unwrap().success();
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| stat.rsplit(") ").next()?.chars().next());
    if !signal("-STOP") {
        return false;
    }
    wait_until("it stands still", || matches!(state(), None | Some('T' | 'Z' | 'X')));
    state() == Some('T') && signal("-KILL")
}
