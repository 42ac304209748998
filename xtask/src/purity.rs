//! The source half of the purity gate: no path into the parts of `std` that touch the world.
//!
//! Clippy's `disallowed-methods` in the pure crates resolves names and so is the sharper half, but one `#[allow]`
//! turns it off. This half cannot be turned off; it reads tokens and knows only paths that begin at `std`.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What pure code may not name.
const IMPURE_PATHS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// The ban list that clippy holds the pure crates to, below the root of the repository.
pub(crate) const BANS: &str = "crates/model/clippy.toml";

/// A place where pure code names an impure part of `std`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) file: PathBuf,
    /// Counted from 1.
    pub(crate) line: usize,
    /// The whole path as written, `use` braces expanded.
    pub(crate) path: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, path } = self;
        write!(
            f,
            "{}:{line}: {path} has no place in a pure crate: take it as an argument",
            file.display()
        )
    }
}

/// Findings in all `.rs` files below `folder`, tests left out: files called `tests.rs` and items that stand
/// under `#[cfg(test)]`.
pub(crate) fn scan_folder(folder: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("could not list {}", folder.display()))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            findings.extend(scan_folder(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_stem().is_some_and(|s| s != "tests")
        {
            let source = std::fs::read_to_string(&path)
                .with_context(|| format!("could not read {}", path.display()))?;
            findings.extend(scan(&path, &source));
        }
    }
    Ok(findings)
}

/// Fails to find the ban list of the pure crates in `folder`, and says so: clippy takes the nearest `clippy.toml`, so
/// a pure crate without one would be held to nothing.
pub(crate) fn check_bans(folder: &Path, original: &str) -> Option<String> {
    let path = folder.join("clippy.toml");
    let same = std::fs::read_to_string(&path).is_ok_and(|found| found == original);
    (!same).then(|| {
        format!(
            "{} is not the ban list of the pure crates: link it to {BANS}",
            path.display()
        )
    })
}

/// Findings in one file's text.
pub(crate) fn scan(file: &Path, source: &str) -> Vec<Finding> {
    let tokens = tokens(source);
    let mut findings = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if texts(&tokens[at..])
            .take(7)
            .eq(["#", "[", "cfg", "(", "test", ")", "]"])
        {
            at = behind_item(&tokens, at);
            continue;
        }
        let begins = tokens[at].text == "std" && texts(&tokens[at + 1..]).next() == Some("::");
        if !begins {
            at += 1;
            continue;
        }
        let mut paths = Vec::new();
        at = path_tree(&tokens, at, "", &mut paths);
        findings.extend(
            paths
                .into_iter()
                .filter(|(_, path)| is_impure(path))
                .map(|(line, path)| Finding {
                    file: file.to_owned(),
                    line,
                    path,
                }),
        );
    }
    findings
}

/// The index behind the item whose attributes begin at `at`: behind its closing brace or its semicolon.
fn behind_item(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0_usize;
    for (behind, text) in (at + 1..).zip(texts(&tokens[at..])) {
        match text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            ";" => {}
            _ => continue,
        }
        if depth == 0 {
            return behind;
        }
    }
    tokens.len()
}

/// `std::fs::read` lies in `std::fs`, `std::fsx` does not; a glob may be anything below its parent.
fn is_impure(path: &str) -> bool {
    IMPURE_PATHS.iter().any(|banned| {
        let below = path
            .strip_prefix(banned)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let glob = path
            .strip_suffix('*')
            .is_some_and(|parent| banned.starts_with(parent));
        below || glob
    })
}

/// Collects the paths of the path or `use` tree whose first segment is at `at`; returns the index behind it.
fn path_tree(tokens: &[Token<'_>], mut at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
    let mut path = prefix.to_owned();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    let next = path_tree(tokens, at, &path, paths);
                    // A comma, or something that is no path: step over it.
                    at = next.max(at + 1);
                }
                return at + 1;
            }
            segment if is_word(segment) || segment == "*" => {
                path.push_str(segment);
                at += 1;
                if tokens.get(at).is_none_or(|token| token.text != "::") {
                    // `std::net::{self}` is the module itself.
                    let path = path.strip_suffix("::self").unwrap_or(&path);
                    paths.push((token.line, path.to_owned()));
                    return at;
                }
                path.push_str("::");
                at += 1;
            }
            // A turbofish or the like ends the path before it.
            _ => {
                if let Some(path) = path.strip_suffix("::").filter(|path| path.len() > prefix.len()) {
                    paths.push((token.line, path.to_owned()));
                }
                return at;
            }
        }
    }
    at
}

#[derive(Clone, Copy, Debug)]
struct Token<'s> {
    text: &'s str,
    line: usize,
}

fn texts<'s>(tokens: &'s [Token<'s>]) -> impl Iterator<Item = &'s str> {
    tokens.iter().map(|token| token.text)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single other characters, without comments, string and character literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, keep) = match skipped(rest) {
            Some(length) => (length, false),
            None if rest.starts_with("::") => (2, true),
            None if is_word(rest) => (
                rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len()),
                true,
            ),
            None => (first.len_utf8(), !first.is_whitespace()),
        };
        let (text, behind) = rest.split_at(length);
        if keep {
            found.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    found
}

/// The length of the comment or literal that `rest` begins with.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let raw = rest
        .trim_start_matches('b')
        .strip_prefix('r')
        .map(|r| r.trim_start_matches('#'));
    if let Some(body) = raw.and_then(|raw| raw.strip_prefix('"')) {
        let hashes = rest[..rest.len() - body.len()].matches('#').count();
        let close = format!("\"{}", "#".repeat(hashes));
        let opened = rest.len() - body.len();
        return Some(
            body.find(&close)
                .map_or(rest.len(), |at| opened + at + close.len()),
        );
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    // 'a' and '\n' are literals, 'a without a closing quote is a lifetime.
    let mut behind_quote = rest.strip_prefix('\'')?.chars();
    let escaped = behind_quote.next()? == '\\';
    (escaped || behind_quote.next() == Some('\'')).then(|| quoted(rest, '\''))
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(usize, String)> {
        scan(Path::new("a.rs"), source)
            .into_iter()
            .map(|finding| (finding.line, finding.path))
            .collect()
    }

    #[test]
    fn an_inline_path_is_found_on_its_line() {
        let source = "fn f() {\n    let t = std::time::Instant::now();\n}\n";
        assert_eq!(found(source), [(2, "std::time::Instant::now".to_owned())]);
    }

    #[test]
    fn braces_of_a_use_are_expanded() {
        let source =
            "use std::{collections::BTreeMap, net::{IpAddr, UdpSocket}, time::{self, Duration, SystemTime}};";
        assert_eq!(
            found(source),
            [
                (1, "std::net::UdpSocket".to_owned()),
                (1, "std::time::SystemTime".to_owned())
            ]
        );
    }

    #[test]
    fn a_module_imported_by_name_or_as_self_is_found() {
        assert_eq!(found("use std::fs;"), [(1, "std::fs".to_owned())]);
        assert_eq!(found("use std::thread::{self};"), [(1, "std::thread".to_owned())]);
        assert_eq!(
            found("use std::env as surroundings;"),
            [(1, "std::env".to_owned())]
        );
    }

    #[test]
    fn a_glob_that_could_bring_a_clock_is_found() {
        assert_eq!(found("use std::time::*;"), [(1, "std::time::*".to_owned())]);
        assert_eq!(found("use std::collections::*;"), []);
    }

    #[test]
    fn addresses_and_durations_are_pure() {
        assert_eq!(
            found("use std::net::{IpAddr, Ipv4Addr};\nfn f(d: std::time::Duration) {}"),
            []
        );
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = "// std::fs\n/* std::env /* nested */ std::env */\nconst A: &str = \"std::process \\\" std::fs\";\n\
                      const B: &str = r#\"std::thread \" std::fs\"#;\nconst C: char = '\"';\nfn f<'a>(x: &'a str) {}\n";
        assert_eq!(found(source), []);
    }

    #[test]
    fn code_behind_literals_is_still_seen() {
        let source =
            "const A: &str = \"x\"; const B: char = '\\''; const C: &str = r\"y\";\nuse std::fs::File;";
        assert_eq!(found(source), [(2, "std::fs::File".to_owned())]);
    }

    #[test]
    fn items_for_tests_are_left_out_and_what_follows_them_is_not() {
        let source = "#[cfg(test)]\nuse std::fs;\n#[cfg(test)]\n#[expect(a, reason = \"b\")]\nmod tests {\n    \
                      fn f() { std::fs::read(); }\n}\nfn g() { std::env::args(); }\n";
        assert_eq!(found(source), [(8, "std::env::args".to_owned())]);
    }
}
