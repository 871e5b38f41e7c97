//! The table of one FHIR version's definitions, line by line. `scripts/definitions.py` makes it and describes its notation.

/// FHIR R4 (4.0.1).
pub const R4: &str = include_str!("definitions/r4.txt");

/// A line: a resource, a data type or a backbone element.
#[derive(Debug)]
pub struct Row {
    pub path: &'static str,
    pub kind: &'static str,
    pub base: &'static str,
    /// Of a primitive: what its values match, an XML Schema pattern; empty for no rule.
    pub pattern: Option<&'static str>,
    /// Its own, without those of its base.
    pub elements: Vec<Element>,
}

/// An element of a shape.
#[derive(Debug)]
pub struct Element {
    /// Without `[x]`.
    pub name: &'static str,
    pub choice: bool,
    pub required: bool,
    /// Whether it may repeat.
    pub many: bool,
    /// Names of types; `@Path` is a backbone element.
    pub types: Vec<&'static str>,
}

/// All lines of a table.
pub fn rows(table: &'static str) -> Vec<Row> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(Row::read).collect()
}

/// The key of a choice element in FHIR format: `value` and `string` make `valueString`.
pub fn choice_key(name: &str, code: &str) -> String {
    let (head, tail) = code.split_at(1);
    format!("{name}{}{tail}", head.to_ascii_uppercase())
}

impl Row {
    fn read(line: &'static str) -> Option<Row> {
        let mut fields = line.split('\t');
        let (path, kind, base) = (fields.next()?, fields.next()?, fields.next()?);
        let (pattern, elements) = match kind {
            "primitive" => (Some(fields.next().unwrap_or_default()), Vec::new()),
            _ => (None, fields.filter_map(Element::read).collect()),
        };
        Some(Row { path, kind, base, pattern, elements })
    }
}

impl Element {
    fn read(field: &'static str) -> Option<Element> {
        let (head, types) = field.split_once(':')?;
        let name = head.trim_end_matches(['?', '*', '+']);
        let plain = name.strip_suffix("[x]");
        Some(Element {
            name: plain.unwrap_or(name),
            choice: plain.is_some(),
            required: !head.ends_with(['?', '*']),
            many: head.ends_with(['*', '+']),
            types: types.split('|').collect(),
        })
    }
}
