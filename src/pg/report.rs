//! The only map from our errors to SQLSTATEs.

use crate::error::{Error, Fault, SourceFault};
use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, function_name};

/// The SQLSTATE of each condition.
fn code(error: &Error) -> Code {
    match error {
        Error::Line { fault, .. } | Error::Row { fault, .. } => fault_code(fault),
        Error::Source { fault, .. } => source_code(fault),
        Error::UnknownType(_) | Error::NoHistory(_) => Code::ERRCODE_UNDEFINED_TABLE,
        Error::InvalidType(_) => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::WrongShape { .. } => Code::ERRCODE_WRONG_OBJECT_TYPE,
        Error::SameTable(_) => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::NoSchema => Code::ERRCODE_INVALID_SCHEMA_NAME,
        Error::Null(_) | Error::NullColumn { .. } => Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        Error::NoCreationTime(_) => Code::ERRCODE_UNDEFINED_COLUMN,
        Error::UnknownOption { .. } | Error::InvalidOption { .. } => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        Error::NotOneStatement(_) => Code::ERRCODE_SYNTAX_ERROR,
        Error::NotReadOnly(_) | Error::Unprotected => Code::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        Error::DuplicateColumn(_) => Code::ERRCODE_DUPLICATE_COLUMN,
        Error::Pseudotype { .. } => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        Error::TooManyPaths(_) | Error::RowTooLarge => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Error::MissingRole { .. } => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Error::DatabaseEncoding => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        Error::Memory => Code::ERRCODE_OUT_OF_MEMORY,
        Error::Internal(_) => Code::ERRCODE_INTERNAL_ERROR,
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
        Fault::Exists => Code::ERRCODE_UNIQUE_VIOLATION,
    }
}

fn source_code(fault: &SourceFault) -> Code {
    match fault {
        SourceFault::Unsupported => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        SourceFault::NoSuchFile | SourceFault::NotFound(_) => Code::ERRCODE_UNDEFINED_FILE,
        SourceFault::NotAFile => Code::ERRCODE_WRONG_OBJECT_TYPE,
        SourceFault::FileDenied | SourceFault::AddressRefused(_) => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        SourceFault::Unreachable(_) => Code::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        SourceFault::Denied(_) => Code::ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION,
        SourceFault::Status(_) | SourceFault::Timeout | SourceFault::Read(_) => Code::ERRCODE_CONNECTION_FAILURE,
        SourceFault::Truncated(_) | SourceFault::Gzip(_) | SourceFault::NotNdjson => Code::ERRCODE_BAD_COPY_FILE_FORMAT,
    }
}

fn detail(error: &Error) -> Option<String> {
    match error {
        Error::Line { place, .. } => Some(place.to_string()),
        Error::Source { source_name, .. } => Some(format!("Source \"{source_name}\".")),
        _ => None,
    }
}

fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Line { fault: Fault::UnknownType(_), .. } | Error::UnknownType(_) => {
            Some("Resource types are spelled as in FHIR R4; other types need a table, see bulk.create_resource_table.".to_owned())
        }
        Error::Line { fault: Fault::TooDeep { .. }, .. } => Some("The limit is the setting bulk.max_depth.".to_owned()),
        Error::Line { fault: Fault::LineTooLong { .. }, .. } => Some("The limit is the setting bulk.max_line_size.".to_owned()),
        Error::Source { fault: SourceFault::AddressRefused(_), .. } => {
            Some("A superuser can allow it with the setting bulk.allowed_hosts.".to_owned())
        }
        Error::Source { fault: SourceFault::Unsupported, .. } => {
            Some("Sources are http, https and file URLs, or absolute paths.".to_owned())
        }
        Error::UnknownOption { known: [], .. } => Some("The format takes no options.".to_owned()),
        Error::UnknownOption { known, .. } => Some(format!("Known options are {}.", known.join(", "))),
        Error::NoHistory(_) => Some("bulk.create_resource_table creates it.".to_owned()),
        Error::NotReadOnly(_) => Some("SELECT, VALUES, TABLE and WITH are read.".to_owned()),
        Error::DuplicateColumn(_) => Some("Give each column of the query a name of its own.".to_owned()),
        Error::Pseudotype { .. } => Some("Cast it to a type that a table can have.".to_owned()),
        Error::MissingRole { role, .. } => Some(format!("This takes a member of the role \"{role}\".")),
        _ => None,
    }
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
