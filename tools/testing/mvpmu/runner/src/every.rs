// SPDX-License-Identifier: GPL-2.0

//! Every selftest of KVM that the tree builds for x86: what becomes of it with mvpmu, and with KVM's C
//! code. Some cannot pass in an emulator, or not in time; those must be the same with both.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::boot;
use crate::boot::End;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::paths;
use crate::tap::Case;

/// KVM's own code, for `load-provider`.
const C: &str = "c";

/// A boot that takes longer has stopped in some test.
const LIMIT: Duration = Duration::from_secs(7200);

/// How many seconds of the machine a test may take. Those of the Intel machine are instructions; those of the
/// AMD machine are the host's, so that what ends in time with C has twice as long afterwards.
fn seconds(machine: Machine, provider: &str) -> u32 {
    let with_c = match machine {
        Machine::Amd => 60,
        Machine::Intel => 15,
    };
    match provider {
        C => with_c,
        _ => 2 * with_c,
    }
}

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    /// With the reason that it gives.
    Skipped(String),
    /// With its exit status.
    Failed(i32),
    TooLong,
    /// The machine ended, or nothing moved any more.
    Stopped,
}

impl Fate {
    fn of(status: i32, reason: &str) -> Fate {
        // timeout(1) ends with 124; those that it kills, with 128 and the signal.
        match status {
            0 => Fate::Passed,
            4 => Fate::Skipped(reason.to_owned()),
            124 | 137 | 143 => Fate::TooLong,
            status => Fate::Failed(status),
        }
    }

    /// Whether the test did what it is for, or has said why it cannot.
    fn is_good(&self) -> bool {
        matches!(self, Fate::Passed | Fate::Skipped(_))
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Fate::Passed => "pass",
            Fate::Skipped(_) => "skip",
            Fate::Failed(_) => "fail",
            Fate::TooLong => "too long",
            Fate::Stopped => "stops",
        };
        f.pad(text)
    }
}

type Fates = BTreeMap<String, Fate>;

/// What a console says of tests: "begin NAME", "end NAME STATUS REASON". A test that has begun and not ended
/// has stopped the machine.
fn parse(console: &str) -> Fates {
    let mut fates = Fates::new();
    for line in console.lines().map(|line| line.trim_end_matches('\r')) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next()) {
            (Some("begin"), Some(name)) => {
                fates.insert(name.to_owned(), Fate::Stopped);
            }
            (Some("end"), Some(name)) => {
                let status = words.next().and_then(|status| status.parse().ok());
                let reason = words.next().unwrap_or_default();
                if let (Some(status), Some(fate)) = (status, fates.get_mut(name)) {
                    *fate = Fate::of(status, reason);
                }
            }
            _ => {}
        }
    }
    fates
}

/// Runs these tests with a provider of `load-provider`. After one that stops the machine there is another boot.
fn run(base: &Boot, provider: &str, tests: &[String], directory: &Path) -> Result<Fates> {
    let boot = Boot {
        oracle: match provider {
            "mvpmu" => Oracle::On,
            _ => Oracle::Off,
        },
        panics_on_warning: false,
        ..base.clone()
    };
    let mut fates = Fates::new();
    let mut left = tests.to_vec();
    while !left.is_empty() {
        let mut arguments = vec![
            provider.to_owned(),
            seconds(boot.machine, provider).to_string(),
        ];
        arguments.extend(left.iter().cloned());
        let job = Job {
            arguments,
            every_selftest: true,
            ..Job::new("kvm-selftests")
        };
        let directory = directory.join(format!("{provider}-{}", fates.len()));
        let outcome = boot::run(&boot, &job, &directory, LIMIT, false)?;
        let console = fs::read(&outcome.console)?;
        let found = parse(&String::from_utf8_lossy(&console));
        ensure!(
            !found.is_empty() && (outcome.end != End::Job(0) || found.len() == left.len()),
            "{provider}: no test was run; see {}",
            outcome.console.display()
        );
        left.retain(|test| !found.contains_key(test));
        fates.extend(found);
    }
    Ok(fates)
}

/// One line of the table.
struct Row {
    test: String,
    c: Fate,
    /// Not run where C takes too long.
    mvpmu: Option<Fate>,
    /// With an emulated PMU; run where mvpmu fails.
    emulated: Option<Fate>,
}

impl Row {
    /// None fails with ours that passes with C, and what fails does so without a mediated PMU, too: it is
    /// the machine's.
    fn case(&self) -> Case {
        let good = match (&self.mvpmu, &self.emulated) {
            (None, _) => self.c == Fate::TooLong,
            (Some(Fate::Skipped(_)), _) => matches!(self.c, Fate::Skipped(_)),
            (Some(mvpmu), _) if mvpmu.is_good() => true,
            (Some(_), Some(emulated)) => !self.c.is_good() && !emulated.is_good(),
            (Some(_), None) => false,
        };
        let name = format!("{}: {}", self.test, self.what());
        Case::new(name, good, || self.to_string())
    }

    fn what(&self) -> &'static str {
        match (&self.mvpmu, &self.c) {
            (Some(Fate::Passed), _) => "it passes",
            (_, Fate::Skipped(_)) => "it is skipped as with C",
            (None, _) => "it takes too long here with C",
            (_, Fate::Passed) => "it passes as with C",
            _ => "it fails as with C and with an emulated PMU",
        }
    }

    fn reason(&self) -> String {
        let of = |fate: &Fate| match fate {
            Fate::Skipped(reason) => Some(reason.clone()),
            Fate::Failed(status) => Some(format!("exit status {status}")),
            _ => None,
        };
        [Some(&self.c), self.mvpmu.as_ref(), self.emulated.as_ref()]
            .into_iter()
            .flatten()
            .find_map(of)
            .unwrap_or_default()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_not = |fate: &Option<Fate>| fate.as_ref().map_or("-".to_owned(), Fate::to_string);
        let (mvpmu, emulated) = (or_not(&self.mvpmu), or_not(&self.emulated));
        write!(
            f,
            "{:40} {:9} {mvpmu:9} {emulated:9} {}",
            self.test,
            self.c,
            self.reason()
        )
    }
}

/// The tests that are built.
fn names() -> Result<Vec<String>> {
    let directory = Path::new(paths::EVERY_SELFTEST);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // The mark of the build is none.
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// All of them on the machine of `base`; the table is left in `directory`.
pub fn test(base: &Boot, directory: &Path) -> Result<Vec<Case>> {
    boot::empty(directory)?;
    let tests = names()?;
    let c = run(base, C, &tests, directory)?;
    let of = |fates: &Fates, test: &str| fates.get(test).cloned();
    let in_time: Vec<_> = tests
        .iter()
        .filter(|test| of(&c, test) != Some(Fate::TooLong))
        .cloned()
        .collect();
    let mvpmu = run(base, "mvpmu", &in_time, directory)?;
    let failed: Vec<_> = in_time
        .iter()
        .filter(|test| !of(&mvpmu, test).is_some_and(|fate| fate.is_good()))
        .cloned()
        .collect();
    let emulated = run(base, "emulated", &failed, directory)?;
    let mut table = format!("{:40} {:9} {:9} {:9}\n", "", "C", "mvpmu", "emulated");
    let mut cases = Vec::new();
    for test in tests {
        let row = Row {
            c: of(&c, &test).with_context(|| format!("{test} was not run with C"))?,
            mvpmu: of(&mvpmu, &test),
            emulated: of(&emulated, &test),
            test,
        };
        table.push_str(&format!("{row}\n"));
        cases.push(row.case());
    }
    fs::write(directory.join("table"), table)?;
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Verdict;

    #[test]
    fn a_console_says_what_became_of_each_test() {
        let console =
            "begin a_test\r\nend a_test 0 \r\nbegin b_test\r\n==== Test Assertion ====\r\n\
            end b_test 254 \r\nbegin c_test\r\nend c_test 4 1..0 # SKIP - no such CPU\r\n\
            begin d_test\r\nend d_test 124 \r\nbegin e_test\r\n";
        let found: Vec<_> = parse(console).into_values().collect();
        let skipped = Fate::Skipped("1..0 # SKIP - no such CPU".to_owned());
        assert_eq!(
            found,
            [
                Fate::Passed,
                Fate::Failed(254),
                skipped,
                Fate::TooLong,
                Fate::Stopped
            ]
        );
    }

    #[test]
    fn an_end_without_a_beginning_is_none() {
        assert!(parse("end a_test 0 \n").is_empty());
    }

    fn passes(c: Fate, mvpmu: Option<Fate>, emulated: Option<Fate>) -> bool {
        let test = "a_test".to_owned();
        let row = Row {
            test,
            c,
            mvpmu,
            emulated,
        };
        row.case().verdict == Verdict::Passed
    }

    // Has to fail when a failure counts as the machine's that is not there without mvpmu.
    #[test]
    fn a_failure_has_to_be_there_with_c_and_without_a_mediated_pmu() {
        let failed = || Fate::Failed(254);
        assert!(passes(failed(), Some(failed()), Some(failed())));
        assert!(passes(failed(), Some(Fate::Stopped), Some(failed())));
        assert!(passes(failed(), Some(Fate::Passed), None));
        assert!(!passes(Fate::Passed, Some(failed()), Some(failed())));
        assert!(!passes(failed(), Some(failed()), Some(Fate::Passed)));
        assert!(!passes(failed(), Some(failed()), None));
    }

    #[test]
    fn a_skip_has_to_be_one_with_c() {
        let skipped = || Fate::Skipped("no such CPU".to_owned());
        assert!(passes(skipped(), Some(skipped()), None));
        assert!(passes(skipped(), Some(Fate::Passed), None));
        assert!(!passes(Fate::Passed, Some(skipped()), None));
    }

    #[test]
    fn what_takes_too_long_does_so_with_c() {
        assert!(passes(Fate::TooLong, None, None));
        assert!(!passes(Fate::Passed, None, None));
        assert!(!passes(
            Fate::Passed,
            Some(Fate::TooLong),
            Some(Fate::TooLong)
        ));
    }
}
