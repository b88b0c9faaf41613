// SPDX-License-Identifier: GPL-2.0

//! The series for the versions of Linux are in step: what one version has, the others have, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::tap::Case;

const PATCHES: &str = "patches";

/// Patches that a version needs and others do not, with why.
const OF_ONE_VERSION: [(&str, &str, &str); 6] = [
    (
        "7.2",
        "rust: interrupt: add a token for disabled interrupts",
        "7.3 has one",
    ),
    (
        "7.3",
        "rust: interrupt: call nothing for an assertion that is not there",
        "that of 7.2 calls nothing",
    ),
    (
        "7.2",
        "rust: module_param: do not rely on the layout of ModuleParamAccess",
        "fixed in 7.3",
    ),
    (
        "7.2",
        "rust: module_param: support bool, show parameters in sysfs",
        "7.3 has bool",
    ),
    (
        "7.2",
        "rust: module_param: let value() return a copy",
        "7.3 does so",
    ),
    (
        "7.3",
        "rust: module_param: show parameters in sysfs",
        "see that for 7.2",
    ),
];

/// Changed lines that not all versions have, with why.
const OTHER_LINES: [(&str, &str, &str); 1] = [(
    "KVM: x86/pmu: Select events of a mediated PMU on the fastpath",
    "+#include \"mediated_pmu.h\"",
    "what is in x86.c of 7.2 is in a file of its own in 7.3",
)];

/// A patch of a series.
struct Patch {
    file: String,
    subject: String,
    /// What it says above the diff.
    text: String,
    /// The lines it adds and removes, however far they are indented: that depends on what is around
    /// them.
    changes: Vec<String>,
}

impl Patch {
    fn parse(file: String, mail: &str) -> Option<Self> {
        let (head, diff) = mail.split_once("\n---\n")?;
        let (subject, text) = head.strip_prefix("Subject: [PATCH] ")?.split_once("\n\n")?;
        let is_change = |line: &&str| {
            let name = line.starts_with("+++ ") || line.starts_with("--- ");
            !name && (line.starts_with('+') || line.starts_with('-'))
        };
        let (_, diff) = diff.split_once("diff --git ")?;
        Some(Patch {
            file,
            subject: subject.replace('\n', ""),
            text: text.to_owned(),
            changes: diff
                .lines()
                .filter(is_change)
                .map(|line| format!("{}{}", &line[..1], line[1..].trim_start()))
                .collect(),
        })
    }
}

/// The versions with a series, the oldest first.
fn versions() -> Result<Vec<String>> {
    let mut versions: Vec<_> = fs::read_dir(PATCHES)
        .context(PATCHES)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    versions.sort();
    Ok(versions)
}

fn series(version: &str) -> Result<Vec<Patch>> {
    let directory = Path::new(PATCHES).join(version);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            Patch::parse(name.into_owned(), &fs::read_to_string(file)?)
                .with_context(|| format!("{} is no patch with a subject", file.display()))
        })
        .collect()
}

/// The files are numbered from 1 on.
fn numbered(version: &str, series: &[Patch]) -> Case {
    let wrong: Vec<_> = series
        .iter()
        .enumerate()
        .filter(|(i, patch)| !patch.file.starts_with(&format!("{:04}-", i + 1)))
        .map(|(_, patch)| patch.file.as_str())
        .collect();
    let name = format!("the patches for Linux {version} are numbered");
    Case::new(name, wrong.is_empty(), || wrong.join("\n"))
}

/// The subjects of `series` that other versions should have, too.
fn common<'a>(version: &str, series: &'a [Patch]) -> Vec<&'a Patch> {
    let own: BTreeSet<_> = OF_ONE_VERSION
        .iter()
        .filter(|(of, ..)| *of == version)
        .map(|(_, subject, _)| *subject)
        .collect();
    series
        .iter()
        .filter(|patch| !own.contains(patch.subject.as_str()))
        .collect()
}

/// What differs between the series of two versions, and should not.
fn differences(one: &[&Patch], other: &[&Patch]) -> Vec<String> {
    let subjects = |series: &[&Patch]| -> Vec<String> {
        series.iter().map(|patch| patch.subject.clone()).collect()
    };
    let (left, right) = (subjects(one), subjects(other));
    if left != right {
        let missing = |from: &[String], of: &[String]| -> Vec<String> {
            let lines = from.iter().filter(|subject| !of.contains(subject));
            lines.cloned().collect()
        };
        let mut lines = vec!["in one of them only, or in another order:".to_owned()];
        lines.extend(missing(&left, &right));
        lines.extend(missing(&right, &left));
        return lines;
    }
    let mut lines = Vec::new();
    for (one, other) in one.iter().zip(other) {
        if one.text != other.text {
            lines.push(format!("{}: another text", one.subject));
        }
        let is_listed = |line: &&String| {
            let mut listed = OTHER_LINES.iter();
            listed.any(|(subject, other, _)| *subject == one.subject && other == line)
        };
        let is_missing = |of: &Patch, line: &&String| !of.changes.contains(line);
        let left = one.changes.iter().filter(|line| is_missing(other, line));
        let right = other.changes.iter().filter(|line| is_missing(one, line));
        let mut only = left.chain(right).filter(|line| !is_listed(line));
        if let Some(line) = only.next() {
            lines.push(format!("{}: other changes: {line}", one.subject));
        }
    }
    lines
}

/// The series of all versions against that of the first.
pub fn test() -> Result<Vec<Case>> {
    let versions = versions()?;
    let all: Vec<_> = versions
        .iter()
        .map(|version| series(version))
        .collect::<Result<_>>()?;
    let mut cases: Vec<_> = versions
        .iter()
        .zip(&all)
        .map(|(version, series)| numbered(version, series))
        .collect();
    for (version, series) in versions.iter().zip(&all).skip(1) {
        let first = common(&versions[0], &all[0]);
        let found = differences(&first, &common(version, series));
        let name = format!(
            "the series for Linux {} and {version} are in step",
            versions[0]
        );
        cases.push(Case::new(name, found.is_empty(), || found.join("\n")));
    }
    for (version, subject, _) in OF_ONE_VERSION {
        let there = versions.iter().zip(&all).any(|(of, series)| {
            of == version && series.iter().any(|patch| patch.subject == subject)
        });
        let name = format!("Linux {version} alone needs '{subject}'");
        cases.push(Case::new(name, there, || "it is not there".to_owned()));
    }
    Ok(cases)
}
