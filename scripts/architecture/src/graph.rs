//! Who needs whom.

use crate::rules::Rules;
use crate::source::Modules;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// One circle of each set of modules that all reach one another, with its first module again at the end.
pub fn circles(modules: &Modules) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in modules.keys() {
        if found.iter().flatten().any(|module| module == start) {
            continue;
        }
        found.extend(way(modules, start));
    }
    found
}

/// The shortest way from a module back to itself.
fn way(modules: &Modules, start: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = vec![start];
    while !next.is_empty() {
        let mut further = Vec::new();
        for module in next {
            for needed in modules.get(module).into_iter().flat_map(|module| module.needs.keys()) {
                if needed == start {
                    let mut way = vec![start, module];
                    while let Some(previous) = way.last().and_then(|last| before.get(last)) {
                        way.push(previous);
                    }
                    way.reverse();
                    way.push(start);
                    way.dedup();
                    return Some(way.into_iter().map(str::to_owned).collect());
                }
                if !before.contains_key(needed.as_str()) {
                    before.insert(needed, module);
                    further.push(needed.as_str());
                }
            }
        }
        next = further;
    }
    None
}

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
