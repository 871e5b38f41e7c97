//! The one error of the crate, by condition. It knows where (source, line, byte, table) and what, never the
//! content of a resource, and nothing of PostgreSQL: `pg::sys::sqlstate` maps each condition to its SQLSTATE.

use std::fmt;

/// Where in a source a line went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePlace {
    /// The source as given, without its query string and credentials.
    pub source: String,
    /// Line of the inflated source, from 1.
    pub line: u64,
    /// Byte in that line, from 1.
    pub byte: u64,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source \"{}\", line {}, byte {}.", self.source, self.line, self.byte)
    }
}

/// A line that is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub place: SourcePlace,
    /// Bytes of the inflated source before the line.
    pub offset: u64,
    /// What the line says of itself, if it can be read.
    pub resource_type: Option<String>,
    pub id: Option<String>,
    pub reason: Reason,
    /// The line, or its beginning.
    pub raw: String,
}

/// Who refuses a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Fault(Fault),
    /// PostgreSQL, in its words.
    Server {
        sqlstate: i32,
        message: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Fault(fault) => fault.fmt(f),
            Reason::Server { message, .. } => f.write_str(message),
        }
    }
}

/// What a line is refused for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No JSON; the text says what was expected.
    #[error("invalid JSON: {0}")]
    Syntax(&'static str),
    /// `\u0000`, which `text` and `jsonb` cannot hold.
    #[error("unsupported Unicode escape sequence: \\u0000 cannot be stored")]
    Nul,
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    Encoding,
    #[error("JSON is nested deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("line is longer than {limit} bytes")]
    LineTooLong { limit: usize },
    /// A jsonb container ends at 256 MB, a key or string likewise.
    #[error("resource is too large for jsonb")]
    TooLarge,
    /// So many elements in so little text that they would take memory out of proportion.
    #[error("resource has too many elements for its size")]
    TooDense,
    #[error("number is out of range for type numeric")]
    NumberRange,
    #[error("line is not a JSON object")]
    NotAnObject,
    #[error("resource has no id")]
    NoId,
    #[error("id of a resource must be a non-empty string")]
    BadId,
    #[error("resource has no resourceType")]
    NoType,
    #[error("resource is of type \"{found}\", expected \"{expected}\"")]
    WrongType { expected: String, found: String },
    #[error("unknown resource type \"{0}\"")]
    UnknownType(String),
    /// A type whose table cannot be that of a type, or is another's.
    #[error("{0}")]
    WrongTable(Box<Error>),
    /// A row that is read twice was not the same: a view over what changes by itself.
    #[error("resource changed while it was read")]
    Changed,
    /// A time in meta that decides, or is to be kept.
    #[error("{0} is missing or is no instant")]
    BadInstant(&'static str),
    #[error("meta.versionId is no whole number from 1 to 10^15")]
    BadVersion,
    /// By the definitions: where in the resource, and what is wrong there.
    #[error("{path}: {problem}")]
    Invalid { path: String, problem: String },
    /// A reference to what is neither stored nor loaded with it.
    #[error("{path}: referenced resource does not exist")]
    Dangling { path: String },
    /// Where ids must be new: in the table, or in an earlier line.
    #[error("resource with this id exists already")]
    DuplicateId,
}

impl Reject {
    /// The element that is wrong, as a path from the resource.
    pub fn path(&self) -> Option<&str> {
        self.reason.path()
    }
}

impl Fault {
    /// The element that is wrong, as a path from the resource.
    pub fn path(&self) -> Option<&str> {
        match self {
            Fault::NoId | Fault::BadId | Fault::DuplicateId => Some("id"),
            Fault::NoType | Fault::WrongType { .. } | Fault::UnknownType(_) | Fault::WrongTable(_) => Some("resourceType"),
            Fault::BadInstant(path) => Some(path),
            Fault::BadVersion => Some("meta.versionId"),
            Fault::Invalid { path, .. } | Fault::Dangling { path } => Some(path),
            _ => None,
        }
    }
}

/// What went wrong with a source as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    #[error("source is no URL that can be loaded")]
    Unsupported,
    #[error("bucket is no URL of a bucket or a directory")]
    NotABucket,
    #[error("no such file")]
    NoSuchFile,
    #[error("not a regular file")]
    NotAFile,
    #[error("permission denied by the operating system")]
    FileDenied,
    #[error("address {0} is not allowed")]
    AddressRefused(String),
    #[error("could not connect: {0}")]
    Unreachable(String),
    /// The server's status: 401 and 403.
    #[error("server refused the request: HTTP status {0}")]
    Denied(u16),
    /// The server's status: 404 and 410.
    #[error("server has no such object: HTTP status {0}")]
    NotFound(u16),
    #[error("server answered with HTTP status {0}")]
    Status(u16),
    /// A store's own word for it, like `NoSuchKey`.
    #[error("store refused the request: {code}")]
    Refused { status: u16, code: String },
    #[error("no account is known for it")]
    NoAccount,
    /// The bytes end before the content length, the last chunk or the gzip trailer.
    #[error("source is truncated: {0}")]
    Truncated(String),
    /// Nothing tells its end from a connection that broke off.
    #[error("the server tells neither how long the source is nor where it ends")]
    Unframed,
    /// It goes round, or does not say how it goes on.
    #[error("the listing has no end")]
    EndlessListing,
    /// So many keys that those to load do not fit into memory.
    #[error("the listing is longer than {most} MB: load a part of it by prefixes")]
    ListingTooLong { most: usize },
    /// Bytes that are no gzip where gzip began, or whose checksum differs.
    #[error("source is not valid gzip: {0}")]
    Gzip(String),
    #[error("source is neither gzip nor NDJSON")]
    NotNdjson,
    /// It is not what was read before.
    #[error("source has changed since it was read first")]
    Changed,
    #[error("timed out")]
    Timeout,
    #[error("could not read: {0}")]
    Read(String),
}

/// Everything that can go wrong, by condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More lines were rejected than a load may reject. The first of them, and the one that was too much.
    #[error("{}", rejected(*most, last))]
    Rejected { most: u64, last: Box<Reason>, first: Vec<Reject> },
    #[error("{fault}")]
    Source { source_name: String, fault: SourceFault },
    /// A resource type that cannot name a table, or names none.
    #[error("unknown resource type \"{0}\"")]
    UnknownType(String),
    #[error("invalid resource type \"{0}\"")]
    InvalidType(String),
    #[error("table \"{table}\" is not a resource table: {reason}")]
    WrongShape { table: String, reason: String },
    /// A type that stands in the way of the enum of statuses.
    #[error("type {0} is not the enum of statuses of a resource table")]
    WrongStatusType(String),
    /// Earlier versions are to be kept, and there is no table for them.
    #[error("table \"{0}\" has no history table")]
    NoHistory(String),
    #[error("invalid name of a table \"{0}\"")]
    InvalidTable(String),
    #[error("table \"{0}\" is no stage of a load")]
    NoStage(String),
    #[error("table \"{name}\" is a stage of type \"{resource_type}\"")]
    OtherStage { name: String, resource_type: String },
    /// Of a stage whose ids must be new.
    #[error("table \"{0}\" has resources with ids of the stage")]
    StageConflict(String),
    /// Two types that differ in case only.
    #[error("resource type \"{0}\" has the table of another type of the same load")]
    SameTable(String),
    /// The search path is empty where something must be created.
    #[error("no schema has been selected to create in")]
    NoSchema,
    /// `since` on a table that does not know when its rows were created.
    #[error("table \"{0}\" has no column cts")]
    NoCreationTime(String),
    /// Rows are to be compared with what is there by the time of their last update.
    #[error("table \"{0}\" has no column ts")]
    NoUpdateTime(String),
    #[error("table \"{table}\" has a row whose column {column} is null")]
    NullColumn { table: String, column: &'static str },
    #[error("row \"{id}\" of table \"{table}\" cannot be dumped: {fault}")]
    Row { table: String, id: String, fault: Fault },
    #[error("unrecognized option \"{name}\"")]
    UnknownOption { name: String, known: &'static [&'static str] },
    /// An argument that must be given is null.
    #[error("{0} must not be null")]
    Null(&'static str),
    #[error("invalid value for option \"{name}\": expected {expected}")]
    InvalidOption { name: &'static str, expected: &'static str },
    /// A query of the caller's that is none, or several.
    #[error("query must be one statement, found {0}")]
    NotOneStatement(u32),
    /// A query of the caller's that does more than read; its name as SQL spells it.
    #[error("cannot run {0}: bulk.dump_sql only reads")]
    NotReadOnly(String),
    /// What a query of the caller's calls made the transaction writable.
    #[error("the query made the transaction writable: bulk.dump_sql only reads")]
    WriteEnabled,
    /// In a format that names columns.
    #[error("column \"{0}\" appears more than once")]
    DuplicateColumn(String),
    /// A type that cannot be read back.
    #[error("column \"{column}\" is of type {kind}, which cannot be inserted")]
    Pseudotype { column: String, kind: String },
    /// Of all resources of a type together.
    #[error("the paths of all resources take more than {0} MB")]
    TooManyPaths(usize),
    /// A row of a query that has no room in a value, or an `_id` that Elasticsearch would not take.
    #[error("a row of the query is too large")]
    RowTooLarge,
    #[error("permission denied to {action}")]
    MissingRole { action: &'static str, role: &'static str },
    #[error("there is no job \"{0}\"")]
    NoJob(String),
    #[error("permission denied for the job of another role")]
    ForeignJob,
    /// Waiting for what the current transaction has still to commit.
    #[error("job \"{0}\" starts when this transaction commits")]
    NotCommitted(String),
    /// In a transaction that never sees what others commit.
    #[error("bulk.wait must be called at isolation level READ COMMITTED")]
    FixedSnapshot,
    /// What a worker finds when it comes too late.
    #[error("the extension was dropped")]
    ExtensionDropped,
    #[error("setting bulk.resource_directory is empty")]
    NoResourceDirectory,
    /// What a worker finds when its job was paused, cancelled or deleted.
    #[error("the job is not wanted any more")]
    Stopped,
    /// What PostgreSQL refused, in its words, where that was caught.
    #[error("{message}")]
    Server { sqlstate: i32, message: String },
    /// A job in a database that was restored from a dump, which holds none.
    #[error("the query strings or headers that the job needs are gone: start it anew")]
    NoSecret,
    #[error("there is no {kind} \"{id}\"")]
    NoAccount { kind: String, id: String },
    /// In a database that was restored from a dump, which holds none.
    #[error("the secret of {kind} \"{id}\" is gone: set the account anew")]
    NoAccountSecret { kind: &'static str, id: String },
    #[error("there are several accounts of type {0}")]
    WhichAccount(&'static str),
    /// Of a job, between its call and its work.
    #[error("the role of the job is gone")]
    NoRole,
    /// Of a table whose indexes are to be dropped or made.
    #[error("must be owner of table \"{0}\"")]
    NotOwner(String),
    /// Of an export: a session that it would wait for waits for its snapshot.
    #[error("table \"{0}\" is about to be altered")]
    TableBusy(String),
    #[error("a prepared transaction has written to tables that are to be exported: commit it or roll it back")]
    Prepared,
    #[error("no worker came: bulk.max_workers or max_worker_processes is used up")]
    NoWorker,
    #[error("the job was at work for longer than bulk.job_timeout allows ({0} s)")]
    JobTimeout(u64),
    #[error("permission denied for table \"{0}\"")]
    Unreadable(String),
    #[error("foreign keys need the primary key of table \"{0}\": it cannot be dropped")]
    KeyNeeded(String),
    #[error("no file of bucket \"{0}\" is known")]
    UnknownBucket(String),
    #[error("bucket \"{bucket}\" is on several servers: {}", endpoints.join(", "))]
    AmbiguousBucket { bucket: String, endpoints: Vec<String> },
    /// Of a bucket load whose account changed meanwhile.
    #[error("bucket \"{bucket}\" was listed on {listed}, and its account leads to {found} now")]
    OtherServer { bucket: String, listed: String, found: String },
    /// What a worker finds when the row of its file was deleted.
    #[error("the file is not wanted any more")]
    FileForgotten,
    #[error("the database's encoding must be UTF8")]
    DatabaseEncoding,
    #[error("the owner of the schema bulk_internal is no superuser")]
    OwnerNoSuperuser,
    /// One of the two was upgraded without the other.
    #[error("the loaded library of bulk has version {library}, the extension of this database has version {sql}")]
    VersionMismatch { library: &'static str, sql: String, library_is_newer: bool },
    /// Too little memory for something whose size the input decides.
    #[error("out of memory")]
    Memory,
    /// A thread of ours ended without an answer: a bug.
    #[error("internal error: {0}")]
    Internal(String),
}

fn rejected(most: u64, last: &Reason) -> String {
    if most == 0 { last.to_string() } else { format!("more than {most} lines are rejected: {}", last.without_content()) }
}

impl Reason {
    /// The element that is wrong, as a path from the resource.
    pub fn path(&self) -> Option<&str> {
        match self {
            Reason::Fault(fault) => fault.path(),
            Reason::Server { .. } => None,
        }
    }

    /// What may stand in messages and logs: the words of a trigger or an input function may hold a resource's.
    pub fn without_content(&self) -> String {
        match self {
            Reason::Fault(fault) => fault.to_string(),
            Reason::Server { .. } => "the database refuses it".to_owned(),
        }
    }
}

impl Error {
    /// A fault of a whole source, its name already redacted.
    pub fn source(source_name: &str, fault: SourceFault) -> Error {
        Error::Source { source_name: source_name.to_owned(), fault }
    }
}
