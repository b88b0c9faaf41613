// SPDX-License-Identifier: GPL-2.0

//! The page of symptoms quotes what the kernel says: it still has to say so.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::extension;
use super::text;
use crate::tap::Case;

const PAGE: &str = "Documentation/virt/kvm/x86/mvpmu-symptoms.rst";
/// Who says it.
const SOURCES: [&str; 4] = [
    "drivers/virt/mvpmu",
    "rust/kernel",
    "arch/x86",
    "tools/kvm/mvpmu",
];

/// What others say.
const OF_OTHERS: [(&str, &str); 3] = [
    ("rmmod: ERROR: Module mvpmu is in use", "kmod's"),
    ("perf", "the guest's"),
    ("dmesg", "the guest's"),
];

/// The literals of the terms of definition lists: of lines before one that is indented further.
fn quoted(page: &str) -> Vec<&str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<_> = page.lines().collect();
    let terms = lines.windows(2).filter_map(|pair| match pair {
        [term, next] if !next.is_empty() && indent(next) > indent(term) => Some(*term),
        _ => None,
    });
    // What is between two pairs of backquotes: every other part.
    terms
        .flat_map(|term| term.split("``").skip(1).step_by(2))
        .collect()
}

/// What programs and the kernel can say, with strings that go on on the next line as one.
fn said(files: &[PathBuf]) -> String {
    let mut all = String::new();
    for path in files {
        let ours = SOURCES.iter().any(|source| path.starts_with(source));
        if ours && matches!(extension(path), "rs" | "c" | "h") {
            all.push_str(&text(path));
        } else if path.starts_with("patches") {
            let text = text(path);
            for line in text.lines().filter_map(|line| line.strip_prefix('+')) {
                all.push_str(line);
                all.push('\n');
            }
        }
    }
    let mut parts = all.split("\\\n");
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        joined.push_str(part.trim_start());
    }
    joined
}

/// Whether it is said, as a whole or in parts between commas: one may be put in. The names of the
/// module and of a file before a colon are put there by the kernel.
fn is_said(quoted: &str, said: &str) -> bool {
    let quoted = quoted.strip_prefix("mvpmu: ").unwrap_or(quoted);
    let quoted = quoted.trim_end_matches(':');
    said.contains(quoted) || quoted.split(", ").all(|part| said.contains(part))
}

/// The quotes that nobody says.
fn unknown<'a>(page: &'a str, said: &str) -> Vec<&'a str> {
    let of_others = |quote: &str| OF_OTHERS.iter().any(|(known, _)| *known == quote);
    let quotes = quoted(page).into_iter();
    quotes
        .filter(|quote| !of_others(quote) && !is_said(quote, said))
        .collect()
}

/// The page against the sources.
pub fn check(files: &[PathBuf]) -> Result<Case> {
    let page = std::fs::read_to_string(Path::new(PAGE)).context(PAGE)?;
    let unknown = unknown(&page, &said(files));
    let passed = unknown.is_empty() && !quoted(&page).is_empty();
    Ok(Case::new(
        "what the page of symptoms quotes is said",
        passed,
        || unknown.join("\n"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "pr_warn(\"is idle, %s\"); \"the reason\"";

    // Has to fail when a part of a line is enough, or only the first quote of a line is looked at.
    #[test]
    fn what_nobody_says_is_found() {
        let page =
            "``is idle, the reason``\n  Text.\n\n``is idle``, ``is busy``\n  More ``of it``.\n";
        assert_eq!(unknown(page, SAID), ["is busy"]);
        assert_eq!(unknown("``is idle, a reason``\n  Text.\n", SAID).len(), 1);
    }

    // Has to fail when literals of the text are taken for terms.
    #[test]
    fn only_terms_are_quotes() {
        let page = "A ``word``.\n\n``term``\n  ``text``\n  goes on\n";
        assert_eq!(quoted(page), ["term"]);
    }
}
