//! A reference's one string in FHIR and its parts in Aidbox format. Only the exact form `Type/id` is split; what else
//! there is (absolute, `urn:`, versioned, conditional) is kept whole as `uri`, so that nothing is lost.

/// What a FHIR reference string turns into.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `Patient/pt-1`: resource type and id.
    Relative(&'a str, &'a str),
    /// `#pt`: the id of a contained resource, without the sign.
    Local(&'a str),
    /// Anything else, verbatim.
    Uri(&'a str),
}

/// Reads a reference string.
pub fn split(reference: &str) -> Target<'_> {
    if let Some(local) = reference.strip_prefix('#') {
        return Target::Local(local);
    }
    match reference.split_once('/') {
        Some((kind, id)) if is_type(kind) && is_id(id) => Target::Relative(kind, id),
        _ => Target::Uri(reference),
    }
}

fn is_type(kind: &str) -> bool {
    kind.len() > 1 && kind.as_bytes()[0].is_ascii_uppercase() && kind.bytes().all(|b| b.is_ascii_alphabetic())
}

/// FHIR's id type: `[A-Za-z0-9\-\.]{1,64}`.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_type_and_id_is_split() {
        assert_eq!(split("Patient/pt-1"), Target::Relative("Patient", "pt-1"));
        assert_eq!(split("#pt"), Target::Local("pt"));
        assert_eq!(split("#"), Target::Local(""));
        for whole in [
            "http://external/fhir/Patient/pt-1",
            "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
            "urn:oid:1.2",
            "Patient/1/_history/2",
            "Patient?identifier=a|b",
            "patient/1",
            "Patient/",
            "/1",
            "Patient/a_b",
            "",
            "Patient",
            "Patient/1#x",
            "P/1",
        ] {
            assert_eq!(split(whole), Target::Uri(whole));
        }
        assert_eq!(split(&format!("Patient/{}", "a".repeat(65))), Target::Uri(&format!("Patient/{}", "a".repeat(65))));
    }
}
