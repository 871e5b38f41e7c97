//! Lists a bucket: files whose names say which type they hold, in the order in which they are loaded, and those that are ignored.

use crate::error::{Error, SourceFault};
use crate::fhir::definitions;
use crate::operation::bucket::request::{Params, Scheduler};
use crate::pg::catalog::resource_table;
use crate::pipeline::blocking;
use crate::pipeline::wait_control::WaitControl;
use crate::store::net::client_config::ClientConfig;
use crate::store::object::object_store::Object;
use crate::text::file_name;
use std::collections::{BTreeSet, HashMap};

/// Ignored files that the answer names.
const MOST_IGNORED: usize = 1000;
/// What is kept of the files to load: of about a million.
const MOST_MEGABYTES: usize = 256;
/// How much longer a file is inflated: text of FHIR in gzip.
const INFLATION: u64 = 12;

/// A file to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub object: Object,
    pub resource_type: String,
}

/// The objects of a bucket, sorted into those that are loaded and others.
#[derive(Debug, Default)]
pub struct Listing {
    pub found: Vec<Found>,
    /// The first of them by name.
    pub ignored: Vec<String>,
    pub ignored_in_all: u64,
}

/// Lists a bucket.
///
/// # Errors
/// `Source` where the listing fails or is interrupted.
pub fn list(params: &Params, access: ClientConfig, control: &mut dyn WaitControl) -> Result<Listing, Error> {
    let (bucket, prefixes) = (params.bucket.clone(), params.prefixes.clone());
    let (named, mut listing) = blocking::run(control, move |interrupt| {
        let failed = |fault| Error::source(&bucket.url(), fault);
        let store = bucket.store(&access, interrupt).map_err(failed)?;
        let (mut named, mut listing) = (HashMap::new(), Listing::default());
        let mut bytes = 0;
        let mut ignored = BTreeSet::new();
        for prefix in wanted(&prefixes) {
            let each = &mut |object: Object| {
                if interrupt.is_stopped() {
                    return Err(SourceFault::Timeout);
                }
                // What stands for a directory is no file.
                let is_file = !object.key.ends_with('/');
                if file_name::beginning(&object.key).is_some() {
                    bytes += size_of::<(String, Object)>() + 2 * object.key.len() + object.etag.as_ref().map_or(0, String::len);
                    if bytes > MOST_MEGABYTES << 20 {
                        return Err(SourceFault::ListingTooLong { most: MOST_MEGABYTES });
                    }
                    named.insert(object.key.clone(), object);
                } else if is_file {
                    listing.ignored_in_all += 1;
                    if ignored.len() < MOST_IGNORED {
                        ignored.insert(object.key);
                    }
                }
                Ok(())
            };
            store.list(prefix, each).map_err(failed)?;
        }
        listing.ignored = ignored.into_iter().collect();
        Ok((named, listing))
    })?;
    let mut types: HashMap<String, Option<String>> = HashMap::new();
    for (_, object) in named {
        let beginning = file_name::beginning(&object.key).unwrap_or_default();
        let known = match types.get(beginning) {
            Some(known) => known.clone(),
            None => types.entry(beginning.to_owned()).or_insert(resource_type(beginning)?).clone(),
        };
        match known {
            Some(resource_type) => listing.found.push(Found { object, resource_type }),
            None => {
                listing.ignored_in_all += 1;
                if listing.ignored.len() < MOST_IGNORED {
                    listing.ignored.push(object.key);
                }
            }
        }
    }
    listing.ignored.sort();
    order(&mut listing.found, params.scheduler);
    Ok(listing)
}

/// Prefixes of which none begins with another: what each finds is found once.
fn wanted(prefixes: &[String]) -> Vec<&str> {
    if prefixes.is_empty() {
        return vec![""];
    }
    let mut sorted: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut wanted: Vec<&str> = Vec::new();
    for prefix in sorted {
        if wanted.last().is_none_or(|last| !prefix.starts_with(last)) {
            wanted.push(prefix);
        }
    }
    wanted
}

/// The type that a name begins with: one of R4 in whatever case, or of a table that is there.
fn resource_type(beginning: &str) -> Result<Option<String>, Error> {
    let definitions = definitions::r4();
    if let Some(name) = definitions.resource_types().find(|name| name.eq_ignore_ascii_case(beginning)) {
        return Ok(Some(name.to_owned()));
    }
    match resource_table::type_name(definitions, beginning) {
        Ok(name) => match resource_table::lookup(&name) {
            Ok(found) => Ok(found.map(|_| name)),
            Err(Error::WrongShape { .. }) => Ok(None),
            Err(error) => Err(error),
        },
        Err(_) => Ok(None),
    }
}

/// Longest first: a worker that begins a long one last would be waited for.
fn order(found: &mut [Found], scheduler: Scheduler) {
    match scheduler {
        Scheduler::Optimal => found.sort_by(|a, b| length(b).cmp(&length(a)).then_with(|| a.object.key.cmp(&b.object.key))),
        Scheduler::ByLastModified => found.sort_by_key(|found| (instant(&found.object), found.object.key.clone())),
    }
}

/// About how long it is as text.
fn length(found: &Found) -> u64 {
    let factor = if found.object.key.ends_with(".gz") { INFLATION } else { 1 };
    found.object.size.saturating_mul(factor)
}

/// A text that sorts as the time does, of either of the two spellings of stores.
fn instant(object: &Object) -> String {
    let text = object.modified.clone().unwrap_or_default();
    match httpdate::parse_http_date(&text).ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()) {
        Some(since) => format!("{:020}", since.as_secs()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str, size: u64, modified: &str) -> Found {
        let object = Object { key: key.to_owned(), size, etag: None, modified: Some(modified.to_owned()) };
        Found { object, resource_type: "Patient".to_owned() }
    }

    #[test]
    fn the_longest_come_first_or_the_oldest() {
        let mut files = vec![
            found("a.ndjson", 100, "2026-01-03T00:00:00.000Z"),
            found("b.ndjson.gz", 100, "2026-01-02T00:00:00.000Z"),
            found("c.ndjson", 500, "2026-01-01T00:00:00.000Z"),
        ];
        let keys = |files: &[Found]| files.iter().map(|found| found.object.key[..1].to_owned()).collect::<String>();
        order(&mut files, Scheduler::Optimal);
        assert_eq!(keys(&files), "bca");
        order(&mut files, Scheduler::ByLastModified);
        assert_eq!(keys(&files), "cba");
        let mut local = vec![found("a", 1, "Sun, 06 Nov 1994 08:49:37 GMT"), found("b", 1, "Sat, 05 Nov 1994 08:49:37 GMT")];
        order(&mut local, Scheduler::ByLastModified);
        assert_eq!(keys(&local), "ba");
    }

    #[test]
    fn what_two_prefixes_find_is_found_once() {
        let prefixes = ["b", "a/1", "a", "b/2"].map(str::to_owned);
        assert_eq!(wanted(&prefixes), ["a", "b"]);
        assert_eq!(wanted(&[]), [""]);
        assert_eq!(wanted(&["".to_owned(), "x".to_owned()]), [""]);
    }
}
