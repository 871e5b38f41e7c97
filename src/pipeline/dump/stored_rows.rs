//! Stored rows on their way out of the backend: packed, as raw as they came, to be turned into lines elsewhere.

use crate::error::{Error, Fault};
use crate::jsonb::toast;
use std::ops::Range;

/// Rows one behind another.
#[derive(Debug, Default)]
pub struct RowBlock {
    bytes: Vec<u8>,
    rows: Vec<Packed>,
    size: usize,
}

#[derive(Debug)]
struct Packed {
    id: Range<usize>,
    resource_type: Option<Range<usize>>,
    resource: Range<usize>,
    version: i64,
    last_updated: Option<i64>,
    created_at: Option<i64>,
}

/// A row as the table holds it. Times are microseconds since 2000-01-01 UTC.
#[derive(Debug, Clone, Copy)]
pub struct StoredRow<'a> {
    pub id: &'a [u8],
    pub resource_type: Option<&'a [u8]>,
    pub version: i64,
    pub last_updated: Option<i64>,
    pub created_at: Option<i64>,
    /// The resource's varlena, inline; perhaps compressed.
    pub resource: &'a [u8],
}

impl StoredRow<'_> {
    /// What is wrong with it.
    pub fn error(&self, table: &str, fault: Fault) -> Error {
        Error::Row { table: table.to_owned(), id: String::from_utf8_lossy(self.id).chars().take(100).collect(), fault }
    }
}

impl RowBlock {
    /// An empty block with room for this many bytes.
    ///
    /// # Errors
    /// `Memory`.
    pub fn with_capacity(bytes: usize) -> Result<RowBlock, Error> {
        let mut block = RowBlock::default();
        block.bytes.try_reserve(bytes).map_err(|_| Error::Memory)?;
        Ok(block)
    }

    /// Adds a copy of a row.
    ///
    /// # Errors
    /// `Memory`.
    pub fn push(&mut self, row: StoredRow) -> Result<(), Error> {
        let bytes = row.id.len() + row.resource_type.map_or(0, <[u8]>::len) + row.resource.len();
        self.bytes.try_reserve(bytes).map_err(|_| Error::Memory)?;
        self.size += row.id.len() + toast::inflated_size(row.resource);
        let mut add = |bytes: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            start..self.bytes.len()
        };
        self.rows.push(Packed {
            id: add(row.id),
            resource_type: row.resource_type.map(&mut add),
            resource: add(row.resource),
            version: row.version,
            last_updated: row.last_updated,
            created_at: row.created_at,
        });
        Ok(())
    }

    /// Bytes that the rows take once inflated.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = StoredRow<'_>> {
        self.rows.iter().map(|row| StoredRow {
            id: &self.bytes[row.id.clone()],
            resource_type: row.resource_type.clone().map(|range| &self.bytes[range]),
            version: row.version,
            last_updated: row.last_updated,
            created_at: row.created_at,
            resource: &self.bytes[row.resource.clone()],
        })
    }
}
