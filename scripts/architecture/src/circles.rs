//! Circles of modules.

use crate::source::Modules;
use std::collections::BTreeMap;

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
