//! The extension's settings (`bulk.*`), registered when the library is loaded and read as plain values.

use crate::error::Error;
use crate::fhir::format::Format;
use crate::store::net::client_config::ClientConfig;
use crate::store::net::ip_policy::Allowed;
use crate::store::net::proxy_tls;
use pgrx::datum::Interval;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_int};
use std::time::Duration;

/// `bulk.resource_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, pgrx::PostgresGucEnum)]
#[allow(non_camel_case_types)]
enum ResourceFormat {
    aidbox,
    fhir,
}

type Text = GucSetting<Option<CString>>;

static ALLOWED_HOSTS: Text = Text::new(Some(c""));
static CREATED_AT_URL: Text = Text::new(Some(c"ex:createdAt"));
static BASE_URL: Text = Text::new(Some(c""));
static RESOURCE_DIRECTORY: Text = Text::new(Some(c""));
static PROXY: Text = Text::new(Some(c""));
static CA_FILE: Text = Text::new(Some(c""));
static BACKEND: Text = Text::new(Some(c""));
static AWS_ACCOUNT: Text = Text::new(Some(c""));
static AWS_BUCKET: Text = Text::new(Some(c""));
static GCP_ACCOUNT: Text = Text::new(Some(c""));
static GCP_BUCKET: Text = Text::new(Some(c""));
static AZURE_CONTAINER: Text = Text::new(Some(c""));
static FILE_DIRECTORY: Text = Text::new(Some(c""));

/// A setting that is a text: its name, what it is, more of that, whether only a superuser sets it.
type TextSetting = (&'static CStr, &'static CStr, &'static CStr, &'static Text, bool);

static TEXTS: [TextSetting; 12] = [
    (
        c"bulk.allowed_hosts",
        c"Hosts, addresses and CIDR ranges that sources may have although they are not global.",
        c"Parted by commas; each may have a port; * allows all. Addresses are checked as they are connected to.",
        &ALLOWED_HOSTS,
        true,
    ),
    (
        c"bulk.ca_file",
        c"File of certificates of authorities, in PEM, that are trusted beside those that browsers trust.",
        c"",
        &CA_FILE,
        true,
    ),
    (
        c"bulk.created_at_url",
        c"URL of the extension of meta that holds a resource's time of creation in FHIR format.",
        c"",
        &CREATED_AT_URL,
        false,
    ),
    (
        c"bulk.base_url",
        c"URL under which an HTTP layer serves the functions, without a slash at its end.",
        c"Links in answers begin with it; where it is empty they are paths.",
        &BASE_URL,
        false,
    ),
    (
        c"bulk.resource_directory",
        c"Directory of the server below which inputs of the type resource-file lie.",
        c"",
        &RESOURCE_DIRECTORY,
        true,
    ),
    (c"bulk.storage_backend", c"Where the storage is: aws, gcp, azure or file.", c"", &BACKEND, true),
    (
        c"bulk.storage_aws_account",
        c"Id of the AwsAccount with which buckets of S3 are reached.",
        c"Where it is empty, the only one.",
        &AWS_ACCOUNT,
        true,
    ),
    (c"bulk.storage_aws_bucket", c"The bucket of S3 that is the storage.", c"", &AWS_BUCKET, true),
    (
        c"bulk.storage_gcp_service_account",
        c"Id of the GcpServiceAccount with which buckets of Google Cloud Storage are reached.",
        c"Where it is empty, the only one.",
        &GCP_ACCOUNT,
        true,
    ),
    (c"bulk.storage_gcp_bucket", c"The bucket of Google Cloud Storage that is the storage.", c"", &GCP_BUCKET, true),
    (
        c"bulk.storage_azure_container",
        c"Id of the AzureContainer that is the storage.",
        c"Of several of one name it is the one that is meant.",
        &AZURE_CONTAINER,
        true,
    ),
    (c"bulk.storage_file_directory", c"The directory of the server that is the storage.", c"", &FILE_DIRECTORY, true),
];

static RESOURCE_FORMAT: GucSetting<ResourceFormat> = GucSetting::<ResourceFormat>::new(ResourceFormat::aidbox);
static ENCODE_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static FAST_PATH: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_LINE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(5);
static MAX_WORKERS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_LOAD_THREADS: GucSetting<i32> = GucSetting::<i32>::new(16);
static JOB_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(0);
static AS_MACHINE: GucSetting<bool> = GucSetting::<bool>::new(false);
static RANGE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(32 * 1024);
static MAX_EXPORTS: GucSetting<i32> = GucSetting::<i32>::new(1);
static EXPORT_FILE_ROWS: GucSetting<i32> = GucSetting::<i32>::new(1_000_000);
static EXPORT_FILE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024 * 1024);
static EXPORT_URL_EXPIRY: GucSetting<i32> = GucSetting::<i32>::new(3600);
static KEEP_JOBS: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);
static MAX_DEPTH: GucSetting<i32> = GucSetting::<i32>::new(1000);

/// Switches: name, what it is, more of it, the setting, who may set it.
type Switch = (&'static CStr, &'static CStr, &'static CStr, &'static GucSetting<bool>, GucContext);
const SWITCHES: [Switch; 2] = [
    (
        c"bulk.fast_path",
        c"Whether new rows go straight into tables that allow it.",
        c"Off, all rows go through INSERT: the same result, slower.",
        &FAST_PATH,
        GucContext::Userset,
    ),
    (
        c"bulk.storage_aws_machine_account",
        c"Whether buckets of S3 are reached as the machine where no AwsAccount is kept.",
        c"By the variables of the server's environment, the container's or the instance's role.",
        &AS_MACHINE,
        GucContext::Suset,
    ),
];

/// Whole numbers: name, what it is, more of it, the setting, its least and its highest value, who may set it, its unit.
type Number = (&'static CStr, &'static CStr, &'static CStr, &'static GucSetting<i32>, c_int, c_int, GucContext, GucFlags);
const NUMBERS: [Number; 13] = [
    (
        c"bulk.encode_threads",
        c"Threads that turn lines into rows during a load.",
        c"0 chooses by the number of processors.",
        &ENCODE_THREADS,
        0,
        64,
        GucContext::Suset,
        GucFlags::empty(),
    ),
    (
        c"bulk.max_line_size",
        c"Longest line of a source.",
        c"jsonb itself ends at 256 MB.",
        &MAX_LINE_SIZE,
        1,
        256 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    ),
    (
        c"bulk.max_depth",
        c"Deepest nesting of JSON that is loaded or dumped.",
        c"",
        &MAX_DEPTH,
        10,
        5000,
        GucContext::Suset,
        GucFlags::empty(),
    ),
    (
        c"bulk.range_size",
        c"Plain sources of twice this size and more are imported in ranges of it, by several workers.",
        c"0: never.",
        &RANGE_SIZE,
        0,
        1024 * 1024,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    ),
    (
        c"bulk.max_exports",
        c"Exports that are under way at a time in a database.",
        c"Beyond it, bulk.export answers 429.",
        &MAX_EXPORTS,
        1,
        1000,
        GucContext::Suset,
        GucFlags::empty(),
    ),
    (
        c"bulk.export_file_rows",
        c"Most resources in a file of an export.",
        c"",
        &EXPORT_FILE_ROWS,
        1,
        c_int::MAX,
        GucContext::Userset,
        GucFlags::empty(),
    ),
    (
        c"bulk.export_file_size",
        c"Size at which a file of an export is followed by another.",
        c"As it is stored; the last resources may take it a few hundred kilobytes beyond.",
        &EXPORT_FILE_SIZE,
        1,
        c_int::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    ),
    (
        c"bulk.export_url_expiry",
        c"How long the signed URLs of a manifest can be used.",
        c"Each bulk.export_status makes them anew.",
        &EXPORT_URL_EXPIRY,
        1,
        7 * 24 * 3600,
        GucContext::Userset,
        GucFlags::UNIT_S,
    ),
    (
        c"bulk.keep_jobs",
        c"How long jobs that have ended are kept when bulk.purge_jobs is called without a time.",
        c"",
        &KEEP_JOBS,
        0,
        c_int::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MIN,
    ),
    (
        c"bulk.max_workers",
        c"Background workers of the extension that are at work at a time in a database.",
        c"Beyond it, jobs wait. The server's max_worker_processes bounds all workers together.",
        &MAX_WORKERS,
        1,
        1000,
        GucContext::Sighup,
        GucFlags::empty(),
    ),
    (
        c"bulk.max_workers_per_role",
        c"Workers that are at work at a time on the jobs of one role.",
        c"0: all but one of bulk.max_workers, at least one. Roles that have fewer come first.",
        &MAX_WORKERS_PER_ROLE,
        0,
        1000,
        GucContext::Sighup,
        GucFlags::empty(),
    ),
    (
        c"bulk.max_load_threads",
        c"Threads that turn lines into rows, of all loads of the server together.",
        c"Beyond it, a load has one.",
        &MAX_LOAD_THREADS,
        1,
        1000,
        GucContext::Sighup,
        GucFlags::empty(),
    ),
    (
        c"bulk.job_timeout",
        c"How long a job may be at work before it ends as failed.",
        c"0: as long as it takes. The time begins anew when a job is resumed.",
        &JOB_TIMEOUT,
        0,
        c_int::MAX / 1000,
        GucContext::Suset,
        GucFlags::UNIT_S,
    ),
];

/// Registers all settings and reserves their prefix.
pub fn register() {
    let none = GucFlags::default();
    GucRegistry::define_string_guc(
        c"bulk.proxy",
        c"URL of the proxy through which servers are reached, or environment for the one that the server's environment names.",
        c"The proxy, not bulk.allowed_hosts, then decides what can be reached.",
        &PROXY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    for (name, short, long, setting, is_guarded) in TEXTS {
        let context = if is_guarded { GucContext::Suset } else { GucContext::Userset };
        GucRegistry::define_string_guc(name, short, long, setting, context, none);
    }
    GucRegistry::define_enum_guc(
        c"bulk.resource_format",
        c"Format of the resources in the tables: aidbox or fhir.",
        c"",
        &RESOURCE_FORMAT,
        GucContext::Userset,
        none,
    );
    for (name, short, long, setting, context) in SWITCHES {
        GucRegistry::define_bool_guc(name, short, long, setting, context, none);
    }
    for (name, short, long, setting, least, most, context, unit) in NUMBERS {
        GucRegistry::define_int_guc(name, short, long, setting, least, most, context, unit);
    }
    reserve(c"bulk");
}

fn reserve(prefix: &CStr) {
    // SAFETY: a NUL-terminated string; called once, while the library is loaded.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

fn text(setting: &Text) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Addresses that sources may have beside the global ones.
fn allowed_hosts() -> Allowed {
    Allowed::parse(&text(&ALLOWED_HOSTS))
}

/// How long jobs that have ended are kept.
pub fn keep_jobs() -> Interval {
    Interval::from_minutes(KEEP_JOBS.get())
}

/// Whether the machine's account serves where none is kept.
pub fn as_machine() -> bool {
    AS_MACHINE.get()
}

/// How servers are reached.
///
/// # Errors
/// `InvalidOption` for a `bulk.ca_file` or `bulk.proxy` that is none.
pub fn network() -> Result<ClientConfig, Error> {
    let wrong = |name, expected| Error::InvalidOption { name, expected };
    let trusted = match text(&CA_FILE) {
        path if path.is_empty() => None,
        path => {
            let read = std::fs::read(path).ok().and_then(|pem| proxy_tls::trusted(&pem));
            Some(read.ok_or(wrong("bulk.ca_file", "a file of certificates in PEM that the server can read"))?)
        }
    };
    let proxy = proxy_tls::proxy(&text(&PROXY)).ok_or(wrong("bulk.proxy", "the URL of a proxy, or environment"))?;
    Ok(ClientConfig { allowed_hosts: allowed_hosts(), proxy, trusted, as_machine: AS_MACHINE.get(), ..ClientConfig::default() })
}

/// `bulk.created_at_url`.
pub fn created_at_url() -> String {
    text(&CREATED_AT_URL)
}

/// What the tables hold.
pub fn resource_format() -> Format {
    match RESOURCE_FORMAT.get() {
        ResourceFormat::aidbox => Format::Aidbox,
        ResourceFormat::fhir => Format::Fhir,
    }
}

/// Encode threads of a load. As many as processors: on two, a second one gains a third where values are compressed and costs
/// nothing where they are not, since it sleeps.
pub fn encode_threads() -> usize {
    match usize::try_from(ENCODE_THREADS.get()) {
        Ok(threads) if threads > 0 => threads,
        _ => processors(),
    }
}

/// Processors, as far as one statement may use them.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().clamp(1, 4))
}

/// `bulk.max_load_threads`.
pub fn max_load_threads() -> u32 {
    MAX_LOAD_THREADS.get().unsigned_abs()
}

/// How long a job may be at work; None for as long as it takes.
pub fn job_timeout() -> Option<Duration> {
    Some(Duration::from_secs(u64::from(JOB_TIMEOUT.get().unsigned_abs()))).filter(|limit| !limit.is_zero())
}

/// Threads of a dump.
pub fn dump_threads() -> usize {
    processors()
}

/// Whether rows may be written without INSERT where that makes no difference.
pub fn fast_path() -> bool {
    FAST_PATH.get()
}

/// In bytes.
pub fn max_line() -> usize {
    usize::try_from(MAX_LINE_SIZE.get()).unwrap_or(1) * 1024
}

/// The id of the account for S3; empty for the only one.
pub fn aws_account() -> String {
    text(&AWS_ACCOUNT)
}

/// Where the storage is, as it was set: it is judged where it is used.
pub fn storage_backend() -> String {
    text(&BACKEND)
}

/// `bulk.storage_gcp_service_account`; empty for the only account.
pub fn gcp_account() -> String {
    text(&GCP_ACCOUNT)
}

/// `bulk.storage_gcp_bucket`.
pub fn gcp_bucket() -> String {
    text(&GCP_BUCKET)
}

/// `bulk.storage_azure_container`.
pub fn azure_container() -> String {
    text(&AZURE_CONTAINER)
}

/// `bulk.storage_aws_bucket`.
pub fn aws_bucket() -> String {
    text(&AWS_BUCKET)
}

/// `bulk.storage_file_directory`.
pub fn file_directory() -> String {
    text(&FILE_DIRECTORY)
}

/// In bytes.
pub fn range_size() -> u64 {
    u64::from(RANGE_SIZE.get().unsigned_abs()) * 1024
}

/// `bulk.max_depth`, in containers inside one another.
pub fn max_depth() -> usize {
    usize::try_from(MAX_DEPTH.get()).unwrap_or(10)
}

/// Runs `work` under other values of settings; after an ERROR the transaction's end sets them back.
pub fn within<T>(values: &[(&CStr, &CStr)], work: impl FnOnce() -> T) -> T {
    if values.is_empty() {
        return work();
    }
    // SAFETY: what is set from here on ends with the level, at the latest when the transaction does.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for (name, value) in values {
        let (context, source, action) =
            (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_SESSION, pg_sys::GucAction::GUC_ACTION_SAVE);
        let severity = c_int::from(pgrx::PgLogLevel::ERROR as u8);
        // SAFETY: a setting that every version has, and a value for it, both NUL-terminated.
        unsafe { pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), context, source, action, true, severity, false) };
    }
    let result = work();
    // SAFETY: the level of above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}

/// Runs statements of the extension so that `auto_explain` logs none of them, where it is loaded: their parameters and plans hold rows and secrets.
/// Neither does it what they call.
pub fn unexplained<T>(work: impl FnOnce() -> T) -> T {
    const OFF: (&CStr, &CStr) = (c"auto_explain.log_min_duration", c"-1");
    // SAFETY: a NUL-terminated name; null where there is no such setting.
    let is_there = unsafe { !pg_sys::GetConfigOption(OFF.0.as_ptr(), true, false).is_null() };
    within(if is_there { &[OFF] } else { &[] }, work)
}

/// What links in answers begin with.
///
/// # Errors
/// `InvalidOption` for what cannot stand in a URL: it goes into headers.
pub fn base_url() -> Result<String, Error> {
    let url = text(&BASE_URL);
    let expected = "a URL of visible ASCII characters";
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::InvalidOption { name: "bulk.base_url", expected });
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The path of a file below the resource directory.
///
/// # Errors
/// `NoResourceDirectory` where the setting is empty.
pub fn resource_file(path: &str) -> Result<String, Error> {
    let directory = text(&RESOURCE_DIRECTORY);
    if directory.is_empty() { Err(Error::NoResourceDirectory) } else { Ok(format!("{}/{path}", directory.trim_end_matches('/'))) }
}

/// Exports that may be under way at a time in a database.
pub fn max_exports() -> usize {
    usize::try_from(MAX_EXPORTS.get()).unwrap_or(1)
}

/// Most resources in a file of an export.
pub fn export_file_rows() -> u64 {
    u64::from(EXPORT_FILE_ROWS.get().unsigned_abs())
}

/// In bytes.
pub fn export_file_size() -> u64 {
    u64::from(EXPORT_FILE_SIZE.get().unsigned_abs()) * 1024
}

/// Of the signed URLs of a manifest.
pub fn export_url_expiry() -> Duration {
    Duration::from_secs(u64::from(EXPORT_URL_EXPIRY.get().unsigned_abs()))
}

/// Workers that may be at work at a time in a database.
pub fn max_workers() -> u32 {
    MAX_WORKERS.get().unsigned_abs()
}

/// Those of them that may be at work on one role's jobs.
pub fn max_workers_per_role() -> u32 {
    match MAX_WORKERS_PER_ROLE.get().unsigned_abs() {
        0 => max_workers().saturating_sub(1).max(1),
        share => share,
    }
}

/// As it is set.
pub fn search_path() -> String {
    value(c"search_path").unwrap_or_default()
}

/// The value of a setting; None for one that this version has not.
pub fn value(name: &CStr) -> Option<String> {
    // SAFETY: a NUL-terminated name; not even a missing right keeps us from reading it.
    let value = unsafe { pg_sys::GetConfigOption(name.as_ptr(), true, false) };
    // SAFETY: null, or a NUL-terminated text, copied at once.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
}

/// Lifts limits of time that a role or the server has for its sessions: work in the background takes as long as it takes.
pub fn lift_timeouts() {
    for name in [c"lock_timeout", c"transaction_timeout", c"idle_in_transaction_session_timeout"] {
        if value(name).is_some() {
            let (context, source) = (pg_sys::GucContext::PGC_USERSET, pg_sys::GucSource::PGC_S_SESSION);
            // SAFETY: a setting that is there and a value that it takes, both NUL-terminated.
            unsafe { pg_sys::SetConfigOption(name.as_ptr(), c"0".as_ptr(), context, source) };
        }
    }
}
