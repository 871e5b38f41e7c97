//! The only map from our errors to SQLSTATEs.

use crate::error::{Error, Fault, Reason, Reject, SourceFault};
use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, function_name};

/// Tells the caller of what could be better.
pub fn notice(message: &str, hint: &str) {
    ErrorReport::new(Code::ERRCODE_SUCCESSFUL_COMPLETION, message.to_owned(), function_name!())
        .set_hint(hint.to_owned())
        .report(PgLogLevel::NOTICE);
}

/// The SQLSTATE of each condition.
fn code(error: &Error) -> Code {
    match error {
        Error::Rejected { last, .. } => match &**last {
            Reason::Fault(fault) => fault_code(fault),
            Reason::Server { sqlstate, .. } => known(*sqlstate),
        },
        Error::Server { sqlstate, .. } => known(*sqlstate),
        Error::Row { fault, .. } => fault_code(fault),
        Error::Source { fault, .. } => source_code(fault),
        Error::UnknownType(_) | Error::NoHistory(_) => Code::ERRCODE_UNDEFINED_TABLE,
        Error::InvalidType(_) => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::WrongShape { .. } | Error::WrongStatusType(_) => Code::ERRCODE_WRONG_OBJECT_TYPE,
        Error::InvalidTable(_) => Code::ERRCODE_INVALID_NAME,
        Error::NoStage(_) | Error::OtherStage { .. } => Code::ERRCODE_WRONG_OBJECT_TYPE,
        Error::StageConflict(_) => Code::ERRCODE_UNIQUE_VIOLATION,
        Error::SameTable(_) => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::NoSchema => Code::ERRCODE_INVALID_SCHEMA_NAME,
        Error::Null(_) | Error::NullColumn { .. } => Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        Error::NoCreationTime(_) | Error::NoUpdateTime(_) => Code::ERRCODE_UNDEFINED_COLUMN,
        Error::UnknownOption { .. } | Error::InvalidOption { .. } => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::NotOneStatement(_) => Code::ERRCODE_SYNTAX_ERROR,
        Error::NotReadOnly(_) | Error::WriteEnabled => Code::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        Error::DuplicateColumn(_) => Code::ERRCODE_DUPLICATE_COLUMN,
        Error::Pseudotype { .. } => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        Error::TooManyPaths(_) | Error::RowTooLarge => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Error::MissingRole { .. } => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Error::NoAccount { .. } | Error::NoAccountSecret { .. } => Code::ERRCODE_UNDEFINED_OBJECT,
        Error::WhichAccount(_) | Error::AmbiguousBucket { .. } => Code::ERRCODE_AMBIGUOUS_PARAMETER,
        Error::NoJob(_)
        | Error::NoRole
        | Error::NoSecret
        | Error::ExtensionDropped
        | Error::Stopped
        | Error::UnknownBucket(_)
        | Error::FileForgotten => Code::ERRCODE_UNDEFINED_OBJECT,
        Error::ForeignJob | Error::NotOwner(_) | Error::Unreadable(_) | Error::OwnerNoSuperuser => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Error::TableBusy(_) => Code::ERRCODE_LOCK_NOT_AVAILABLE,
        Error::Prepared => Code::ERRCODE_OBJECT_IN_USE,
        Error::NoWorker => Code::ERRCODE_INSUFFICIENT_RESOURCES,
        Error::JobTimeout(_) => Code::ERRCODE_QUERY_CANCELED,
        Error::KeyNeeded(_) => Code::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        Error::NotCommitted(_) | Error::OtherServer { .. } => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Error::NoResourceDirectory => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Error::FixedSnapshot => Code::ERRCODE_INVALID_TRANSACTION_STATE,
        Error::DatabaseEncoding | Error::VersionMismatch { .. } => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        Error::Memory => Code::ERRCODE_OUT_OF_MEMORY,
        Error::Internal(_) => Code::ERRCODE_INTERNAL_ERROR,
    }
}

/// pgrx knows PostgreSQL's own; others are what functions raise.
fn known(sqlstate: i32) -> Code {
    match Code::from(sqlstate) {
        Code::ERRCODE_INTERNAL_ERROR => Code::ERRCODE_RAISE_EXCEPTION,
        code => code,
    }
}

fn fault_code(fault: &Fault) -> Code {
    match fault {
        Fault::Syntax(_) => Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
        Fault::Nul => Code::ERRCODE_UNTRANSLATABLE_CHARACTER,
        Fault::Encoding => Code::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
        Fault::TooDeep { .. } => Code::ERRCODE_STATEMENT_TOO_COMPLEX,
        Fault::LineTooLong { .. } | Fault::TooLarge | Fault::TooDense => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Fault::NumberRange => Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        Fault::NotAnObject => Code::ERRCODE_SQL_JSON_OBJECT_NOT_FOUND,
        Fault::NoId | Fault::NoType => Code::ERRCODE_NOT_NULL_VIOLATION,
        Fault::BadId | Fault::WrongType { .. } => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Fault::UnknownType(_) => Code::ERRCODE_UNDEFINED_TABLE,
        Fault::Changed => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Fault::DuplicateId => Code::ERRCODE_UNIQUE_VIOLATION,
        Fault::BadInstant(_) => Code::ERRCODE_INVALID_DATETIME_FORMAT,
        Fault::BadVersion => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Fault::WrongTable(error) => code(error),
        Fault::Dangling { .. } => Code::ERRCODE_FOREIGN_KEY_VIOLATION,
        Fault::Invalid { .. } => Code::ERRCODE_CHECK_VIOLATION,
    }
}

fn source_code(fault: &SourceFault) -> Code {
    match fault {
        SourceFault::Unsupported | SourceFault::NotABucket => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        SourceFault::NoSuchFile | SourceFault::NotFound(_) => Code::ERRCODE_UNDEFINED_FILE,
        SourceFault::NotAFile => Code::ERRCODE_WRONG_OBJECT_TYPE,
        SourceFault::FileDenied | SourceFault::AddressRefused(_) => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        SourceFault::Unreachable(_) => Code::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        SourceFault::Refused { status: 404, .. } => Code::ERRCODE_UNDEFINED_FILE,
        SourceFault::NoAccount => Code::ERRCODE_UNDEFINED_OBJECT,
        SourceFault::Denied(_) | SourceFault::Refused { .. } => Code::ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION,
        SourceFault::Changed => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        SourceFault::ListingTooLong { .. } => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        SourceFault::Status(_) | SourceFault::Timeout | SourceFault::Read(_) | SourceFault::EndlessListing => {
            Code::ERRCODE_CONNECTION_FAILURE
        }
        SourceFault::Truncated(_) | SourceFault::Unframed | SourceFault::Gzip(_) | SourceFault::NotNdjson => {
            Code::ERRCODE_BAD_COPY_FILE_FORMAT
        }
    }
}

fn detail(error: &Error) -> Option<String> {
    match error {
        Error::Rejected { first, .. } => Some(rejects(first)),
        Error::Source { source_name, .. } => Some(format!("Source \"{source_name}\".")),
        _ => None,
    }
}

/// The places of rejected lines; of several, with the reasons.
fn rejects(rejects: &[Reject]) -> String {
    match rejects {
        [only] => only.place.to_string(),
        several => several
            .iter()
            .map(|reject| format!("{}: {}", reject.place.to_string().trim_end_matches('.'), reject.reason.without_content()))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// The SQLSTATE of a reason, in its five characters.
pub fn state_of(reason: &Reason) -> String {
    sqlstate(match reason {
        Reason::Fault(fault) => fault_code(fault) as i32,
        Reason::Server { sqlstate, .. } => *sqlstate,
    })
}

/// The SQLSTATE of an error, in its five characters.
pub fn state(error: &Error) -> String {
    sqlstate(code(error) as i32)
}

/// An SQLSTATE in its five characters, which it packs into six bits each.
pub fn sqlstate(code: i32) -> String {
    (0..5).map(|place| char::from(b'0' + (code >> (6 * place) & 0x3F) as u8)).collect()
}

fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Rejected { last, .. } => match &**last {
            Reason::Fault(Fault::UnknownType(_)) => hint(&Error::UnknownType(String::new())),
            Reason::Fault(Fault::TooDeep { .. }) => Some("The limit is the setting bulk.max_depth.".to_owned()),
            Reason::Fault(Fault::LineTooLong { .. }) => Some("The limit is the setting bulk.max_line_size.".to_owned()),
            _ => None,
        },
        Error::UnknownType(_) => {
            Some("Resource types are spelled as in FHIR R4; other types need a table, see bulk.create_resource_table.".to_owned())
        }
        Error::Source { fault: SourceFault::AddressRefused(_), .. } => {
            Some("A superuser can allow it with the setting bulk.allowed_hosts.".to_owned())
        }
        Error::Source { fault: SourceFault::Unframed, .. } => Some(
            "Have the server send Content-Length, or chunks over HTTP/1.1, or use https. The option accept-unframed takes what comes as whole.".to_owned(),
        ),
        Error::Source { fault: SourceFault::Unsupported, .. } => {
            Some("Sources are http, https, s3, gs, az and file URLs, or absolute paths.".to_owned())
        }
        Error::Source { fault: SourceFault::NotABucket, .. } => Some(
            "Buckets are s3://name, gs://name, az://container, or file:///directory; what is loaded of one is said by prefixes.".to_owned(),
        ),
        Error::Source { fault: SourceFault::NoAccount, .. } => Some("An administrator can set one with bulk.set_account.".to_owned()),
        Error::WhichAccount(kind) => Some(format!(
            "The setting {} names one.",
            match *kind {
                "AwsAccount" => "bulk.storage_aws_account",
                "GcpServiceAccount" => "bulk.storage_gcp_service_account",
                _ => "bulk.storage_azure_container",
            }
        )),
        Error::UnknownOption { known: [], .. } => Some("The format takes no options.".to_owned()),
        Error::UnknownOption { known, .. } => Some(format!("Known options are {}.", known.join(", "))),
        Error::WrongStatusType(_) => Some(
            "It must be an enum with created, updated, deleted and recreated, in the table's own schema or owned by the table's owner; name a schema \
             without it first in search_path, or drop it."
                .to_owned(),
        ),
        Error::OwnerNoSuperuser => Some(
            "Give the objects of the extension bulk to a superuser, by REASSIGN OWNED, and run bulk_internal.protect_tables().".to_owned(),
        ),
        Error::NoHistory(_) => Some("bulk.create_resource_table creates it.".to_owned()),
        Error::NotReadOnly(_) => Some("SELECT, VALUES, TABLE and WITH are read.".to_owned()),
        Error::DuplicateColumn(_) => Some("Give each column of the query a name of its own.".to_owned()),
        Error::Pseudotype { .. } => Some("Cast it to a type that a table can have.".to_owned()),
        Error::VersionMismatch { library_is_newer: true, .. } => Some("Run ALTER EXTENSION bulk UPDATE in this database.".to_owned()),
        Error::VersionMismatch { .. } => Some(
            "Install the library of the extension's version, then start a new session; restart the server where shared_preload_libraries names bulk."
                .to_owned(),
        ),
        Error::MissingRole { role, .. } => Some(format!("This takes a member of the role \"{role}\".")),
        _ => None,
    }
}

/// All that is to be said of an error: what, where, what to do.
pub fn message_without_content(error: &Error) -> String {
    let parts = [Some(error.to_string()), detail(error), hint(error)];
    parts.iter().flatten().map(|part| part.trim_end_matches('.')).collect::<Vec<_>>().join(". ")
}

/// Ends the statement with an error.
pub fn raise(error: &Error) -> ! {
    let mut report = ErrorReport::new(code(error), error.to_string(), function_name!());
    if let Some(detail) = detail(error) {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint(error) {
        report = report.set_hint(hint);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// The value, or the end of the statement.
pub fn ok<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| raise(&error))
}
