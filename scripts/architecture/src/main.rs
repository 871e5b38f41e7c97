//! Checks how the files of a crate depend on one another: `architecture DIRECTORY RULES [--graph]`.
//!
//! A module is a file; it depends on a module that one of its paths (`crate::`, `super::`, `self::`) names, in an import or elsewhere. Code under
//! `#[cfg(test)]` does not count. RULES is a file of lines:
//!
//! - `room PATH...`: rooms of one floor. A module belongs to the longest PATH that its own path begins with. It may depend on modules of its own
//!   room and of rooms of later lines. The crate's root is the room `crate`, above all others.
//! - `refuse KIND NAME...`: no item of this kind (`mod`, `fn`, `type` for struct, enum, union, trait and alias, `const` for static too) has such a name.
//! - `allow MODULE KIND NAME`: but for this one, which means something else.
//! - `document`: what is `pub` has a doc comment, and under `# Errors` says when it fails where it returns a Result.
//!
//! Refused are an import from a room of the same or an earlier line, a circle of modules, a module without a room, a refused name, and an item that is not documented. `--graph`
//! prints the dependencies between rooms, and within them, instead.

mod circles;
mod graph;
mod rules;
mod source;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rules, more @ ..] = arguments.as_slice() else {
        eprintln!("usage: architecture DIRECTORY RULES [--graph]");
        return ExitCode::from(2);
    };
    let read = source::read(Path::new(directory)).and_then(|modules| Ok((modules, rules::parse(&std::fs::read_to_string(rules)?)?)));
    let (modules, rules) = match read {
        Ok(read) => read,
        Err(error) => {
            eprintln!("{directory}, {rules}: {error}");
            return ExitCode::from(2);
        }
    };
    if more.iter().any(|argument| argument == "--graph") {
        print!("{}", graph::draw(&modules, &rules));
        return ExitCode::SUCCESS;
    }
    let faults = rules.faults(&modules);
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
