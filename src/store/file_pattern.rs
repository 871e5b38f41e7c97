//! The files of the server that a pattern of paths stands for. The walk can be ended at any entry, and follows no links to directories, so that none
//! leads it round.

use crate::error::SourceFault;
use crate::store::file;
use glob::{MatchOptions, Pattern};
use std::io::ErrorKind;
use std::path::PathBuf;
use walkdir::{DirEntry, WalkDir};

/// As shells do: a file that begins with a dot is none of them, nor does `*` lead into another directory.
const OPTIONS: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// What makes a path a pattern.
const SIGNS: [char; 3] = ['*', '?', '['];

/// Whether a path is a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(SIGNS)
}

/// An absolute pattern (`/data/*/patients-??.ndjson`, `**` for directories of any depth), taken apart.
struct Steps {
    whole: Pattern,
    /// From the first with a sign on; None for `**`.
    steps: Vec<Option<Pattern>>,
    root: PathBuf,
    /// Whether a step itself begins with a dot.
    names_hidden: bool,
}

impl Steps {
    fn read(pattern: &str) -> Option<Steps> {
        let texts: Vec<&str> = pattern.split('/').skip(1).collect();
        let fixed = texts.iter().take_while(|step| !is_pattern(step)).count();
        let step = |text: &&str| if *text == "**" { Some(None) } else { Pattern::new(text).ok().map(Some) };
        Some(Steps {
            whole: Pattern::new(pattern).ok()?,
            steps: texts[fixed..].iter().map(step).collect::<Option<Vec<_>>>()?,
            root: PathBuf::from(format!("/{}", texts[..fixed].join("/"))),
            names_hidden: texts[fixed..].iter().any(|step| step.starts_with('.')),
        })
    }

    /// How far below the root files can be.
    fn depth(&self) -> usize {
        if self.steps.iter().any(Option::is_none) { usize::MAX } else { self.steps.len() }
    }

    /// Whether files of the pattern can be below a directory.
    fn leads_into(&self, directory: &DirEntry) -> bool {
        let Some(name) = directory.file_name().to_str() else { return false };
        let mut before = self.steps.iter().take(directory.depth());
        match before.clone().any(Option::is_none) {
            true => self.names_hidden || !name.starts_with('.'),
            false => before.next_back().is_none_or(|step| step.as_ref().is_some_and(|step| step.matches_with(name, OPTIONS))),
        }
    }

    fn is_met_by(&self, entry: &DirEntry) -> bool {
        let is_file = entry.file_type().is_file() || (entry.path_is_symlink() && entry.path().is_file());
        // A path that is no text has no pattern.
        is_file && entry.path().to_str().is_some_and(|path| self.whole.matches_with(path, OPTIONS))
    }
}

/// The files of a pattern, in the order of their paths. `each` is called at every entry that is looked at.
///
/// # Errors
/// `Unsupported` for a pattern that is none, `FileDenied` where a directory cannot be read, `NoSuchFile` where there is no such file.
pub fn find(pattern: &str, each: &mut dyn FnMut()) -> Result<Vec<PathBuf>, SourceFault> {
    let steps = Steps::read(pattern).ok_or(SourceFault::Unsupported)?;
    let mut walk = WalkDir::new(&steps.root).min_depth(1).max_depth(steps.depth()).into_iter();
    let mut found = Vec::new();
    while let Some(entry) = walk.next() {
        each();
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {
                if !steps.leads_into(&entry) {
                    walk.skip_current_dir();
                }
            }
            Ok(entry) if steps.is_met_by(&entry) => found.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => match error.into_io_error() {
                // It went in the meantime.
                Some(error) if error.kind() == ErrorKind::NotFound => {}
                Some(error) => return Err(file::fault(error)),
                None => {}
            },
        }
    }
    found.sort_unstable();
    if found.is_empty() { Err(SourceFault::NoSuchFile) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn patterns_find_what_shells_find() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in
            ["a.ndjson", "b.ndjson", "c.gz", ".hidden.ndjson", "x/a.ndjson", "x/y/a.ndjson", "x/.h/a.ndjson", "z/a.ndjson", "[b].ndjson"]
        {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "").unwrap();
        }
        symlink(".", root.join("x/round")).unwrap();
        symlink("../c.gz", root.join("x/link.gz")).unwrap();
        fs::write(root.join(std::ffi::OsString::from_vec(b"\xff.ndjson".to_vec())), "").unwrap();
        let all = |pattern: &str| {
            let mut looked = 0;
            let found = find(&format!("{}/{pattern}", root.display()), &mut || looked += 1);
            assert!(looked < 100, "{pattern}: {looked}");
            let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.map(|found| found.iter().map(name).collect::<Vec<_>>().join(" "))
        };
        for (pattern, found) in [
            ("*.ndjson", "[b].ndjson a.ndjson b.ndjson"),
            ("?.ndjson", "a.ndjson b.ndjson"),
            ("[ab].ndjson", "a.ndjson b.ndjson"),
            (".*.ndjson", ".hidden.ndjson"),
            ("*/a.ndjson", "x/a.ndjson z/a.ndjson"),
            ("x/*/a.ndjson", "x/y/a.ndjson"),
            ("**/a.ndjson", "a.ndjson x/a.ndjson x/y/a.ndjson z/a.ndjson"),
            ("x/**/*.ndjson", "x/a.ndjson x/y/a.ndjson"),
            ("x/.h/*", "x/.h/a.ndjson"),
            ("*/*.gz", "x/link.gz"),
        ] {
            assert_eq!(all(pattern).as_deref(), Ok(found), "{pattern}");
        }
        assert_eq!(all("none/*"), Err(SourceFault::NoSuchFile));
        assert_eq!(all("a***b"), Err(SourceFault::Unsupported));
    }
}
