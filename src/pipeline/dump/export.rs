//! Export: blocks of rows to lines of FHIR's NDJSON, of the resources that are asked for, and what is to be said of those that could not be
//! written.

use crate::error::{Error, Fault};
use crate::fhir::elements::Elements;
use crate::fhir::instant;
use crate::fhir::outcome::outcome;
use crate::fhir::search_filter::Filter;
use crate::fhir::search_parameters::{self, Path};
use crate::jsonb::document::{Document, Value};
use crate::jsonb::text::{self, Style};
use crate::pipeline::dump::id_hash_set::IdHashSet;
use crate::pipeline::dump::render::{RenderConfig, Writer};
use crate::pipeline::dump::stored_rows::{RowBlock, StoredRow};
use crate::pipeline::output_block;
use crate::pipeline::parallel_map::BlockTransform;
use serde_json::json;
use std::sync::Arc;

/// CompartmentFilter resources are asked for.
#[derive(Debug, Clone)]
pub enum CompartmentFilter {
    Everybodys,
    /// Those in the compartments of these, to whom the resource refers at one of the paths; of a Patient also itself.
    Patients {
        ids: Arc<IdHashSet>,
        paths: &'static [Path],
    },
    /// Of resources that are gone, of which the patient may be gone as well: those that refer to any.
    AnyPatients {
        paths: &'static [Path],
    },
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Resource,
    /// A Bundle that says that it is gone.
    Deletion,
}

/// How rows are exported.
#[derive(Debug)]
pub struct Exporter {
    /// To FHIR format.
    pub config: RenderConfig,
    pub what: What,
    pub scope: CompartmentFilter,
    /// One of which a resource must pass; none for all.
    pub filters: Vec<Filter>,
    pub elements: Elements,
    /// The Group that is exported, whose own resource is left out or goes without its characteristics.
    pub group: Option<(String, bool)>,
    pub gzip: bool,
}

/// What came of a block.
#[derive(Debug, Default)]
pub struct Exported {
    pub read: u64,
    /// Lines, perhaps gzipped, and how many.
    pub bytes: Vec<u8>,
    pub lines: u64,
    /// An OperationOutcome each, likewise.
    pub outcomes: Vec<u8>,
    pub failed: u64,
}

impl Exporter {
    /// Appends the row's line; false for one that is not asked for.
    fn line(&self, row: &StoredRow, writer: &mut Writer, out: &mut Vec<u8>) -> Result<bool, Fault> {
        let (mut root, resource_type) = writer.resource(&self.config, row)?;
        let id = crate::pipeline::dump::render::utf8(row.id)?;
        let document = writer.document();
        if !self.is_asked(document, root, resource_type, id) {
            return Ok(false);
        }
        if self.what == What::Deletion {
            let gone = row.last_updated.and_then(instant::from_timestamp);
            let entry = json!([{"request": {"method": "DELETE", "url": format!("{resource_type}/{id}")}}]);
            let mut bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entry});
            if let Some(gone) = gone {
                bundle["meta"] = json!({"lastUpdated": gone.as_str()});
            }
            out.extend_from_slice(bundle.to_string().as_bytes());
        } else {
            if let Some((group, _)) = &self.group
                && resource_type == "Group"
                && id == group
            {
                root = without(document, root, b"characteristic");
            }
            root = self.elements.cut(self.config.definitions, document, root, resource_type);
            if document.is_full() || !text::reserve(document, out) {
                return Err(Fault::TooLarge);
            }
            text::write(document, root, Style::Compact, out);
        }
        out.push(b'\n');
        writer.shrink();
        Ok(true)
    }

    fn is_asked(&self, document: &Document, root: Value, resource_type: &str, id: &str) -> bool {
        if let Some((group, is_named)) = &self.group
            && resource_type == "Group"
            && id == group
        {
            return *is_named;
        }
        let refers = |paths: &[Path], is_meant: &dyn Fn(&str) -> bool| {
            let mut found = |reference: Value| search_parameters::patient(document, reference).is_some_and(is_meant);
            paths.iter().any(|path| path.any(document, root, &mut found))
        };
        let is_whose = match &self.scope {
            CompartmentFilter::Everybodys => true,
            CompartmentFilter::Patients { ids, paths } => {
                (resource_type == "Patient" && ids.contains(id)) || refers(paths, &|id| ids.contains(id))
            }
            CompartmentFilter::AnyPatients { paths } => resource_type == "Patient" || refers(paths, &|_| true),
        };
        is_whose && (self.filters.is_empty() || self.filters.iter().any(|filter| filter.passes(document, root)))
    }
}

/// An object without one of its members.
fn without(document: &mut Document, root: Value, key: &[u8]) -> Value {
    let Value::Object(members) = root else { return root };
    let mark = document.open();
    for index in members.indices() {
        let member = document.member(index);
        if document.bytes(member.key) != key {
            document.push_member(member.key, member.value);
        }
    }
    document.close_object(mark)
}

impl BlockTransform<RowBlock> for Exporter {
    type Made = Exported;
    type Tools = Writer;

    fn transform(&self, block: &RowBlock, writer: &mut Writer) -> Result<Exported, Error> {
        let mut made = Exported { read: block.len() as u64, ..Exported::default() };
        made.bytes.try_reserve(block.size() + block.size() / 4 + 192 * block.len()).map_err(|_| Error::Memory)?;
        for row in block.iter() {
            let start = made.bytes.len();
            match self.line(&row, writer, &mut made.bytes) {
                Ok(asked) => made.lines += u64::from(asked),
                Err(fault) => {
                    made.bytes.truncate(start);
                    let kind = row
                        .resource_type
                        .map_or(self.config.resource_type.as_str(), |kind| crate::pipeline::dump::render::utf8(kind).unwrap_or_default());
                    let text = format!("{kind}/{} cannot be exported: {fault}", String::from_utf8_lossy(row.id));
                    made.outcomes.extend_from_slice(outcome("error", "exception", &text, None).to_string().as_bytes());
                    made.outcomes.push(b'\n');
                    made.failed += 1;
                }
            }
        }
        if self.gzip {
            for bytes in [&mut made.bytes, &mut made.outcomes] {
                if !bytes.is_empty() {
                    *bytes = output_block::gzip(bytes)?;
                }
            }
        }
        Ok(made)
    }
}
