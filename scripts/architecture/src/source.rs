//! The modules of a crate, as their text has them.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A file of the crate.
pub struct Module {
    pub file: PathBuf,
    /// The modules that it names, each with the first line where it does.
    pub needs: BTreeMap<String, usize>,
    /// What it defines: kind, name and line.
    pub items: Vec<(&'static str, String, usize)>,
    /// Those of them that are `pub` without a doc comment, or return a Result and do not say when they fail.
    pub undocumented: Vec<(&'static str, String, usize)>,
}

/// Modules by their path without `crate`, such as `pg::table`; the root's is empty.
pub type Modules = BTreeMap<String, Module>;

/// Reads all files below a directory.
///
/// # Errors
/// A file that cannot be read, or is no Rust.
pub fn read(directory: &Path) -> io::Result<Modules> {
    let mut files = Vec::new();
    find(directory, &mut files)?;
    let texts = files.into_iter().map(|file| Ok((path_of(directory, &file), file.clone(), std::fs::read_to_string(&file)?)));
    parse(texts.collect::<io::Result<Vec<_>>>()?)
}

/// The modules of texts, each with its path and its file.
///
/// # Errors
/// A text that is no Rust.
pub fn parse(texts: Vec<(String, PathBuf, String)>) -> io::Result<Modules> {
    let mut found = BTreeMap::new();
    for (path, file, text) in texts {
        let tokens = TokenStream::from_str(&text).map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        let mut reading =
            Reading { path: segments(&path), paths: Vec::new(), below: Vec::new(), items: Vec::new(), undocumented: Vec::new() };
        reading.stream(tokens, &[]);
        found.insert(path, (file, reading));
    }
    let known: Vec<String> = found.keys().cloned().collect();
    let modules = found.into_iter().map(|(path, (file, reading))| {
        let mut needs = BTreeMap::new();
        let below = reading.below.iter().filter(|(below, _)| known.contains(&below.join("::")));
        for (named, line) in reading.paths.iter().chain(below) {
            let module = module_of(named, &known);
            if module != path {
                needs.entry(module).or_insert(*line);
            }
        }
        (path, Module { file, needs, items: reading.items, undocumented: reading.undocumented })
    });
    Ok(modules.collect())
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; `lib.rs` and `main.rs` are the root.
fn path_of(directory: &Path, file: &Path) -> String {
    let below = file.strip_prefix(directory).unwrap_or(file).with_extension("");
    let mut segments: Vec<String> = below.iter().map(|segment| segment.to_string_lossy().into_owned()).collect();
    if segments.last().is_some_and(|last| last == "mod") || matches!(segments.as_slice(), [only] if only == "lib" || only == "main") {
        segments.pop();
    }
    segments.join("::")
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// The longest beginning of a path that is a module.
fn module_of(path: &[String], known: &[String]) -> String {
    (0..=path.len()).rev().map(|length| path[..length].join("::")).find(|beginning| known.contains(beginning)).unwrap_or_default()
}

struct Reading {
    path: Vec<String>,
    paths: Vec<(Vec<String>, usize)>,
    /// What may be modules below this one.
    below: Vec<(Vec<String>, usize)>,
    items: Vec<(&'static str, String, usize)>,
    undocumented: Vec<(&'static str, String, usize)>,
}

impl Reading {
    /// `inner` are the modules within the file that the tokens stand in.
    fn stream(&mut self, tokens: TokenStream, inner: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut is_test = false;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket && is(tokens.get(at.wrapping_sub(1)), '#') => {
                    let text: String = group.stream().to_string().split_whitespace().collect();
                    is_test |= text == "cfg(test)";
                }
                TokenTree::Group(group) => {
                    if !(is_test && group.delimiter() == Delimiter::Brace) {
                        self.stream(group.stream(), inner);
                    }
                    is_test &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => is_test = false,
                TokenTree::Ident(ident) if !is_test => {
                    let (word, line) = (ident.to_string(), ident.span().start().line);
                    let follows_path = is(tokens.get(at.wrapping_sub(1)), ':');
                    match (word.as_str(), tokens.get(at + 1)) {
                        ("crate" | "super" | "self", Some(_))
                            if !follows_path && is(tokens.get(at + 1), ':') && is(tokens.get(at + 2), ':') =>
                        {
                            at = self.named(&tokens, at, inner, line);
                            continue;
                        }
                        ("mod", Some(TokenTree::Ident(name))) => {
                            self.items.push(("mod", name.to_string(), line));
                            if let Some(TokenTree::Group(group)) = tokens.get(at + 2) {
                                self.stream(group.stream(), &[inner, &[name.to_string()]].concat());
                                at += 2;
                            }
                        }
                        // A module below this one needs no prefix.
                        (_, Some(_)) if !follows_path && is(tokens.get(at + 1), ':') && is(tokens.get(at + 2), ':') => {
                            let below = [self.path.as_slice(), inner, &[word]].concat();
                            self.below.push((below, line));
                        }
                        (keyword, Some(TokenTree::Ident(name))) => {
                            // `const` before `fn` is no constant.
                            let is_modifier = ["fn", "unsafe", "async", "extern"].iter().any(|modifier| name == modifier);
                            if let Some(kind) = kind_of(keyword).filter(|_| !is_modifier) {
                                self.items.push((kind, name.to_string(), line));
                                let doc = doc_of_public(&tokens[..at]);
                                let fails = kind == "fn" && returns_result(&tokens[at + 2..]);
                                if doc.is_some_and(|doc| doc.is_empty() || (fails && !doc.contains("# Errors"))) {
                                    self.undocumented.push((kind, name.to_string(), line));
                                }
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// A path from its first segment on: where it ends.
    fn named(&mut self, tokens: &[TokenTree], mut at: usize, inner: &[String], line: usize) -> usize {
        let mut base = [self.path.as_slice(), inner].concat();
        let mut is_first = true;
        while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
            match ident.to_string().as_str() {
                "crate" if is_first => base.clear(),
                "self" if is_first => {}
                "super" => drop(base.pop()),
                name => base.push(name.to_owned()),
            }
            is_first = false;
            if !(is(tokens.get(at + 1), ':') && is(tokens.get(at + 2), ':')) {
                self.paths.push((base, line));
                return at + 1;
            }
            at += 3;
        }
        match tokens.get(at) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => self.branches(group.stream(), &base, line),
            _ => self.paths.push((base, line)),
        }
        at + 1
    }

    /// The branches of an import, `{a, b::{c, d}, self}`.
    fn branches(&mut self, tokens: TokenStream, base: &[String], line: usize) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for branch in tokens.split(|token| is(Some(token), ',')) {
            let mut path = base.to_vec();
            for token in branch {
                match token {
                    TokenTree::Ident(name) if *name == "as" => break,
                    TokenTree::Ident(name) if *name == "self" => {}
                    TokenTree::Ident(name) => path.push(name.to_string()),
                    TokenTree::Group(group) => self.branches(group.stream(), &path, line),
                    _ => {}
                }
            }
            if !branch.is_empty() {
                self.paths.push((path, line));
            }
        }
    }
}

fn is(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// The doc comment of an item, by what stands before its keyword; None where it is not `pub`.
fn doc_of_public(before: &[TokenTree]) -> Option<String> {
    let is_modifier = |token: &TokenTree| match token {
        TokenTree::Ident(word) => matches!(word.to_string().as_str(), "const" | "unsafe" | "async" | "extern"),
        TokenTree::Literal(_) => true,
        _ => false,
    };
    let at = before.iter().rposition(|token| !is_modifier(token))?;
    if !matches!(&before[at], TokenTree::Ident(word) if *word == "pub") {
        return None;
    }
    let (mut rest, mut doc) = (&before[..at], String::new());
    while let [above @ .., hash, TokenTree::Group(attribute)] = rest
        && is(Some(hash), '#')
        && attribute.delimiter() == Delimiter::Bracket
    {
        if matches!(attribute.stream().into_iter().next(), Some(TokenTree::Ident(word)) if word == "doc") {
            doc.push_str(&attribute.stream().to_string());
        }
        rest = above;
    }
    Some(doc)
}

/// Whether a function returns a Result, by what follows its name.
fn returns_result(after: &[TokenTree]) -> bool {
    let ends =
        |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace) || is(Some(token), ';');
    let head = &after[..after.iter().position(ends).unwrap_or(after.len())];
    // Behind the arguments, whose own closures may return one.
    let arguments = head.iter().position(|token| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis));
    let behind = &head[arguments.map_or(head.len(), |at| at + 1)..];
    matches!(behind, [dash, angle, TokenTree::Ident(word), ..] if is(Some(dash), '-') && is(Some(angle), '>') && *word == "Result")
}

fn kind_of(keyword: &str) -> Option<&'static str> {
    match keyword {
        "fn" => Some("fn"),
        "struct" | "enum" | "union" | "trait" | "type" => Some("type"),
        "const" | "static" => Some("const"),
        _ => None,
    }
}
