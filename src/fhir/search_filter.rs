//! FHIR searches of one type, as far as they choose resources by tokens, dates, references and strings. <https://hl7.org/fhir/R4/search.html>
//!
//! Left to others: chains, `_has`, quantities, numbers, composites, modifiers but `:not`, `:missing`, `:exact`, `:contains` and `:Type`. Strings
//! are compared without case, but with accents; where an element has no system, that of a token is not asked for.

use crate::fhir::instant;
use crate::fhir::reference::{self, Target};
use crate::fhir::search_parameters::{Kind, Parameters, Path};
use crate::jsonb::document::{Document, Value};
use url::form_urlencoded;

/// A search: all of its conditions hold.
#[derive(Debug)]
pub struct Filter {
    conditions: Vec<Condition>,
}

/// One of its values is met, or, `negated`, none.
#[derive(Debug)]
struct Condition {
    paths: &'static [Path],
    tests: Vec<Test>,
    negated: bool,
}

#[derive(Debug)]
enum Test {
    Token {
        system: Option<String>,
        code: Option<String>,
    },
    Date {
        comparison: Comparison,
        range: (i64, i64),
    },
    Reference {
        kind: Option<String>,
        id: String,
    },
    Uri(String),
    Text {
        text: String,
        how: How,
    },
    /// Whether there is anything.
    Present,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Begins,
    Exact,
    Contains,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    StartsAfter,
    EndsBefore,
    About,
}

/// What changes a result instead of choosing it.
const FORBIDDEN: [&str; 12] =
    ["_sort", "_count", "_page", "_total", "_summary", "_elements", "_include", "_revinclude", "_has", "_assoc", "_with", "_contained"];

impl Filter {
    /// Reads the query string of a search of a type. What is wrong with it is said in a sentence.
    ///
    /// # Errors
    /// A sentence that says which parameter is unknown or cannot be read.
    pub fn parse(parameters: &'static Parameters, resource_type: &str, query: &str) -> Result<Filter, String> {
        let conditions = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| Condition::parse(parameters, resource_type, &name, &value))
            .collect::<Result<Vec<Condition>, String>>()?;
        Ok(Filter { conditions })
    }

    /// Whether a resource, in FHIR format, is chosen.
    pub fn passes(&self, document: &Document, root: Value) -> bool {
        self.conditions.iter().all(|condition| {
            let met = |kind: &str, target, value| condition.tests.iter().any(|test| test.is_met(document, kind, target, value));
            let found = condition.paths.iter().any(|path| path.any(document, root, &mut |value| met(path.kind, path.target, value)));
            found != condition.negated
        })
    }
}

impl Condition {
    fn parse(parameters: &'static Parameters, resource_type: &str, name: &str, value: &str) -> Result<Condition, String> {
        let (code, modifier) = name.split_once(':').map_or((name, None), |(code, modifier)| (code, Some(modifier)));
        if FORBIDDEN.contains(&code) {
            return Err(format!("{code} may not stand in _typeFilter"));
        }
        let parameter = parameters.get(resource_type, code).ok_or_else(|| {
            format!("search parameter \"{}\" of {resource_type} is unknown or of a kind that is not supported", short(code))
        })?;
        let paths = parameter.paths.as_slice();
        let unknown = || format!("modifier \"{}\" of {code} is not supported", short(modifier.unwrap_or_default()));
        let mut negated = false;
        let mut how = How::Begins;
        let mut of_type = None;
        match (modifier, parameter.kind) {
            (None, _) => {}
            (Some("missing"), _) => {
                let negated = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(format!("{code}:missing must be true or false")),
                };
                return Ok(Condition { paths, tests: vec![Test::Present], negated });
            }
            (Some("not"), Kind::Token) => negated = true,
            (Some("exact"), Kind::String) => how = How::Exact,
            (Some("contains"), Kind::String) => how = How::Contains,
            (Some(kind), Kind::Reference) if kind.starts_with(|c: char| c.is_ascii_uppercase()) => of_type = Some(kind),
            _ => return Err(unknown()),
        }
        let read = |value: String| {
            Test::parse(parameter.kind, &value, how, of_type).ok_or_else(|| format!("{code} has a value that cannot be read"))
        };
        let tests = alternatives(value).into_iter().map(read).collect::<Result<Vec<Test>, String>>()?;
        Ok(Condition { paths, tests, negated })
    }
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The values between commas; a backslash takes a sign's meaning away.
fn alternatives(text: &str) -> Vec<String> {
    let (mut values, mut value) = (Vec::new(), String::new());
    let mut signs = text.chars();
    while let Some(sign) = signs.next() {
        match sign {
            ',' => values.push(std::mem::take(&mut value)),
            // What stands between system and code is looked for later.
            '\\' => match signs.next() {
                Some('|') => value.push_str("\\|"),
                Some(next) => value.push(next),
                None => {}
            },
            sign => value.push(sign),
        }
    }
    values.push(value);
    values
}

impl Test {
    fn parse(kind: Kind, text: &str, how: How, of_type: Option<&str>) -> Option<Test> {
        if text.is_empty() {
            return None;
        }
        Some(match kind {
            Kind::Token => {
                let bar = (0..text.len()).find(|&at| text.as_bytes()[at] == b'|' && (at == 0 || text.as_bytes()[at - 1] != b'\\'));
                let (system, code) = match bar {
                    Some(at) => (Some(plain(&text[..at])), plain(&text[at + 1..])),
                    None => (None, plain(text)),
                };
                Test::Token { system, code: (!code.is_empty()).then_some(code) }
            }
            Kind::Date => {
                let (comparison, text) = match text.get(..2) {
                    Some("eq") => (Comparison::Equal, &text[2..]),
                    Some("ne") => (Comparison::NotEqual, &text[2..]),
                    Some("gt") => (Comparison::Greater, &text[2..]),
                    Some("lt") => (Comparison::Less, &text[2..]),
                    Some("ge") => (Comparison::GreaterOrEqual, &text[2..]),
                    Some("le") => (Comparison::LessOrEqual, &text[2..]),
                    Some("sa") => (Comparison::StartsAfter, &text[2..]),
                    Some("eb") => (Comparison::EndsBefore, &text[2..]),
                    Some("ap") => (Comparison::About, &text[2..]),
                    _ => (Comparison::Equal, text),
                };
                Test::Date { comparison, range: instant::range(text)? }
            }
            Kind::Reference => match (reference::split(text), of_type) {
                (Target::Relative(kind, _), Some(wanted)) if kind != wanted => return None,
                (Target::Relative(kind, id), _) => Test::Reference { kind: Some(kind.to_owned()), id: id.to_owned() },
                _ if !text.contains([':', '/']) => Test::Reference { kind: of_type.map(str::to_owned), id: text.to_owned() },
                _ => Test::Uri(text.to_owned()),
            },
            Kind::String => Test::Text { text: if how == How::Exact { plain(text) } else { plain(text).to_lowercase() }, how },
        })
    }

    /// Whether a value of an element, whose type is `kind`, meets it; `target` is the one type that a reference must lead to.
    fn is_met(&self, document: &Document, kind: &str, target: Option<&str>, value: Value) -> bool {
        let found = FoundValue { document, kind, value };
        match self {
            Test::Present => true,
            Test::Token { system, code } => found.is_token(system.as_deref(), code.as_deref()),
            Test::Date { comparison, range } => found.is_date(*comparison, *range),
            Test::Reference { kind: wanted, id } => {
                let Some(reference) = found.text(found.member("reference")) else { return false };
                let wanted = wanted.as_deref();
                matches!(reference::split(reference), Target::Relative(kind, found)
                    if found == id && wanted.is_none_or(|wanted| wanted == kind) && target.is_none_or(|target| target == kind))
            }
            Test::Uri(uri) => found.text(found.member("reference")).or_else(|| found.text(Some(value))) == Some(uri.as_str()),
            Test::Text { text, how } => found.has_text(text, *how),
        }
    }
}

/// A value of an element, in a resource.
#[derive(Clone, Copy)]
struct FoundValue<'a> {
    document: &'a Document,
    /// Its type.
    kind: &'a str,
    value: Value,
}

impl<'a> FoundValue<'a> {
    fn member(self, key: &str) -> Option<Value> {
        match self.value {
            Value::Object(members) => self.document.get(members, key),
            _ => None,
        }
    }

    fn text(self, value: Option<Value>) -> Option<&'a str> {
        match value {
            Some(Value::String(text)) => Some(self.document.str(text)),
            Some(Value::Bool(true)) => Some("true"),
            Some(Value::Bool(false)) => Some("false"),
            _ => None,
        }
    }

    /// <https://hl7.org/fhir/R4/search.html#token>
    fn is_token(self, system: Option<&str>, code: Option<&str>) -> bool {
        let is = |found_system: Option<&str>, found_code: Option<&str>| {
            let is_of_system = system.is_none_or(|system| found_system.unwrap_or_default() == system);
            is_of_system && code.is_none_or(|code| found_code == Some(code))
        };
        let text = |key: &str| self.text(self.member(key));
        match self.kind {
            "CodeableConcept" => {
                let Some(Value::Array(codings)) = self.member("coding") else { return false };
                let coding = |&value: &Value| FoundValue { kind: "Coding", value, ..self }.is_token(system, code);
                self.document.elements(codings).iter().any(coding)
            }
            "Coding" => is(text("system"), text("code")),
            "Identifier" => is(text("system"), text("value")),
            "ContactPoint" => code == text("value"),
            _ => code == self.text(Some(self.value)),
        }
    }

    /// <https://hl7.org/fhir/R4/search.html#date>
    fn is_date(self, comparison: Comparison, range: (i64, i64)) -> bool {
        let of = |value: Option<Value>| self.text(value).and_then(instant::range);
        match self.kind {
            "Period" => {
                let (start, end) = (of(self.member("start")), of(self.member("end")));
                (start.is_some() || end.is_some())
                    && comparison.holds((start.map_or(i64::MIN, |start| start.0), end.map_or(i64::MAX, |end| end.1)), range)
            }
            "Timing" => {
                let Some(Value::Array(events)) = self.member("event") else { return false };
                self.document.elements(events).iter().filter_map(|&event| of(Some(event))).any(|found| comparison.holds(found, range))
            }
            _ => of(Some(self.value)).is_some_and(|found| comparison.holds(found, range)),
        }
    }

    /// <https://hl7.org/fhir/R4/search.html#string>
    fn has_text(self, wanted: &str, how: How) -> bool {
        let is = |value: Value| self.text(Some(value)).is_some_and(|found| how.is(found, wanted));
        let keys: &[&str] = match self.kind {
            "HumanName" => &["text", "family", "given", "prefix", "suffix"],
            "Address" => &["text", "line", "city", "district", "state", "postalCode", "country"],
            "CodeableConcept" => &["text"],
            _ => return is(self.value),
        };
        keys.iter().filter_map(|key| self.member(key)).any(|value| match value {
            Value::Array(list) => self.document.elements(list).iter().any(|&one| is(one)),
            one => is(one),
        })
    }
}

/// Without the backslashes that `alternatives` left.
fn plain(text: &str) -> String {
    text.replace("\\|", "|")
}

impl How {
    fn is(self, found: &str, wanted: &str) -> bool {
        match self {
            How::Exact => found == wanted,
            How::Begins => found.to_lowercase().starts_with(wanted),
            How::Contains => found.to_lowercase().contains(wanted),
        }
    }
}

impl Comparison {
    /// Of the range of time of an element with that of a value. Their ends are not part of them.
    fn holds(self, found: (i64, i64), wanted: (i64, i64)) -> bool {
        let is_within = wanted.0 <= found.0 && found.1 <= wanted.1;
        match self {
            Comparison::Equal => is_within,
            Comparison::NotEqual => !is_within,
            Comparison::Greater => found.1 > wanted.1,
            Comparison::Less => found.0 < wanted.0,
            // From the value's beginning on, as a period that lies partly within is meant.
            Comparison::GreaterOrEqual => found.1 > wanted.0,
            Comparison::LessOrEqual => found.0 < wanted.1,
            Comparison::StartsAfter => found.0 >= wanted.1,
            Comparison::EndsBefore => found.1 <= wanted.0,
            Comparison::About => found.0 < wanted.1 && wanted.0 < found.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::search_parameters;
    use crate::jsonb::parse;

    fn passes(kind: &str, query: &str, resource: &str) -> bool {
        let mut document = Document::new();
        let root = parse::parse(&mut document, resource, 20).unwrap();
        Filter::parse(search_parameters::r4(), kind, query).unwrap().passes(&document, root)
    }

    #[test]
    // A table of cases.
    #[allow(clippy::too_many_lines)]
    fn resources_are_chosen() {
        let observation = r#"{"id": "o", "meta": {"lastUpdated": "2021-06-10T08:26:10.5Z"}, "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "8302-2"}, {"code": "x,y"}]},
            "subject": {"reference": "Patient/p"}, "effectivePeriod": {"start": "2020-02-01", "end": "2020-02-29T10:00:00+01:00"}}"#;
        for (query, passed) in [
            ("", true),
            ("_id=o", true),
            ("_id=a,o", true),
            ("_id=a", false),
            ("status=final&_id=o", true),
            ("status=final&_id=a", false),
            ("status:not=final", false),
            ("status:not=preliminary", true),
            ("code=8302-2", true),
            ("code=http://loinc.org|8302-2", true),
            ("code=http%3A%2F%2Floinc.org%7C8302-2", true),
            ("code=http://loinc.org|", true),
            ("code=http://other|8302-2", false),
            ("code=|8302-2", false),
            ("code=|x\\,y", true),
            ("code=x\\,y", true),
            ("subject=Patient/p", true),
            ("subject=p", true),
            ("patient=p", true),
            ("subject:Patient=p", true),
            ("subject:Group=p", false),
            ("subject=Group/p", false),
            ("subject=http://server/Patient/p", false),
            ("date=2020-02", true),
            ("date=2020", true),
            ("date=2020-02-15", false),
            ("date=ap2020-02-15", true),
            ("date=ge2020-02-29", true),
            ("date=gt2020-02-29", false),
            ("date=lt2020-02-02", true),
            ("date=lt2020-02-01", false),
            ("date=sa2020-01-31", true),
            ("date=eb2020-03-01", true),
            ("date=ne2020", false),
            ("_lastUpdated=gt2021-06-10T08:26:10Z", false),
            ("_lastUpdated=ge2021-06-10T08:26:10Z", true),
            ("_lastUpdated=lt2021-06-10T08:26:10.6Z", true),
            ("value-string:missing=true", true),
            ("subject:missing=true", false),
        ] {
            assert_eq!(passes("Observation", query, observation), passed, "{query}");
        }
        let patient = r#"{"id": "p", "active": true, "name": [{"family": "Müller", "given": ["Anna", "Eva"]}],
            "telecom": [{"system": "phone", "value": "1"}], "birthDate": "1980-05", "identifier": [{"system": "s", "value": "v"}]}"#;
        for (query, passed) in [
            ("name=mü", true),
            ("given=ev", true),
            ("given:exact=Eva", true),
            ("given:exact=eva", false),
            ("family:contains=LLE", true),
            ("active=true", true),
            ("active=false", false),
            ("phone=1", true),
            ("email=1", false),
            ("identifier=s|v", true),
            ("birthdate=1980", true),
            ("birthdate=1980-05-01", false),
        ] {
            assert_eq!(passes("Patient", query, patient), passed, "{query}");
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (query, said) in [
            ("_sort=date", "_sort may not"),
            ("nonsense=1", "\"nonsense\""),
            ("value-quantity=5", "\"value-quantity\""),
            ("subject.name=x", "\"subject.name\""),
            ("status:above=x", "modifier"),
            ("date=yesterday", "date has a value"),
            ("date=", "date has a value"),
            ("subject:missing=x", "true or false"),
        ] {
            let error = Filter::parse(search_parameters::r4(), "Observation", query).unwrap_err();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
