//! Finds references to resources that do not exist.

use crate::error::{Error, Fault, Reason};
use crate::fhir::definitions::Definitions;
use crate::jsonb::varlena;
use crate::pg::catalog::resource_table;
use crate::pg::sys::ephemeral_relation::{Column, Ephemeral};
use crate::pg::sys::sql;
use crate::pipeline::validate_rows::{Finding, Referrer};
use pgrx::pg_sys;
use std::collections::BTreeSet;

const REFERENCES: [Column; 5] = [
    (c"referrer_type", pg_sys::TEXTOID),
    (c"referrer_id", pg_sys::TEXTOID),
    (c"type", pg_sys::TEXTOID),
    (c"id", pg_sys::TEXTOID),
    (c"path", pg_sys::TEXTOID),
];

/// Findings that are fetched at a time.
const AT_ONCE: i64 = 500;

/// The condition that no resource of a type has the id of `r`, to be added to others; empty where there is no table.
pub fn none_stored(definitions: &Definitions, resource_type: &str) -> String {
    // A table of another shape holds no resources.
    let stored = resource_table::type_name(definitions, resource_type).and_then(|name| resource_table::lookup(&name)).ok().flatten();
    stored.map_or(String::new(), |table| {
        format!(
            "and not exists (select from {} t where t.id operator(pg_catalog.=) r.id \
             and {})",
            table.name,
            resource_table::is_current("t.status")
        )
    })
}

/// A text as a value, in a buffer that must outlive it.
pub fn text(value: &str, buffer: &mut Vec<u8>) -> pg_sys::Datum {
    buffer.clear();
    buffer.extend_from_slice(&varlena::header_of(value.len() as u32 + 4));
    buffer.extend_from_slice(value.as_bytes());
    pg_sys::Datum::from(buffer.as_ptr())
}

/// Types that are referred to. However many names a source makes up, those of which nothing can be stored count as one, without a name.
#[derive(Debug, Default)]
pub struct ReferredTypes(BTreeSet<String>);

impl ReferredTypes {
    /// The name under which a type's references are kept.
    pub fn known<'a>(&mut self, definitions: &Definitions, resource_type: &'a str) -> &'a str {
        if self.0.contains(resource_type) {
            return resource_type;
        }
        let known = if resource_table::may_be_there(definitions, resource_type) { resource_type } else { "" };
        if !self.0.contains(known) {
            self.0.insert(known.to_owned());
        }
        known
    }

    /// Each of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Stored resources and what they refer to.
#[derive(Debug)]
pub struct Referrers {
    definitions: &'static Definitions,
    table: String,
    references: Ephemeral,
    types: ReferredTypes,
}

impl Referrers {
    /// Of a table, its name ready for SQL.
    pub fn new(definitions: &'static Definitions, table: &str) -> Referrers {
        let references = Ephemeral::new(c"bulk_references", &REFERENCES);
        Referrers { definitions, table: table.to_owned(), references, types: ReferredTypes::default() }
    }

    /// Adds the references of a resource.
    pub fn put(&mut self, referrer: &Referrer) {
        let mut buffers: [Vec<u8>; 5] = Default::default();
        for reference in &referrer.references {
            let named = self.types.known(self.definitions, &reference.resource_type);
            let texts = [&referrer.resource_type, &referrer.id, named, &reference.id, &reference.path];
            let [a, b, c, d, e] = &mut buffers;
            // The store copies what it is given.
            let values = [text(texts[0], a), text(texts[1], b), text(texts[2], c), text(texts[3], d), text(texts[4], e)];
            self.references.put(values, [false; 5]);
        }
    }

    /// References so far.
    pub fn len(&self) -> u64 {
        self.references.rows
    }

    /// Gives what leads nowhere to `tell`, some at a time.
    ///
    /// # Errors
    /// Those of `each` and of the look-ups.
    pub fn dangling(self, mut tell: impl FnMut(&[Finding]) -> Result<(), Error>) -> Result<(), Error> {
        for resource_type in self.types.names() {
            let statement = format!(
                "select r.referrer_type, r.referrer_id, r.path from bulk_references r where r.type operator(pg_catalog.=) $1 {}",
                none_stored(self.definitions, resource_type)
            );
            sql::with_cursor(&statement, &[resource_type.into()], &[&self.references], AT_ONCE, |cursor| {
                let mut found = Vec::new();
                while let Some(row) = cursor.next_row() {
                    found.push(Finding {
                        table: self.table.clone(),
                        resource_type: row.text(1).unwrap_or_default(),
                        id: row.text(2).unwrap_or_default(),
                        reason: Reason::Fault(Fault::Dangling { path: row.text(3).unwrap_or_default() }),
                    });
                    if found.len() == AT_ONCE as usize {
                        tell(&found)?;
                        found.clear();
                    }
                }
                if found.is_empty() { Ok(()) } else { tell(&found) }
            })?;
        }
        self.references.close();
        Ok(())
    }
}
