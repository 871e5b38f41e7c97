//! Validation of stored rows: blocks of rows to what is wrong with them.

use crate::error::{Error, Fault, Reason};
use crate::fhir::structure::Structure;
use crate::fhir::validate::{self, Checks, Found, Reference};
use crate::pipeline::dump::render::{RenderConfig, Writer};
use crate::pipeline::dump::stored_rows::{RowBlock, StoredRow};
use crate::pipeline::parallel_map::BlockTransform;

/// Most findings of one resource that are recorded.
const MAX_ISSUES: usize = 10;

/// What is wrong with a stored resource.
#[derive(Debug)]
pub struct Finding {
    /// Of the table, as SQL spells it.
    pub table: String,
    pub resource_type: String,
    pub id: String,
    pub reason: Reason,
}

/// A row, and where it refers to.
#[derive(Debug)]
pub struct Referrer {
    pub resource_type: String,
    pub id: String,
    pub references: Vec<Reference>,
}

/// What came of a block.
#[derive(Debug, Default)]
pub struct ValidatedBlock {
    pub read: u64,
    /// Rows with findings.
    pub invalid: u64,
    pub findings: Vec<Finding>,
    pub referrers: Vec<Referrer>,
}

/// How rows are looked at.
#[derive(Debug)]
pub struct RowValidator {
    /// Its `to` is what the table holds.
    pub config: RenderConfig,
    /// The definitions.
    pub structure: &'static Structure,
    pub checks: Checks,
}

impl RowValidator {
    fn validate(&self, row: &StoredRow, writer: &mut Writer) -> Result<(String, Found), Fault> {
        let (root, resource_type) = writer.resource(&self.config, row)?;
        let resource_type = resource_type.to_owned();
        let found = validate::check(self.structure, writer.document(), root, &resource_type, self.config.to, self.checks, MAX_ISSUES);
        writer.shrink();
        Ok((resource_type, found))
    }
}

impl BlockTransform<RowBlock> for RowValidator {
    type Made = ValidatedBlock;
    type Tools = Writer;

    fn transform(&self, block: &RowBlock, writer: &mut Writer) -> Result<ValidatedBlock, Error> {
        let mut examined = ValidatedBlock { read: block.len() as u64, ..ValidatedBlock::default() };
        for row in block.iter() {
            let id = || String::from_utf8_lossy(row.id).into_owned();
            let (resource_type, faults, references) = match self.validate(&row, writer) {
                Ok((resource_type, found)) => {
                    let faults = found.findings.into_iter().map(|finding| Fault::Invalid { path: finding.path, problem: finding.problem });
                    (resource_type, faults.collect(), found.references)
                }
                Err(fault) => (self.config.resource_type.clone(), vec![fault], Vec::new()),
            };
            examined.invalid += u64::from(!faults.is_empty());
            examined.findings.extend(faults.into_iter().map(|fault| Finding {
                table: self.config.table.clone(),
                resource_type: resource_type.clone(),
                id: id(),
                reason: Reason::Fault(fault),
            }));
            if !references.is_empty() {
                examined.referrers.push(Referrer { resource_type, id: id(), references });
            }
        }
        Ok(examined)
    }
}
