//! The parameters of an export: those of a query string, as strings and lists of them, or a Parameters resource.

use crate::fhir::definitions::Definitions;
use crate::fhir::elements::Elements;
use crate::fhir::search_filter::Filter;
use crate::fhir::{instant, search_parameters};
use crate::operation::response::Refusal;
use crate::operation::storage::Overrides;
use serde_json::{Value, json};

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    System,
    Patient,
    Group,
}

impl Level {
    /// None for an unknown word.
    pub fn read(word: &str) -> Option<Level> {
        Some(match word {
            "system" => Level::System,
            "patient" => Level::Patient,
            "group" => Level::Group,
            _ => return None,
        })
    }

    /// As `bulk.export` takes it.
    pub fn word(self) -> &'static str {
        match self {
            Level::System => "system",
            Level::Patient => "patient",
            Level::Group => "group",
        }
    }
}

/// The parameters of an export (https://hl7.org/fhir/uv/bulkdata/export.html#query-parameters).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    pub gzip: bool,
    /// None for all.
    pub types: Option<Vec<String>>,
    /// In microseconds since 2000-01-01 UTC.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// A type and a search of it.
    pub filters: Vec<(String, String)>,
    pub elements: Elements,
    pub patients: Vec<Patient>,
    pub ignores_patient_errors: bool,
    pub storage: Overrides,
    /// What is said of those that are not known, where that is to be borne.
    pub ignored: Vec<String>,
    /// As they stand in a query string, without secrets.
    pub query: Vec<(String, String)>,
}

/// A patient as the request names it, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patient {
    pub reference: String,
    /// None for a reference to no patient.
    pub id: Option<String>,
    pub expression: String,
}

/// Names, and the member of a Parameters resource that holds the value.
const KNOWN: [Known; 13] = [
    ("_outputFormat", "valueString"),
    ("_type", "valueString"),
    ("_since", "valueInstant"),
    ("_until", "valueInstant"),
    ("_typeFilter", "valueString"),
    ("_elements", "valueString"),
    ("patient", "valueReference"),
    ("onPatientError", "valueCode"),
    ("_aidbox.storageProvider", "valueString"),
    ("_aidbox.storageBucket", "valueString"),
    ("_aidbox.azureStorage", "valueString"),
    ("_aidbox.azureContainer", "valueString"),
    ("_aidbox.storageAccount", "valueReference"),
];
/// Those that may be given several times.
const REPEATED: [&str; 4] = ["_type", "_typeFilter", "_elements", "patient"];
const PLAIN: [&str; 4] = ["application/fhir+ndjson", "application/ndjson+fhir", "application/ndjson", "ndjson"];
const GZIPPED: [&str; 6] = [
    "application/fhir+ndjson+gzip",
    "application/fhir+gzip+ndjson",
    "application/ndjson+fhir+gzip",
    "application/ndjson+gzip+fhir",
    "application/gzip+fhir+ndjson",
    "application/gzip+ndjson+fhir",
];

/// One of these.
type Known = (&'static str, &'static str);
/// Whether what is not known is borne.
type Ignore<'a> = dyn FnMut(Result<Known, Refusal>) -> Result<Option<Known>, Refusal> + 'a;

/// A parameter as it is given.
struct RawParam {
    name: &'static str,
    value: String,
    expression: String,
}

/// As much of a text of the caller's as an answer repeats.
pub fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

fn wrong_type(name: &str, expected: &str, expression: String) -> Refusal {
    Refusal::new(422, "wrong-union-type", format!("parameter {name} must have a {expected}")).at(expression)
}

/// What becomes of parameters that are not known: `Prefer: handling=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    Strict,
    Lenient,
}

fn known(name: &str, expression: &str) -> Result<Known, Refusal> {
    KNOWN.into_iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        let text = format!("parameter \"{}\" is unknown or not supported: known are {}", short(name), names.join(", "));
        Refusal::new(422, "unmatched-element-in-closed-slicing", text).at(expression)
    })
}

/// Of a JSON object as a query string has it.
fn of_query(object: &serde_json::Map<String, Value>, ignore: &mut Ignore) -> Result<Vec<RawParam>, Refusal> {
    let mut given = Vec::new();
    for (name, value) in object {
        let Some((name, _)) = ignore(known(name, name))? else { continue };
        let values: Vec<&Value> = match value {
            Value::Null => continue,
            Value::Array(values) => values.iter().collect(),
            value => vec![value],
        };
        for value in values {
            let value = value.as_str().ok_or_else(|| wrong_type(name, "string", name.to_owned()))?;
            // In a query string a plus may have become a space; none of these has one.
            let spaced = ["_outputFormat", "_since", "_until"].contains(&name);
            let value = if spaced { value.replace(' ', "+") } else { value.to_owned() };
            given.push(RawParam { name, value, expression: name.to_owned() });
        }
    }
    Ok(given)
}

/// Of a Parameters resource.
fn of_resource(resource: &Value, ignore: &mut Ignore) -> Result<Vec<RawParam>, Refusal> {
    let list = match &resource["parameter"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(Refusal::new(422, "invalid", "parameter must be a list").at("Parameters.parameter")),
    };
    let read = |(index, parameter): (usize, &Value)| {
        let expression = format!("Parameters.parameter[{index}]");
        let Some((name, member)) = ignore(known(parameter["name"].as_str().unwrap_or_default(), &expression))? else { return Ok(None) };
        let value = match &parameter[member] {
            Value::Object(reference) if member == "valueReference" => reference.get("reference").and_then(Value::as_str),
            value if member != "valueReference" => value.as_str(),
            _ => None,
        };
        let value = value.ok_or_else(|| wrong_type(name, member, expression.clone()))?.to_owned();
        Ok(Some(RawParam { name, value, expression }))
    };
    list.iter().enumerate().map(read).filter_map(Result::transpose).collect()
}

impl Params {
    /// Reads them for a level.
    ///
    /// # Errors
    /// 400 names the parameter that is wrong.
    pub fn read(definitions: &Definitions, level: Level, params: &Value, handling: Handling) -> Result<Params, Refusal> {
        let is_resource = params["resourceType"] == json!("Parameters");
        let mut read = Params::default();
        let mut ignore = |found: Result<Known, Refusal>| match (found, handling) {
            (Ok(known), _) => Ok(Some(known)),
            (Err(refusal), Handling::Strict) => Err(refusal),
            (Err(refusal), Handling::Lenient) => {
                read.ignored.push(format!("ignored: {}", refusal.text));
                Ok(None)
            }
        };
        let given = match params {
            Value::Null => Vec::new(),
            resource if is_resource => of_resource(resource, &mut ignore)?,
            Value::Object(object) => of_query(object, &mut ignore)?,
            _ => return Err(Refusal::new(400, "invalid", "parameters must be a JSON object")),
        };
        let mut seen: Vec<&str> = Vec::new();
        for RawParam { name, value, expression } in given {
            let refuse = |status: u16, text: String| Err(Refusal::new(status, "value", text).at(expression.clone()));
            if seen.contains(&name) && !REPEATED.contains(&name) {
                return refuse(422, format!("parameter {name} is given twice"));
            }
            seen.push(name);
            if !is_resource {
                read.query.push((name.to_owned(), value.clone()));
            }
            read.set(definitions, RawParam { name, value, expression }, is_resource)?;
        }
        read.check(definitions, level, is_resource)
    }

    /// Takes a parameter up; whatever is repeated is added to what was there.
    fn set(&mut self, definitions: &Definitions, given: RawParam, is_resource: bool) -> Result<(), Refusal> {
        let RawParam { name, value, expression } = given;
        let refuse = |status: u16, text: String| Err(Refusal::new(status, "value", text).at(expression.clone()));
        let instant = || {
            instant::range(&value)
                .map(|(start, _)| start)
                .ok_or_else(|| Refusal::new(422, "value", format!("{name} must be an instant")).at(expression.clone()))
        };
        let listed = || value.split(',').map(str::trim).filter(|task| !task.is_empty()).map(str::to_owned);
        match name {
            "_outputFormat" => match value.as_str() {
                format if PLAIN.contains(&format) => self.gzip = false,
                format if GZIPPED.contains(&format) => self.gzip = true,
                _ => return refuse(422, format!("_outputFormat \"{}\" is not supported", short(&value))),
            },
            "_type" => self.types.get_or_insert_default().extend(listed()),
            "_since" => self.since = Some(instant()?),
            "_until" => self.until = Some(instant()?),
            "_typeFilter" => {
                self.filters.push(filter(definitions, &value).map_err(|text| Refusal::new(400, "invalid", text).at(expression.clone()))?)
            }
            "_elements" => {
                for name in listed() {
                    if !self.elements.add(definitions, &name) {
                        return refuse(400, format!("_elements \"{}\" is no element at the root of a resource", short(&name)));
                    }
                }
            }
            "patient" => {
                let references: Vec<String> = if is_resource { vec![value.clone()] } else { listed().collect() };
                self.patients.extend(references.into_iter().map(|reference| Patient::read(reference, expression.clone())));
            }
            "onPatientError" => match value.as_str() {
                "fail" => self.ignores_patient_errors = false,
                "ignore" => self.ignores_patient_errors = true,
                _ => return refuse(422, "onPatientError must be fail or ignore".to_owned()),
            },
            "_aidbox.storageProvider" => self.storage.provider = Some(value),
            "_aidbox.storageBucket" => self.storage.bucket = Some(value),
            "_aidbox.azureStorage" => self.storage.azure_storage = Some(value),
            "_aidbox.azureContainer" => self.storage.azure_container = Some(value),
            _ => match value.split_once('/') {
                Some(("AwsAccount" | "GcpServiceAccount" | "AzureAccount" | "AzureContainer", id)) if !id.is_empty() => {
                    self.storage.account = Some(id.to_owned());
                }
                _ => return refuse(422, "_aidbox.storageAccount must refer to an account: AwsAccount/id".to_owned()),
            },
        }
        Ok(())
    }

    fn check(mut self, definitions: &Definitions, level: Level, is_resource: bool) -> Result<Params, Refusal> {
        if let Some(types) = &mut self.types {
            types.sort_unstable();
            types.dedup();
            if let Some(unknown) = types.iter().find(|name| definitions.resource(name).is_none()) {
                let text = format!("_type \"{}\" is no resource type of FHIR R4", short(unknown));
                return Err(Refusal::new(400, "not-supported", text).at("_type"));
            }
        }
        let is_left_out = |name: &str| self.types.as_ref().is_some_and(|types| !types.iter().any(|known| known == name));
        if let Some((name, _)) = self.filters.iter().find(|(name, _)| is_left_out(name)) {
            return Err(Refusal::new(400, "invalid", format!("_typeFilter of {name}, which _type leaves out")).at("_typeFilter"));
        }
        if !self.patients.is_empty() && (level == Level::System || (level == Level::Group && !is_resource)) {
            let text = match level {
                Level::System => "patient is for exports of patients",
                _ => "patient of a Group is given in the body of a POST: a Parameters resource",
            };
            return Err(Refusal::new(422, "invalid", text).at("patient"));
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Refusal::new(422, "value", "_until must be after _since").at("_until"));
        }
        Ok(self)
    }
}

/// `Type?search`.
fn filter(definitions: &Definitions, value: &str) -> Result<(String, String), String> {
    let (name, query) = value.split_once('?').ok_or("_typeFilter must be a type, ? and a search of it")?;
    if definitions.resource(name).is_none() {
        return Err(format!("_typeFilter of \"{}\", which is no resource type of FHIR R4", short(name)));
    }
    Filter::parse(search_parameters::r4(), name, query)?;
    Ok((name.to_owned(), query.to_owned()))
}

impl Patient {
    /// `Patient/id`, or the id alone.
    fn read(reference: String, expression: String) -> Patient {
        let id = match reference.split_once('/') {
            None => Some(reference.clone()),
            Some(("Patient", id)) if !id.is_empty() && !id.contains('/') => Some(id.to_owned()),
            Some(_) => None,
        };
        Patient { reference, id, expression }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::definitions::r4;

    fn read(level: Level, params: Value) -> Params {
        Params::read(r4(), level, &params, Handling::Strict).unwrap()
    }

    #[test]
    fn query_strings_and_resources_say_the_same() {
        let of_query = read(
            Level::Patient,
            json!({"_type": "Patient,Observation", "_since": "2021-01-01T00:00:00Z", "patient": ["a,Patient/b", "Patient/c"],
                "_outputFormat": "application/fhir ndjson gzip", "_typeFilter": "Observation?code=x"}),
        );
        let parameter = |name: &str, member: &str, value: Value| json!({"name": name, member: value});
        let of_resource = read(
            Level::Patient,
            json!({"resourceType": "Parameters", "parameter": [
                parameter("_type", "valueString", json!("Patient")),
                parameter("_type", "valueString", json!("Observation")),
                parameter("_since", "valueInstant", json!("2021-01-01T00:00:00Z")),
                parameter("patient", "valueReference", json!({"reference": "Patient/a"})),
                parameter("_outputFormat", "valueString", json!("application/fhir+ndjson+gzip")),
                parameter("_typeFilter", "valueString", json!("Observation?code=x")),
            ]}),
        );
        assert_eq!(of_query.types, of_resource.types);
        assert_eq!((of_query.since, of_query.gzip, &of_query.filters), (of_resource.since, true, &of_resource.filters));
        let ids: Vec<_> = of_query.patients.iter().map(|patient| patient.id.as_deref()).collect();
        assert_eq!(ids, [Some("a"), Some("b"), Some("c")]);
        assert_eq!(of_resource.patients[0].expression, "Parameters.parameter[3]");
        assert_eq!(read(Level::System, Value::Null), Params::default());
    }

    #[test]
    fn what_is_not_known_is_borne_on_demand() {
        let params = json!({"nonsense": ["1"], "_type": "Patient"});
        let read = Params::read(r4(), Level::System, &params, Handling::Lenient).unwrap();
        assert_eq!((read.types, read.ignored.len()), (Some(vec!["Patient".to_owned()]), 1));
        let wrong = json!({"_since": "yesterday"});
        assert!(Params::read(r4(), Level::System, &wrong, Handling::Lenient).is_err());
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let resource =
            |name: &str, member: &str, value: Value| json!({"resourceType": "Parameters", "parameter": [{"name": name, member: value}]});
        for (level, params, status, code) in [
            (Level::System, json!([]), 400, "invalid"),
            (Level::System, json!({"nonsense": "1"}), 422, "unmatched-element-in-closed-slicing"),
            (Level::System, resource("nonsense", "valueString", json!("1")), 422, "unmatched-element-in-closed-slicing"),
            (Level::System, resource("_since", "valueString", json!("2021-01-01T00:00:00Z")), 422, "wrong-union-type"),
            (Level::System, json!({"_type": 5}), 422, "wrong-union-type"),
            (Level::System, json!({"_type": "Custom"}), 400, "not-supported"),
            (Level::System, json!({"_outputFormat": "text/csv"}), 422, "value"),
            (Level::System, json!({"_since": "yesterday"}), 422, "value"),
            (Level::System, json!({"_since": ["2021-01-01", "2022-01-01"]}), 422, "value"),
            (Level::System, json!({"_since": "2021", "_until": "2020"}), 422, "value"),
            (Level::System, json!({"_typeFilter": "Observation?_sort=x"}), 400, "invalid"),
            (Level::System, json!({"_typeFilter": "Observation?code=x", "_type": "Patient"}), 400, "invalid"),
            (Level::System, json!({"_elements": "name.given"}), 400, "value"),
            (Level::System, json!({"patient": "a"}), 422, "invalid"),
            (Level::Group, json!({"patient": "a"}), 422, "invalid"),
            (Level::Patient, json!({"onPatientError": "x"}), 422, "value"),
            (Level::Patient, json!({"_aidbox.storageAccount": "x"}), 422, "value"),
        ] {
            let refusal = Params::read(r4(), level, &params, Handling::Strict).unwrap_err();
            assert_eq!((refusal.status, refusal.code), (status, code), "{params}: {}", refusal.text);
        }
    }
}
