// SPDX-License-Identifier: GPL-2.0

//! The sweep: the Intel machine injects an event after each instruction of the kernel in a run of a
//! guest that counts, each in a copy of itself, and each copy must show the same in the end. See
//! bochs-vmm/src/sweep.rs and selftests/mvpmu/sweep.c.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::oracle;
use crate::tap::Case;

/// The events.
pub const KINDS: &str = "nmi,pmi,timer,byte";
/// A prime: what repeats in the run is met at other places each time.
pub const SAMPLE: u64 = 509;

/// What else there is in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Company {
    /// Nothing
    Alone,
    /// An event of the host's, for the thread of the vCPU
    Event,
    /// A real-time task that waits for a byte, and then counts the CPU
    Waiter,
    /// Both
    Both,
}

impl Company {
    /// All of them.
    pub const ALL: [Company; 4] = [
        Company::Alone,
        Company::Event,
        Company::Waiter,
        Company::Both,
    ];

    /// The arguments of the program.
    fn words(self) -> &'static [&'static str] {
        match self {
            Company::Alone => &[],
            Company::Event => &["event"],
            Company::Waiter => &["waiter"],
            Company::Both => &["event", "waiter"],
        }
    }

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Company::Alone => "alone",
            Company::Event => "event",
            Company::Waiter => "waiter",
            Company::Both => "both",
        }
    }
}

/// One sweep.
pub struct Sweep<'a> {
    pub provider: &'a str,
    pub company: Company,
    pub kinds: &'a str,
    /// Only after every so many-th instruction.
    pub every: u64,
    pub limit: Duration,
}

impl Sweep<'_> {
    /// What `make test` does of it.
    pub fn sample(company: Company) -> Self {
        Sweep {
            provider: "mvpmu",
            company,
            kinds: KINDS,
            every: SAMPLE,
            limit: Duration::from_secs(300),
        }
    }

    /// All of it.
    pub fn whole(company: Company) -> Self {
        Sweep {
            every: 1,
            limit: Duration::from_secs(7200),
            ..Self::sample(company)
        }
    }

    /// Runs it. One test says that all was as it should be, else there is one for each thing that
    /// was shown instead.
    pub fn run(&self, directory: &Path) -> Result<Vec<Case>> {
        let options = [
            "--sweep".to_owned(),
            self.kinds.to_owned(),
            "--sweep-every".to_owned(),
            self.every.to_string(),
        ];
        let options: Vec<&'static str> = options.map(|option| &*option.leak()).to_vec();
        let boot = Boot {
            options: options.leak(),
            append: format!("loglevel=5 {}", oracle::REPORT_MODULES),
            ..Boot::new(Machine::Intel)
        };
        let mut job = Job::new("sweep");
        job.arguments.push(self.provider.to_owned());
        let words = self.company.words().iter().map(|word| (*word).to_owned());
        job.arguments.extend(words);
        let outcome = boot::run(&boot, &job, directory, self.limit, false)?;

        let log = fs::read_to_string(directory.join("machine.log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| line.strip_prefix("sweep: "));
        let named = oracle::with_names(&lines.collect::<Vec<_>>(), directory, boot.kernel);
        fs::write(directory.join("sweep"), named.join("\n"))?;
        let title = format!(
            "{}, {}: each instruction",
            self.provider,
            self.company.name()
        );
        Ok(cases(&title, &named, outcome.problem()))
    }
}

/// How many lines of what was shown are told.
const SHOWN: usize = 40;

fn cases(title: &str, lines: &[String], problem: Option<String>) -> Vec<Case> {
    const FAILED: &str = "failed: ";
    let whole = lines.first().filter(|line| line.ends_with(" 0 failed"));
    let swept = whole.is_some_and(|line| !line.contains(" 0 cases"));
    if let (true, None) = (swept, &problem) {
        return vec![Case::passed(title)];
    }
    let mut cases: Vec<Case> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with(FAILED))
        .map(|(n, line)| {
            let shown = lines[n + 1..].iter().take_while(|l| !l.starts_with(FAILED));
            let shown: Vec<_> = shown.take(SHOWN).map(String::as_str).collect();
            let name = format!("{title}: {}", &line[FAILED.len()..]);
            Case::failed(name, shown.join("\n"))
        })
        .collect();
    if cases.is_empty() {
        let why = problem.unwrap_or("nothing was swept".to_owned());
        cases.push(Case::failed(title, why));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str], problem: Option<&str>) -> Vec<Case> {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        cases("it", &lines, problem.map(str::to_owned))
    }

    // Has to fail when a sweep that did nothing passes.
    #[test]
    fn a_sweep_without_cases_has_not_passed() {
        let passed = vec![Case::passed("it")];
        assert_eq!(of(&["9 instructions, 9 cases, 0 failed"], None), passed);
        assert_ne!(of(&["9 instructions, 0 cases, 0 failed"], None), passed);
        assert_ne!(of(&[], None), passed);
        let died = of(&["9 instructions, 9 cases, 0 failed"], Some("it died"));
        assert_eq!(died, [Case::failed("it", "it died")]);
    }

    #[test]
    fn each_thing_that_was_shown_is_a_case() {
        let lines = [
            "9 instructions, 9 cases, 3 failed",
            "expected: result: 1",
            "failed: nmi after instruction 3",
            "  result: 2",
            "failed: pmi after instruction 4",
        ];
        let expected = [
            Case::failed("it: nmi after instruction 3", "  result: 2"),
            Case::failed("it: pmi after instruction 4", ""),
        ];
        assert_eq!(of(&lines, None), expected);
    }
}
