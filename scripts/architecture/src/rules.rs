//! What is refused.

use crate::circles::circles;
use crate::source::Modules;
use std::io;

/// A name of an item that nothing may have.
struct RefusedName {
    kind: String,
    name: String,
}

/// Where a refused name stands for what it says.
struct AllowedName {
    module: String,
    kind: String,
    name: String,
}

#[derive(Default)]
pub struct Rules {
    /// Rooms with their floors, the uppermost first.
    rooms: Vec<(String, usize)>,
    names: Vec<RefusedName>,
    allowed: Vec<AllowedName>,
    /// Whether what is `pub` needs a doc comment.
    documented: bool,
}

/// # Errors
/// A line that is neither a rule, nor empty, nor a comment (`#`).
pub fn parse(text: &str) -> io::Result<Rules> {
    let mut rules = Rules::default();
    for (floor, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("room") => rules.rooms.extend(words.map(|room| (room.to_owned(), floor))),
            Some("refuse") => {
                let kind = words.next().unwrap_or_default();
                rules.names.extend(words.map(|name| RefusedName { kind: kind.to_owned(), name: name.to_owned() }));
            }
            Some("allow") => {
                let [module, kind, name] = [(); 3].map(|()| words.next().unwrap_or_default().to_owned());
                rules.allowed.push(AllowedName { module, kind, name });
            }
            Some("document") => rules.documented = true,
            None => {}
            Some(_) => return Err(io::Error::other(format!("line {}: neither `room`, `refuse`, `allow` nor `document`", floor + 1))),
        }
    }
    Ok(rules)
}

impl Rules {
    /// The room of a module, and its floor.
    pub fn room(&self, module: &str) -> Option<(&str, usize)> {
        if module.is_empty() {
            return self.rooms.iter().find(|(room, _)| room == "crate").map_or(Some(("crate", 0)), |(room, floor)| Some((room, *floor)));
        }
        let holds = |room: &str| module == room || module.strip_prefix(room).is_some_and(|rest| rest.starts_with("::"));
        let longest = self.rooms.iter().filter(|(room, _)| holds(room)).max_by_key(|(room, _)| room.len());
        longest.map(|(room, floor)| (room.as_str(), *floor))
    }

    /// What a crate does against the rules, a line each.
    pub fn faults(&self, modules: &Modules) -> Vec<String> {
        let mut faults = Vec::new();
        for (path, module) in modules {
            let file = module.file.display();
            let Some((room, floor)) = self.room(path) else {
                faults.push(format!("{file}: module {path} is in no room"));
                continue;
            };
            for (needed, line) in &module.needs {
                let Some((other, below)) = self.room(needed) else { continue };
                if other != room && below <= floor {
                    faults.push(format!("{file}:{line}: {path} (room {room}) needs {needed} (room {other}), which is not below it"));
                }
            }
            for (kind, name, line) in &module.items {
                let is_refused = self.names.iter().any(|refused| refused.kind == *kind && refused.name == *name);
                let is_allowed =
                    self.allowed.iter().any(|allowed| allowed.module == *path && allowed.kind == *kind && allowed.name == *name);
                if is_refused && !is_allowed {
                    faults.push(format!("{file}:{line}: {kind} {name}: another name is agreed for this"));
                }
            }
            for (kind, name, line) in module.undocumented.iter().filter(|_| self.documented) {
                faults.push(format!(
                    "{file}:{line}: {kind} {name} is public, and nothing says what it is, or under `# Errors` when it fails"
                ));
            }
        }
        for circle in circles(modules) {
            faults.push(format!("a circle: {}", circle.join(" → ")));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::source;

    fn faults(rules: &str, files: &[(&str, &str)]) -> Vec<String> {
        let texts = files.iter().map(|(path, text)| ((*path).to_owned(), format!("{path}.rs").into(), (*text).to_owned()));
        parse(rules).unwrap().faults(&source::parse(texts.collect()).unwrap())
    }

    const ROOMS: &str = "room crate\nroom api\nroom pg::write pg::read\nroom pg::sys\n";

    #[test]
    fn an_import_of_a_lower_room_passes() {
        let files =
            [("", "mod api;"), ("api", "use crate::pg::write;"), ("pg::write", "use super::sys::lock;"), ("pg::sys", ""), ("pg::read", "")];
        assert_eq!(faults(ROOMS, &files), [""; 0]);
    }

    #[test]
    fn an_import_of_an_upper_room_is_refused_in_whatever_form() {
        for text in [
            "use crate::api;",
            "use crate::{api::load, pg::sys};",
            "use super::super::api as x;",
            "fn f() { g(|| crate::api::load(1)); }",
            "fn f() { h!(\"{}\", crate::api::X); }",
            "mod inner { use super::super::super::api::{self, load}; }",
            "pub use crate::api::*;",
        ] {
            let found = faults(ROOMS, &[("api", ""), ("pg::sys", text)]);
            assert_eq!(found, ["pg::sys.rs:1: pg::sys (room pg::sys) needs api (room api), which is not below it"], "{text}");
        }
    }

    #[test]
    fn rooms_of_one_floor_do_not_know_one_another() {
        assert_eq!(faults(ROOMS, &[("pg::write", "use crate::pg::read::scan;"), ("pg::read", "")]).len(), 1);
    }

    #[test]
    fn a_circle_is_refused_also_within_a_room() {
        let files =
            [("api", "pub use a::X;"), ("api::a", "use super::b;"), ("api::b", "use crate::api::c::f;"), ("api::c", "use super::a::X;")];
        assert_eq!(faults(ROOMS, &files), ["a circle: api::a → api::b → api::c → api::a"]);
        let files = [("api", "mod a; fn f() { a::g(1); }"), ("api::a", "use super::f;")];
        assert_eq!(faults(ROOMS, &files), ["a circle: api → api::a → api"]);
    }

    #[test]
    fn tests_do_not_count_but_what_follows_them_does() {
        let test = "#[cfg(test)] mod tests { use crate::api; } #[cfg(test)] use crate::api::x; #[cfg(test)] fn f() { crate::api::g() }";
        assert_eq!(faults(ROOMS, &[("api", ""), ("pg::sys", test)]), [""; 0]);
        assert_eq!(faults(ROOMS, &[("api", ""), ("pg::sys", &format!("{test} use crate::api::load;"))]).len(), 1);
    }

    #[test]
    fn what_is_public_is_documented() {
        let rules = format!("{ROOMS}document\n");
        for text in [
            "pub fn f() {}",
            "#[inline] pub const unsafe extern \"C\" fn f() {}",
            "struct S; impl S { pub fn f() {} }",
            "#[derive(Debug)] pub struct S { x: u8 }",
            "pub const X: u8 = 1;",
            "/// One. \n pub fn a() {} pub trait T {}",
            "/// One. \n pub fn a<T>(f: impl Fn() -> u8) -> Result<T, E> { f() }",
        ] {
            assert_eq!(faults(&rules, &[("api", text)]).len(), 1, "{text}");
            assert_eq!(faults(ROOMS, &[("api", text)]).len(), 0, "{text}");
        }
        for text in [
            "fn f() {} pub(crate) fn g() {} pub mod m;",
            "/// Says. \n #[derive(Debug)] #[allow(unused)] pub struct S;",
            "#[cfg(test)] mod tests { pub fn f() {} }",
            "/// One. \n/// # Errors\n/// None. \n pub fn a() -> Result<u8, E> { f() }",
            "/// One. \n pub fn a(f: impl Fn() -> Result<u8, E>) -> u8 { f() }",
            "pub use a::b; /// X. \n pub const X: fn() = f;",
        ] {
            assert_eq!(faults(&rules, &[("api", text)]), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_module_without_a_room_and_a_refused_name_are_found() {
        assert_eq!(faults(ROOMS, &[("attic", "")]), ["attic.rs: module attic is in no room"]);
        let rules = format!("{ROOMS}refuse fn told\nrefuse type Whose # PatientScope\n");
        assert_eq!(faults(&rules, &[("api", "fn told() {} struct Told; enum Whose {} fn whose() { let told = Whose::A; }")]).len(), 2);
        let rules = format!("{rules}allow api fn told\n");
        assert_eq!(faults(&rules, &[("api", "fn told() {}")]).len(), 0);
        assert_eq!(faults(&rules, &[("api", ""), ("pg::sys", "fn told() {}")]).len(), 1);
        assert!(parse("rom api").is_err());
    }
}
