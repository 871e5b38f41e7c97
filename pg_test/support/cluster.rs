//! Throw-away clusters: one that most tests share, each in a database of its own, and private ones for those that stop it.

use crate::support::servers::free_port;
use postgres::{Client, Config, NoTls};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Where the PostgreSQL binaries are.
pub fn bin() -> PathBuf {
    std::env::var_os("BULK_TEST_BIN").expect("BULK_TEST_BIN is set by make test").into()
}

/// Where what the tests download lies.
pub fn cache() -> PathBuf {
    std::env::var_os("BULK_CACHE").expect("BULK_CACHE is set by make test").into()
}

/// The real data, when it lies beside the checkout.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")
}

/// uid and gid under which a server runs: root may not run one.
fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let id = |arguments: &[&str]| -> u32 {
            let output = Command::new("id").args(arguments).output().expect("id runs");
            String::from_utf8(output.stdout).unwrap().trim().parse().expect("user postgres exists")
        };
        (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
    })
}

/// A program, run by a user who may run servers. Not by `Command::uid`, which forks instead of spawning: the pages of a test's memory would
/// be copied for each.
fn as_server(program: impl AsRef<OsStr>) -> Command {
    let Some((uid, gid)) = server_user() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups").arg(program);
    command
}

/// A directory that the server may read and write.
pub fn server_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("bulk-test-").tempdir_in("/tmp").expect("a directory in /tmp");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Some((uid, gid)) = server_user() {
        chown(directory.path(), Some(uid), Some(gid)).unwrap();
    }
    directory
}

/// A running cluster.
pub struct Cluster {
    directory: TempDir,
    port: u16,
}

impl Cluster {
    /// Makes and starts a cluster.
    pub fn start() -> Cluster {
        Cluster::start_with("max_worker_processes = 40\nmax_prepared_transactions = 2\n")
    }

    /// The same on the loopback too, where who connects needs a password.
    pub fn start_listening() -> Cluster {
        let mut cluster = Cluster::place();
        cluster.make("listen_addresses = '127.0.0.1'\nmax_worker_processes = 40\n");
        let directory = cluster.data_directory();
        fs::write(directory.join("pg_hba.conf"), "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        let settings = fs::read_to_string(directory.join("postgresql.conf")).unwrap();
        for _ in 0..5 {
            // Somebody else may be faster.
            cluster.port = free_port();
            fs::write(directory.join("postgresql.conf"), format!("{settings}port = {}\n", cluster.port)).unwrap();
            if cluster.try_boot() {
                return cluster;
            }
        }
        panic!("no port to listen on: {}", cluster.log());
    }

    /// A new one's place. The port only names the socket: the server listens to no network.
    fn place() -> Cluster {
        static PORT: AtomicU32 = AtomicU32::new(0);
        let port = 20000 + (std::process::id() % 2000) as u16 * 10 + PORT.fetch_add(1, Ordering::Relaxed) as u16;
        Cluster { directory: server_directory(), port }
    }

    /// A standby of this one, hot.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster::place();
        let data = standby.data_directory();
        let mut backup = self.command("pg_basebackup");
        backup.arg("-h").arg(self.socket()).args([
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        ]);
        checked(backup.arg("-D").arg(&data));
        let file = data.join("postgresql.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}\nunix_socket_directories = '{}'\nport = {}\n", standby.socket().display(), standby.port)).unwrap();
        standby.boot();
        standby
    }

    /// The same with lines of configuration.
    pub fn start_with(more: &str) -> Cluster {
        let cluster = Cluster::place();
        cluster.make(more);
        cluster.boot();
        cluster
    }

    fn make(&self, more: &str) {
        let port = self.port;
        let data = self.data_directory();
        // Of initdb's work a copy is as good.
        checked(as_server("cp").arg("-r").arg(&pristine().path).arg(&data));
        let settings = "listen_addresses = ''\nfsync = off\nlog_min_messages = log\ntimezone = UTC\nlog_line_prefix = '%m [%p] '\nmax_connections = 50\n";
        let of_leg = std::env::var("BULK_TEST_SETTINGS").unwrap_or_default().replace(';', "\n");
        let file = data.join("postgresql.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            format!(
                "{text}\n{settings}{more}unix_socket_directories = '{}'\nport = {port}\nbulk.fast_path = on\n{of_leg}\n",
                self.socket().display()
            ),
        )
        .unwrap();
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the server and waits until it answers.
    pub fn boot(&self) {
        let log = self.directory.path().join("log");
        checked(self.command("pg_ctl").arg("-D").arg(self.data_directory()).arg("-l").arg(log).args(["-w", "-t", "60", "start"]));
    }

    /// The same where what is left of a killed server may stand in the way.
    pub fn try_boot(&self) -> bool {
        let log = self.directory.path().join("log");
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data_directory()).arg("-l").arg(log).args(["-w", "-t", "60", "start"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl runs").success()
    }

    /// Starts the server so that none of its processes gets more than this much memory, in kB.
    pub fn boot_limited(&self, kilobytes: u64) {
        let mut limited = as_server("bash");
        limited.args(["-c", &format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"")]).arg(bin().join("pg_ctl"));
        limited.arg("-D").arg(self.data_directory()).arg("-l").arg(self.directory.path().join("log")).args(["-w", "-t", "60", "start"]);
        checked(limited.current_dir(self.directory.path()).env_remove("RUST_BACKTRACE"));
    }

    /// Stops the server: `fast` or `immediate`.
    pub fn stop(&self, mode: &str) {
        checked(self.command("pg_ctl").arg("-D").arg(self.data_directory()).args(["-w", "-t", "60", "-m", mode, "stop"]));
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A program of this PostgreSQL, as a user that may run servers.
    pub fn command(&self, program: &str) -> Command {
        let mut command = as_server(bin().join(program));
        command.current_dir(self.directory.path()).env_remove("RUST_BACKTRACE");
        command
    }

    /// psql on a database, with nobody's habits.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = self.client("psql", database);
        command.args(["-X", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    /// A client program on a database.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = self.command(program);
        command.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string(), "-U", "postgres", "-d", database]);
        command
    }

    /// A connection to a database as a role.
    pub fn connect(&self, database: &str, role: &str) -> Client {
        self.try_connect(database, role).expect("the cluster answers")
    }

    fn try_connect(&self, database: &str, role: &str) -> Result<Client, postgres::Error> {
        let mut config = Config::new();
        config.host_path(self.socket()).port(self.port).user(role).dbname(database);
        config.connect(NoTls)
    }

    /// A database on the loopback, as a client's keywords name it.
    pub fn keywords(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} dbname={database}", self.port)
    }

    /// The same as a URI, of a role.
    pub fn uri(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@/{database}?host={}&port={}", self.socket().display(), self.port)
    }

    /// A new database with the extension.
    pub fn database(&self) -> Database<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres", "postgres").batch_execute(&format!("create database {name} template {TEMPLATE}")).unwrap();
        Database { cluster: self, name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl").arg("-D").arg(self.data_directory()).args(["-m", "immediate", "stop"]).output();
    }
}

/// A database of a test. When the test is through, what it left there is checked.
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Database<'_> {
    /// A connection as superuser, for which local sources are allowed.
    pub fn connect(&self) -> Client {
        let mut client = self.connect_as("postgres");
        client.batch_execute("set bulk.allowed_hosts = '127.0.0.1'").unwrap();
        client
    }

    /// None while the cluster is down.
    pub fn try_connect(&self) -> Option<Client> {
        self.cluster.try_connect(&self.name, "postgres").ok()
    }

    pub fn connect_as(&self, role: &str) -> Client {
        self.cluster.connect(&self.name, role)
    }

    pub fn psql(&self) -> Command {
        self.cluster.psql(&self.name)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(client) = self.try_connect()
        {
            crate::support::integrity::check(client);
        }
    }
}

/// The database with the extension that those of the tests are copies of.
const TEMPLATE: &str = "with_bulk";

/// What all clusters are copies of: a data directory as initdb leaves it, and in it the template.
struct Pristine {
    path: PathBuf,
    directory: TempDir,
}

static PRISTINE: OnceLock<Pristine> = OnceLock::new();

fn pristine() -> &'static Pristine {
    PRISTINE.get_or_init(|| {
        let cluster = Cluster::place();
        let data = cluster.data_directory();
        // Locale, collation provider and checksums: each leg of the tests has its own.
        let how = std::env::var("BULK_TEST_INITDB").unwrap_or_else(|_| "--locale=C".to_owned());
        let how = how.split(',').filter(|argument| !argument.is_empty());
        checked(cluster.command("initdb").arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]).args(how));
        let file = data.join("postgresql.conf");
        let original = fs::read_to_string(&file).unwrap();
        let socket = cluster.socket().display();
        fs::write(
            &file,
            format!("{original}\nlisten_addresses = ''\nfsync = off\nunix_socket_directories = '{socket}'\nport = {}\n", cluster.port),
        )
        .unwrap();
        cluster.boot();
        cluster.connect("postgres", "postgres").batch_execute(&format!("create database {TEMPLATE}")).unwrap();
        cluster.connect(TEMPLATE, "postgres").batch_execute("create extension bulk").unwrap();
        cluster.stop("fast");
        fs::write(&file, original).unwrap();
        let copy = server_directory();
        let path = copy.path().join("data");
        fs::rename(&data, &path).unwrap();
        Pristine { path, directory: copy }
    })
}

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// The cluster that tests share.
pub fn shared() -> &'static Cluster {
    SHARED.get_or_init(Cluster::start)
}

/// Ends the shared cluster, whose statics are never dropped.
pub fn stop_shared() {
    if let Some(cluster) = SHARED.get() {
        cluster.stop("immediate");
        let _ = fs::remove_dir_all(cluster.directory.path());
    }
    if let Some(pristine) = PRISTINE.get() {
        let _ = fs::remove_dir_all(pristine.directory.path());
    }
}

/// Runs a command that must succeed.
pub fn checked(command: &mut Command) -> Output {
    // A server that pg_ctl starts keeps its output open: it must not be a pipe that we wait for.
    let output = if command.get_args().any(|argument| argument == "start") {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the program runs");
        Output { status, stdout: Vec::new(), stderr: Vec::new() }
    } else {
        command.output().expect("the program runs")
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs psql on a script; it must succeed.
pub fn replay(psql: &mut Command, script: &[u8]) {
    let mut psql = psql.arg("-q").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    psql.stdin.take().unwrap().write_all(script).unwrap();
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
