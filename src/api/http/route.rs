//! Which operation a method and a path name.

use crate::operation::export::request::Level;
use crate::operation::import::control::Version;
use crate::operation::response::Refusal;
use percent_encoding::percent_decode_str;

/// An operation with what its path says.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    Dump { resource_type: String },
    DumpCsv { resource_type: String },
    DumpSql,
    Load { resource_type: Option<String>, fhir: bool },
    Import { fhir: bool, version: Version },
    ImportStatus { id: String, version: Version },
    Export { level: Level, group: Option<String>, from: From },
    ExportStatus { id: String },
    ExportCancel { id: String },
    Rpc,
}

/// Where the parameters of an export stand.
#[derive(Debug, PartialEq, Eq)]
pub enum From {
    Query,
    Body,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    Path,
    /// The methods that the path has.
    Method(Vec<&'static str>),
}

impl Missing {
    /// The answer: 404, or 405 with the methods that the path has.
    pub fn refusal(&self) -> Refusal {
        match self {
            Missing::Path => Refusal::not_found(),
            Missing::Method(allowed) => Refusal::new(405, "not-supported", format!("the methods of this path are {}", allowed.join(", "))),
        }
    }
}

/// Whether a path, as it came in, is one of imports: what they refuse has another shape.
pub fn is_import(path: &str) -> bool {
    let path = percent_decode_str(path.split('?').next().unwrap_or_default()).decode_utf8_lossy();
    path.split('/').any(|segment| matches!(segment, "$import" | "BulkImportStatus"))
}

/// The operation that a method of a path is.
///
/// # Errors
/// `Missing` where no path, or no method of the path, is meant.
pub fn find(method: &str, path: &[String]) -> Result<Route, Missing> {
    let mut methods = methods(path);
    match methods.iter().position(|(known, _)| *known == method) {
        Some(at) => Ok(methods.swap_remove(at).1),
        None if methods.is_empty() => Err(Missing::Path),
        None => Err(Missing::Method(methods.into_iter().map(|(known, _)| known).collect())),
    }
}

/// What each method of a path is; none where there is no such path.
fn methods(path: &[String]) -> Vec<(&'static str, Route)> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let export = |level: Level, group: Option<&str>| {
        let of = |from| Route::Export { level, group: group.map(str::to_owned), from };
        vec![("GET", of(From::Query)), ("POST", of(From::Body))]
    };
    let import = |fhir, version| vec![("POST", Route::Import { fhir, version })];
    let import_status = |id: &str, version| vec![("GET", Route::ImportStatus { id: id.to_owned(), version })];
    let load = |name: Option<&str>, fhir| vec![("POST", Route::Load { resource_type: name.map(str::to_owned), fhir })];
    match path[..] {
        ["rpc"] => vec![("POST", Route::Rpc)],
        ["$dump-sql"] => vec![("POST", Route::DumpSql)],
        ["$load"] => load(None, false),
        ["fhir", "$load"] => load(None, true),
        ["$import"] => import(false, Version::One),
        ["fhir", "$import"] => import(true, Version::One),
        ["v2", "$import"] => import(false, Version::Two),
        ["v2", "fhir", "$import"] => import(true, Version::Two),
        ["v2", "$import", id] | ["v2", "fhir", "$import", id] => import_status(id, Version::Two),
        ["BulkImportStatus", id] | ["fhir", "BulkImportStatus", id] => import_status(id, Version::One),
        ["fhir", "$export"] => export(Level::System, None),
        ["fhir", "Patient", "$export"] => export(Level::Patient, None),
        ["fhir", "Group", id, "$export"] if is_id(id) => export(Level::Group, Some(id)),
        ["fhir", "$export-status", id] => {
            vec![("GET", Route::ExportStatus { id: id.to_owned() }), ("DELETE", Route::ExportCancel { id: id.to_owned() })]
        }
        [name, "$dump"] if is_type(name) => vec![("GET", Route::Dump { resource_type: name.to_owned() })],
        [name, "$dump-csv"] if is_type(name) => vec![("GET", Route::DumpCsv { resource_type: name.to_owned() })],
        [name, "$load"] if is_type(name) => load(Some(name), false),
        ["fhir", name, "$load"] if is_type(name) => load(Some(name), true),
        _ => Vec::new(),
    }
}

/// Whether a segment can be a resource type, FHIR's or an installation's own.
fn is_type(name: &str) -> bool {
    name.len() < 56 && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a segment can be the id of a resource: FHIR's, and the underscore that installations use.
fn is_id(id: &str) -> bool {
    id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str) -> Result<Route, Missing> {
        find(method, &path.split('/').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_operation_has_its_path() {
        let typed = |fhir| Route::Load { resource_type: Some("Patient".to_owned()), fhir };
        assert_eq!(route("POST", "Patient/$load"), Ok(typed(false)));
        assert_eq!(route("POST", "fhir/Patient/$load"), Ok(typed(true)));
        assert_eq!(route("POST", "fhir/$load"), Ok(Route::Load { resource_type: None, fhir: true }));
        assert_eq!(route("POST", "v2/fhir/$import"), Ok(Route::Import { fhir: true, version: Version::Two }));
        assert_eq!(
            route("POST", "fhir/Group/g_1/$export"),
            Ok(Route::Export { level: Level::Group, group: Some("g_1".to_owned()), from: From::Body })
        );
        assert_eq!(route("DELETE", "fhir/$export-status/1"), Ok(Route::ExportCancel { id: "1".to_owned() }));
    }

    #[test]
    fn others_are_not_there_or_have_other_methods() {
        for path in [
            "",
            "nothing",
            "fhir/Patient/$dump",
            "fhir/$dump-sql",
            "$export",
            "Patient/$export",
            "fhir/Group/a'b/$export",
            "fhir/Group/../$export",
            "fhir/Group/a/b/$export",
            "a\"b/$dump",
            "../$dump",
            "patient;drop/$load",
            "BulkImportStatus",
            "rpc/x",
        ] {
            let is_group = path == "fhir/Group/../$export";
            // Two dots are a FHIR id: no Group has it.
            assert_eq!(route("GET", path).is_ok(), is_group, "{path}");
            if !is_group {
                assert_eq!(route("GET", path), Err(Missing::Path), "{path}");
            }
        }
        assert_eq!(route("POST", "Patient/$dump"), Err(Missing::Method(vec!["GET"])));
        assert_eq!(route("PUT", "fhir/$export"), Err(Missing::Method(vec!["GET", "POST"])));
        assert_eq!(route("HEAD", "Patient/$dump"), Err(Missing::Method(vec!["GET"])));
    }
}
