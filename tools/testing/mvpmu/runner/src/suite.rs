// SPDX-License-Identifier: GPL-2.0

//! `make test`: runs the groups of tests, and says what became of them.

mod group;
mod guests;
mod hosts;
mod lives;
mod long;
mod machines;
mod selftests;
mod skips;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use self::group::Group;
pub use self::group::Length;
use crate::attackers;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::mutants;
use crate::oracle::Oracle;
use crate::results::Tally;
use crate::schedule;
use crate::tap::Case;
use crate::tap::Verdict;

const LOGS: &str = "build/test";

/// The names of the groups that there are on the two machines.
pub struct Names {
    /// Those of `make test`.
    pub usual: Vec<String>,
    /// Those of `make test-long`.
    pub long: Vec<String>,
}

impl Names {
    pub fn new() -> Result<Names> {
        let cpus: Vec<_> = [Machine::Amd, Machine::Intel].map(Machine::cpu).to_vec();
        let of = |length| -> Result<Vec<String>> {
            let groups = all(&cpus, length)?;
            Ok(groups.into_iter().map(|group| group.name).collect())
        };
        let (mut usual, long) = (of(Length::Usual)?, of(Length::Long)?);
        long::leave_out(&mut usual, String::as_str);
        long::check(&long)?;
        Ok(Names { usual, long })
    }
}

/// All groups there are, each of which has a directory of its own.
fn all(cpus: &[Cpu], length: Length) -> Result<Vec<Group>> {
    let groups = table::groups(cpus, length)?;
    let mut directories = BTreeSet::new();
    for group in &groups {
        ensure!(
            directories.insert(group.directory()),
            "two groups of tests are named '{}'",
            group.name
        );
    }
    Ok(groups)
}

/// Whether `filter` means a group with this name: its part, unless it is the whole name of one of `all`.
pub fn means(filter: &str, name: &str, all: &[String]) -> bool {
    match all.iter().any(|name| name == filter) {
        true => name == filter,
        false => name.contains(filter),
    }
}

/// The groups that `filter` means.
fn meant(cpus: &[Cpu], filter: &str, length: Length) -> Result<Vec<Group>> {
    let mut groups = all(cpus, length)?;
    let names = Names::new()?.long;
    if length == Length::Usual {
        long::leave_out(&mut groups, |group| &group.name);
    }
    groups.retain(|group| means(filter, &group.name, &names));
    ensure!(
        !groups.is_empty(),
        match names.iter().any(|name| name.contains(filter)) {
            true => format!("'{filter}' is among the groups that only make test-long runs"),
            false => format!("no group of tests is named '{filter}'; make groups lists all"),
        }
    );
    Ok(groups)
}

/// Prints the names of the groups that `filter` means.
pub fn list(cpus: &[Cpu], filter: &str, length: Length) -> Result<()> {
    for group in meant(cpus, filter, length)? {
        println!("{}", group.name);
    }
    Ok(())
}

/// Runs the groups that `filter` means. Whether all passed.
pub fn run(cpus: &[Cpu], filter: &str, oracle: Oracle, length: Length) -> Result<bool> {
    let mut total = Tally::default();
    let mut groups = meant(cpus, filter, length)?;
    for group in &mut groups {
        group.set_oracle(oracle);
    }
    fs::create_dir_all(LOGS)?;
    // No result of an earlier run may look like one of this.
    let _ = fs::remove_file(Path::new(LOGS).join("summary"));
    let _ = fs::remove_file(mutants::TABLE);
    println!("{:36} passed failed skipped  time", "");
    let mut written = Ok(());
    schedule::run(
        &groups,
        thread::available_parallelism().map_or(1, usize::from),
        Group::cpus,
        |group| {
            let begin = Instant::now();
            let cases = group
                .run()
                .unwrap_or_else(|error| vec![Case::failed("it can be run", format!("{error:#}"))]);
            (skips::judge(&group.name, cases), begin.elapsed())
        },
        |group, (cases, time)| {
            let mut tally = Tally::default();
            for case in &cases {
                tally.add(case);
                total.add(case);
            }
            println!(
                "{:36} {:6} {:6} {:7} {:3} s",
                group.name,
                tally.passed,
                tally.failed,
                tally.skipped,
                time.as_secs()
            );
            if let Err(error) = show(&cases, group) {
                written = Err(error);
            }
        },
    );
    written?;
    mutants::show()?;
    let attackers: Vec<_> = groups.iter().flat_map(Group::attackers).collect();
    attackers::write(&attackers, &Path::new(LOGS).join("attackers.json"))?;
    let summary = format!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    fs::write(Path::new(LOGS).join("summary"), format!("{summary}\n"))?;
    println!("{summary}");
    Ok(total.failed == 0)
}

/// Shows what did not pass, and writes all results to the group's log.
fn show(cases: &[Case], group: &Group) -> Result<()> {
    let mut log = String::new();
    for case in cases {
        let (line, more) = match &case.verdict {
            Verdict::Passed => (format!("passed   {}", case.name), ""),
            Verdict::Failed(why) => (format!("FAILED   {}", case.name), why.as_str()),
            Verdict::Skipped(why) => (format!("skipped  {}", case.name), why.as_str()),
        };
        let mut text = format!("{line}\n");
        for line in more.lines() {
            text.push_str(&format!("         {line}\n"));
        }
        if case.verdict != Verdict::Passed {
            let short: Vec<_> = text.lines().take(8).collect();
            println!("  {}", short.join("\n  "));
        }
        log.push_str(&text);
    }
    let path = group.directory().join("results");
    if cases
        .iter()
        .any(|case| matches!(case.verdict, Verdict::Failed(_)))
    {
        println!("  all of it: {}", path.display());
    }
    fs::create_dir_all(group.directory())?;
    fs::write(&path, log).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_means_one_group() {
        let all = [
            "amd hard times",
            "amd hard times (debug kernel)",
            "amd demo",
        ]
        .map(str::to_owned);
        let meant = |filter| all.iter().filter(|name| means(filter, name, &all)).count();
        assert_eq!(meant("amd hard times"), 1);
        assert_eq!(meant("hard times"), 2);
        assert_eq!(meant(""), 3);
        assert_eq!(meant("intel"), 0);
    }
}
