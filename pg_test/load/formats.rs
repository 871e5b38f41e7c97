//! The table of choice elements against an independent one, and jsonb of every shape against the server's.

use crate::support::cluster::{cache, shared};
use crate::support::source::File;
use crate::support::trial::{SERVER, WRITING, parts, test};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

parts!(SERVER, WRITING);

type Choices = BTreeMap<String, BTreeSet<String>>;

/// Ours, types with a capital as the other table has them.
fn ours() -> Choices {
    let table = include_str!("../../src/fhir/definitions/r4.txt");
    let mut choices = Choices::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split('\t');
        let path = fields.next().unwrap();
        if fields.next() == Some("primitive") {
            continue;
        }
        for field in fields.skip(1) {
            let (head, types) = field.split_once(':').unwrap();
            if let Some((name, _)) = head.split_once("[x]") {
                let capital = |code: &str| code[..1].to_uppercase() + &code[1..];
                choices.insert(format!("{path}.{name}"), types.split('|').map(capital).collect());
            }
        }
    }
    choices
}

test!("the table of choice elements agrees with fhirpath's", choices);
fn choices() {
    let file = cache().join("fhirpath/package/fhir-context/r4/choiceTypePaths.json");
    let theirs: Choices = serde_json::from_str::<BTreeMap<String, Vec<String>>>(&std::fs::read_to_string(file).unwrap())
        .unwrap()
        .into_iter()
        .map(|(path, types)| (path, types.into_iter().collect()))
        .collect();
    let ours = ours();
    assert_eq!(ours.len(), 186);
    for (path, types) in &ours {
        assert_eq!(theirs.get(path), Some(types), "{path}");
    }
    let extra: Vec<&String> = theirs.keys().filter(|path| !ours.contains_key(*path)).collect();
    assert_eq!(extra.len(), 1, "they have {extra:?}");
}

/// JSON made from a seed, so that a failure can be made again.
struct Maker(u64);

impl Maker {
    fn next(&mut self, below: u64) -> u64 {
        // Knuth's multiplier; quality matters little here.
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }

    fn string(&mut self, out: &mut String) {
        out.push('"');
        let length = match self.next(20) {
            0 => 500 + self.next(3000),
            n => n,
        };
        for _ in 0..length {
            match self.next(14) {
                0 => out.push_str("\\n"),
                1 => out.push_str("\\\""),
                2 => out.push_str("\\u00e9"),
                3 => out.push_str("\\ud83d\\ude00"),
                4 => out.push('é'),
                5 => out.push_str("\\u0001"),
                6 => out.push('字'),
                n => out.push(char::from(b'a' + (n as u8 * 3) % 26)),
            }
        }
        out.push('"');
    }

    fn number(&mut self, out: &mut String) {
        const ODD: [&str; 24] = [
            "0",
            "-0",
            "0.0",
            "-0.00",
            "1.10",
            "1e5",
            "1E+3",
            "1.0e3",
            "12.50e-3",
            "0e10",
            "0e-5",
            "9999",
            "10000",
            "99999999",
            "-1",
            "0.0001",
            "0.00010",
            "123456789012345678901234567890.123456789",
            "1e130000",
            "1e-16000",
            "1e-300",
            "-1.5e200",
            "1000000000000000000000",
            "5e-324",
        ];
        match self.next(3) {
            0 => out.push_str(ODD[self.next(ODD.len() as u64) as usize]),
            1 => write!(out, "{}", self.next(1_000_000)).unwrap(),
            _ => write!(out, "-{}.{:03}", self.next(100_000), self.next(1000)).unwrap(),
        }
    }

    fn value(&mut self, depth: u64, out: &mut String) {
        match self.next(if depth > 6 { 6 } else { 10 }) {
            0 => out.push_str("null"),
            1 => out.push_str("true"),
            2 => out.push_str("false"),
            3 => self.number(out),
            4 | 5 => self.string(out),
            6 | 7 => self.list(depth, '[', ']', out),
            _ => self.list(depth, '{', '}', out),
        }
    }

    fn list(&mut self, depth: u64, open: char, close: char, out: &mut String) {
        let count = match self.next(40) {
            0 => 1000 + self.next(200),
            1 | 2 => 30 + self.next(6),
            3 => 64 + self.next(3),
            n => n % 6,
        };
        let depth = if count > 20 { 7 } else { depth + 1 };
        out.push(open);
        for index in 0..count {
            if index > 0 {
                out.push_str([",", " , ", ",\t"][self.next(3) as usize]);
            }
            if open == '{' {
                // Some keys twice, some empty, some longer than others.
                match self.next(10) {
                    0 => out.push_str("\"\""),
                    1 => self.string(out),
                    _ => write!(out, "\"{}\"", "k".repeat(self.next(4) as usize) + &self.next(count * 2).to_string()).unwrap(),
                }
                out.push(':');
            }
            self.value(depth, out);
        }
        out.push(close);
    }
}

test!("jsonb of every shape equals what the server makes", shapes);
fn shapes() {
    let database = shared().database();
    let mut client = database.connect();
    let mut maker = Maker(20261121);
    let mut lines = String::new();
    const COUNT: usize = 3000;
    for id in 0..COUNT {
        write!(lines, "{{\"resourceType\":\"Basic\",\"id\":\"{id}\",\"x\":").unwrap();
        maker.value(0, &mut lines);
        lines.push_str("}\n");
    }
    let file = File::new(lines.as_bytes());
    client.batch_execute(&format!("select bulk.load('{}', 'Basic', fhir => true)", file.url())).unwrap();
    // The server's own reading of the same lines.
    client.batch_execute("create temp table line (id text, resource jsonb)").unwrap();
    let insert =
        client.prepare("insert into line select j->>'id', j - 'id' - 'resourceType' from (select ($1::text)::jsonb as j) x").unwrap();
    for line in lines.lines() {
        client.execute(&insert, &[&line]).unwrap();
    }
    let row = client
        .query_one("select count(*), count(*) filter (where not record_image_eq(row(b.resource), row(l.resource))) from line l join basic b using (id)", &[])
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (COUNT as i64, 0));
    // And back: the dumped line is the server's text of the same jsonb.
    let wrong: i64 = client
        .query_one("select count(*) from (select d::jsonb->>'id' as id, d from (select bulk.dump('Basic') as d) y) x join line l using (id) where d::jsonb - 'meta' - 'id' - 'resourceType' is distinct from l.resource or d <> d::jsonb::text", &[])
        .unwrap()
        .get(0);
    assert_eq!(wrong, 0);
}
