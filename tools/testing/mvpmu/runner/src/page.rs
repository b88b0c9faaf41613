// SPDX-License-Identifier: GPL-2.0

//! What the documentation shows literally: commands, and files, which tests take from there.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

/// How hypervisors have to be set.
pub const HYPERVISORS: &str = "Documentation/virt/kvm/x86/mvpmu-hypervisors.rst";

/// The recipes of that page, as files: how QEMU is called, a domain of libvirt, and how virsh is called.
pub fn recipes() -> Result<[(&'static str, String); 3]> {
    let page = fs::read_to_string(HYPERVISORS).context(HYPERVISORS)?;
    let qemu = blocks(section(&page, "QEMU"), "\t");
    let libvirt = blocks(section(&page, "libvirt"), "\t");
    let ([qemu], [domain, virsh]) = (&qemu[..], &libvirt[..]) else {
        anyhow::bail!("{HYPERVISORS} has not one block for QEMU and two for libvirt");
    };
    ensure!(domain.starts_with("<domain"), "no domain: {domain}");
    Ok([("qemu", qemu), ("guest.xml", domain), ("virsh", virsh)]
        .map(|(name, text)| (name, text.clone())))
}

/// A page, without the recipes: a group of tests runs these as a whole.
pub fn without_recipes(path: &Path) -> Result<String> {
    let mut page = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if path == Path::new(HYPERVISORS) {
        for (_, recipe) in recipes()? {
            let indented = recipe.trim_end().replace('\n', "\n\t");
            ensure!(page.contains(&indented), "a recipe is not found again");
            page = page.replace(&indented, "");
        }
    }
    Ok(page)
}

/// What is below a heading of reStructuredText, up to the next one.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let Some((_, below)) =
        page.split_once(&format!("\n{heading}\n{}\n", "=".repeat(heading.len())))
    else {
        return "";
    };
    let end = below.find("\n===").map_or(below.len(), |at| {
        below[..at].rfind('\n').unwrap_or_default() + 1
    });
    &below[..end]
}

/// The literal blocks of a text, without their indentation: lines that are indented by `indent`, after an
/// empty one.
fn blocks(text: &str, indent: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    let mut before = "";
    while let Some(line) = lines.next() {
        if before.is_empty() && line.starts_with(indent) {
            let mut block = vec![&line[indent.len()..]];
            while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(indent))
            {
                block.push(line.strip_prefix(indent).unwrap_or_default());
            }
            blocks.push(format!("{}\n", block.join("\n").trim_end()));
            before = "";
            continue;
        }
        before = line;
    }
    blocks
}

/// The lines of a block, with those that go on as one, if it is one of commands: these begin with a letter,
/// or in the directory one is in. Drawings, files and paths do not.
fn lines(block: &str) -> Vec<String> {
    if !block.starts_with(|first: char| first.is_ascii_alphabetic() || first == '.') {
        return Vec::new();
    }
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(normal);
    lines.filter(|line| !line.is_empty()).collect()
}

fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The programs whose calls within a sentence are commands.
const PROGRAMS: [&str; 10] = [
    "apt",
    "dmesg",
    "insmod",
    "make",
    "modprobe",
    "mvpmu-check",
    "mvpmu-top",
    "perf",
    "rmmod",
    "virsh",
];

/// The calls within the sentences of `text`, between pairs of `mark`: a program with arguments.
fn calls(text: &str, mark: &str) -> Vec<String> {
    let spans = text.split(mark).skip(1).step_by(2).map(normal);
    spans
        .filter(|span| {
            let mut words = span.split(' ');
            let program = words.next().unwrap_or_default();
            words.next().is_some() && (PROGRAMS.contains(&program) || program.ends_with(".sh"))
        })
        .collect()
}

/// The commands of a page: in a block, and within a sentence.
pub fn commands(path: &Path, page: &str) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("md") => {
            let without_screens: String = page.split("\n```").step_by(2).collect();
            for block in blocks(&without_screens, "    ") {
                shown.extend(lines(&block));
            }
            shown.extend(calls(&without_screens, "`"));
        }
        Some("rst") => {
            for block in blocks(page, "\t") {
                shown.extend(lines(&block));
            }
            shown.extend(calls(page, "``"));
        }
        // A manual.
        _ => {
            let examples = page
                .split_once("\n.SH EXAMPLES\n")
                .map_or("", |(_, text)| text);
            let examples = examples.split("\n.SH ").next().unwrap_or_default();
            let lines = examples.lines().filter_map(|line| line.strip_prefix(".B "));
            shown.extend(lines.map(normal));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "Page\n====\n\nOne\n===\n\nText::\n\n\ta \\\n\t\tb\n\n\tc\n\nText.\n\n::\n\n\td\n\n\
                        Two\n===\n\n::\n\n\te\n";

    // Has to fail when the next section is not the end.
    #[test]
    fn a_section_ends_before_the_next_heading() {
        assert_eq!(
            blocks(section(PAGE, "One"), "\t"),
            ["a \\\n\tb\n\nc\n", "d\n"]
        );
        assert_eq!(blocks(section(PAGE, "Two"), "\t"), ["e\n"]);
        assert_eq!(section(PAGE, "Three"), "");
    }

    // Has to fail when lines that go on are two, and when a word in a sentence is no command.
    #[test]
    fn commands_are_in_blocks_and_in_sentences() {
        let page = "Text `make x` and `perf`, `a b`\nand `make\ny`.\n\n    a \\\n      b\n    c\n\n```\n    no\n```\n";
        let expected = ["a b", "c", "make x", "make y"];
        assert_eq!(commands(Path::new("x.md"), page), expected);
        assert_eq!(commands(Path::new("x.rst"), PAGE), ["a b", "c", "d", "e"]);
    }

    // Has to fail when each block is taken for commands.
    #[test]
    fn a_drawing_is_no_command() {
        let page = "\n\t /--\\\n\nText\n\n\t<domain>\n\nText\n\n\t/sys/x\n\nText\n\n\t./x\n";
        assert_eq!(commands(Path::new("x.rst"), page), ["./x"]);
    }

    // Has to fail when other sections are looked at.
    #[test]
    fn those_of_a_manual_are_its_examples() {
        let page = ".SH NAME\n.B x\n.SH EXAMPLES\n.TP\n.B x --y\nText.\n.SH SEE ALSO\n.B z\n";
        assert_eq!(commands(Path::new("x.1"), page), ["x --y"]);
    }
}
