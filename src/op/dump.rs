//! Dump: a stored row to its line of NDJSON.

use crate::error::Fault;
use crate::fhir::definitions::Definitions;
use crate::fhir::envelope::{self, Row};
use crate::fhir::{Format, convert};
use crate::jsonb::text::{self, Style};
use crate::jsonb::{Document, decode};

/// Text that the reused document may keep from one row to the next.
const KEEP: usize = 1 << 20;

/// How rows become lines.
#[derive(Debug)]
pub struct Writer {
    pub definitions: &'static Definitions,
    /// What the tables hold.
    pub stored: Format,
    pub to: Format,
    pub created_at_url: String,
    pub max_depth: usize,
    document: Document,
}

impl Writer {
    pub fn new(definitions: &'static Definitions, stored: Format, to: Format, created_at_url: String, max_depth: usize) -> Writer {
        Writer { definitions, stored, to, created_at_url, max_depth, document: Document::new() }
    }

    /// Appends a row's line, without its end. `resource` is inflated jsonb behind its varlena header.
    pub fn line(&mut self, row: &Row, resource: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let document = &mut self.document;
        let mut root = decode::decode(document, resource, self.max_depth)?;
        if self.stored != self.to {
            root = convert::resource(self.definitions, document, root, row.resource_type, self.to);
        }
        let root = envelope::wrap(document, root, row, self.to, &self.created_at_url)?;
        let style = match self.to {
            Format::Aidbox => Style::Spaced,
            Format::Fhir => Style::Compact,
        };
        text::write(document, root, style, out);
        document.shrink(KEEP);
        Ok(())
    }
}
