//! The names of files that hold resources of one type.

/// What the name of a file begins with before any sign that is no letter, if it is one of NDJSON, gzipped or plain: where it follows the rule,
/// a resource type in whatever case. `fhir/1/patient-01.ndjson.gz` gives `patient`.
pub fn beginning(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let stem = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".ndjson")?;
    let end = stem.find(|c: char| !c.is_alphabetic()).unwrap_or(stem.len());
    (end > 0).then(|| &stem[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_a_type() {
        for (path, found) in [
            ("fhir/1/Patient.ndjson.gz", Some("Patient")),
            ("fhir/1/patient-01.ndjson.gz", Some("patient")),
            ("Observation.ndjson", Some("Observation")),
            ("MedicationRequest_2.ndjson", Some("MedicationRequest")),
            ("Patient2020.ndjson", Some("Patient")),
            ("import.ndjson", Some("import")),
            ("Patientä.ndjson", Some("Patientä")),
            ("01-patient.ndjson.gz", None),
            ("fhir/Patient", None),
            ("Patient.json", None),
            ("Patient.gz", None),
            ("Patient.ndjson.zip", None),
            ("Patient.ndjson/", None),
            (".ndjson", None),
            ("", None),
        ] {
            assert_eq!(beginning(path), found, "{path}");
        }
    }
}
