//! A stored row to its line of NDJSON.

use crate::error::Fault;
use crate::fhir::convert;
use crate::fhir::definitions::Definitions;
use crate::fhir::format::Format;
use crate::fhir::instant::{self, Instant};
use crate::fhir::resource_meta::{self, Row};
use crate::jsonb::document::{Document, Value};
use crate::jsonb::text::{self, Style};
use crate::jsonb::{decode, toast};
use crate::pipeline::dump::stored_rows::StoredRow;

/// Bytes that reused memory may keep from one row to the next.
const KEEP: usize = 1 << 20;

/// What lines are made by.
#[derive(Debug, Clone)]
pub struct RenderConfig {
    pub definitions: &'static Definitions,
    /// Of rows that do not say theirs.
    pub resource_type: String,
    /// Name of the table, for errors.
    pub table: String,
    /// What the table holds.
    pub stored: Format,
    pub to: Format,
    pub created_at_url: String,
    /// Of what was loaded. Stored it may be deeper: conversion nests choices.
    pub max_depth: usize,
    pub has_created_at: bool,
    pub has_last_updated: bool,
}

/// Makes lines, in memory that it reuses.
#[derive(Debug, Default)]
pub struct Writer {
    document: Document,
    inflated: Vec<u8>,
}

impl Writer {
    /// Appends a row's line, without its end.
    ///
    /// # Errors
    /// Why the row cannot be written.
    pub fn line(&mut self, config: &RenderConfig, row: &StoredRow, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (root, _) = self.resource(config, row)?;
        let document = &self.document;
        let style = match config.to {
            Format::Aidbox => Style::Spaced,
            Format::Fhir => Style::Compact,
        };
        if document.is_full() || !text::reserve(document, out) {
            return Err(Fault::TooLarge);
        }
        text::write(document, root, style, out);
        self.shrink();
        Ok(())
    }

    /// Reads a row's whole resource into the document, as its line says it; with it the row's type.
    ///
    /// # Errors
    /// As `line`.
    pub fn resource<'a>(&mut self, config: &'a RenderConfig, row: &StoredRow<'a>) -> Result<(Value, &'a str), Fault> {
        let (root, resource_type) = self.read(config, row)?;
        let document = &mut self.document;
        let (version_id, last_updated, created_at) =
            (row.version.to_string(), row.last_updated.and_then(instant::from_timestamp), row.created_at.and_then(instant::from_timestamp));
        let facts = Row {
            id: utf8(row.id)?,
            resource_type,
            version_id: &version_id,
            last_updated: last_updated.as_ref().map(Instant::as_str),
            created_at: created_at.as_ref().map(Instant::as_str),
            owns_last_updated: config.has_last_updated,
            owns_created_at: config.has_created_at,
        };
        Ok((resource_meta::wrap(document, root, &facts, config.to, &config.created_at_url)?, resource_type))
    }

    /// Reads a row's resource into the document, in the format asked for; with it the row's type.
    ///
    /// # Errors
    /// As `line`.
    pub fn read<'a>(&mut self, config: &'a RenderConfig, row: &StoredRow<'a>) -> Result<(Value, &'a str), Fault> {
        let resource_type = row.resource_type.map_or(Ok(config.resource_type.as_str()), utf8)?;
        let resource = toast::plain(row.resource, &mut self.inflated)?;
        let mut root = decode::decode(&mut self.document, resource, 2 * config.max_depth + 8)?;
        if config.stored != config.to {
            root = convert::resource(config.definitions, &mut self.document, root, resource_type, config.to);
        }
        Ok((root, resource_type))
    }

    /// What `read` read into.
    pub fn document(&mut self) -> &mut Document {
        &mut self.document
    }

    /// Gives back memory after an unusually large row.
    pub fn shrink(&mut self) {
        self.document.shrink(KEEP);
        self.inflated.clear();
        self.inflated.shrink_to(KEEP);
    }
}

/// Text of the database.
///
/// # Errors
/// `Encoding`.
pub fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Encoding)
}
