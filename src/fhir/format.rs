//! The two ways in which a resource is written as JSON.

/// How a resource is written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aidbox's: references split, choice elements nested. <https://docs.aidbox.app>, "Aidbox & FHIR formats".
    Aidbox,
    /// FHIR's own. <https://hl7.org/fhir/R4/json.html>
    Fhir,
}
