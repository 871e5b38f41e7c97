//! Who needs whom, drawn in words.

use crate::rules::Rules;
use crate::source::Modules;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The dependencies between rooms, then those within each.
pub fn draw(modules: &Modules, rules: &Rules) -> String {
    let room = |module: &str| rules.room(module).map_or("none", |(room, _)| room).to_owned();
    let mut between: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut within: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, module) in modules {
        for needed in module.needs.keys() {
            let (from, to) = (room(path), room(needed));
            if from == to {
                within.entry(from).or_default().insert(format!("{path} → {needed}"));
            } else {
                between.entry(from).or_default().insert(to);
            }
        }
    }
    let mut text = String::new();
    for (from, to) in between {
        let _ = writeln!(text, "{from} → {}", to.into_iter().collect::<Vec<_>>().join(", "));
    }
    for (room, edges) in within {
        let _ = writeln!(text, "\n{room}");
        for edge in edges {
            let _ = writeln!(text, "  {edge}");
        }
    }
    text
}
