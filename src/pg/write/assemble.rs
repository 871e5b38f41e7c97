//! Assembles a load from its options and this session's settings: how its sources are reached, its lines encoded, its rows stored.

use crate::error::Error;
use crate::fhir::format::Format;
use crate::fhir::overlay::Changes;
use crate::fhir::validate::Checks;
use crate::fhir::{definitions, structure};
use crate::pg::state::storage_account;
use crate::pg::sys::guc;
use crate::pg::write::destination::{Destination, IdGuarantee, StagingTarget};
use crate::pipeline::load::counters;
use crate::pipeline::load::encode::{EncodeConfig, Rules};
use crate::pipeline::load::existing_rows::Policy;
use crate::pipeline::load::options::LoadOptions;
use crate::store::account::azure_object;
use crate::store::bucket::Bucket;
use crate::store::net::client_config::ClientConfig;
use crate::store::source::Source;
use std::rc::Rc;

/// How its sources are reached.
///
/// # Errors
/// As `guc::network` and `storage_account::of`.
pub fn access(options: &LoadOptions, sources: &[Source]) -> Result<ClientConfig, Error> {
    let buckets: Vec<Bucket> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Object(bucket, _) => Some(bucket.clone()),
            // Without an account it is one of a web server.
            Source::Http(url) => azure_object(url).map(|(_, container, _)| Bucket::Azure(container.to_owned())),
            Source::File(_) => None,
        })
        .collect();
    Ok(ClientConfig {
        accounts: storage_account::of(buckets.iter(), None)?,
        headers: options.headers.clone(),
        connect_timeout: options.connect_timeout,
        read_timeout: options.read_timeout,
        retries: options.retries,
        accept_unframed: options.accept_unframed,
        ..guc::network()?
    })
}

/// What is done with every line first.
///
/// # Errors
/// `InvalidOption` for a `merge` that is no object that can be stored.
pub fn changes(options: &LoadOptions) -> Result<Changes, Error> {
    let wrong = |_| Error::InvalidOption { name: "merge", expected: "a JSON object that can be stored" };
    Changes::new(options.merge.as_deref(), options.strip_nulls, guc::max_depth()).map_err(wrong)
}

/// How its lines become rows.
pub fn config(
    source: &str,
    resource_type: Option<&str>,
    fhir: bool,
    options: &LoadOptions,
    changes: &Changes,
    compression: &Rules,
) -> EncodeConfig {
    EncodeConfig {
        source: source.to_owned(),
        definitions: definitions::r4(),
        resource_type: resource_type.map(str::to_owned),
        from: if fhir { Format::Fhir } else { Format::Aidbox },
        stored: guc::resource_format(),
        created_at_url: guc::created_at_url(),
        changes: changes.clone(),
        checks: (options.checks != Checks::default()).then(|| (structure::r4(), options.checks)),
        take_meta: options.policy.take_meta(),
        versions: None,
        compression: compression.clone(),
        reject_limit: counters::reject_limit(options.max_errors),
        keep_lines: options.max_errors > 0,
        max_line: guc::max_line(),
        max_depth: guc::max_depth(),
    }
}

/// Where its rows go.
pub fn destination(options: &LoadOptions) -> Destination {
    let stage = options.temp_table.clone().map(|name| StagingTarget { name, policy: options.policy });
    // A stage has no history; what it is merged into may have.
    let policy = Policy { keep_history: options.policy.keep_history && stage.is_none(), ..options.policy };
    Destination {
        definitions: definitions::r4(),
        create_tables: options.create_tables,
        policy,
        method: options.method,
        compression: Rules::default(),
        stage,
        said: Rc::default(),
        last_line_wins: None,
        expect_new: false,
        ids: IdGuarantee::Any,
        found: Rc::default(),
    }
}
