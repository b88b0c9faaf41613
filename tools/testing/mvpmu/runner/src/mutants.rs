// SPDX-License-Identifier: GPL-2.0

//! The tests of the tests: each deliberate bug of the module, and of what the series makes of KVM and perf,
//! must be caught.
//!
//! A build of the module for tests has a parameter that selects one, and a build of Linux. Those that were [thought
//! of](list::Thought) must be caught as they say: by the oracle, as a violation of this invariant on
//! this occasion, or by this case of a selftest. Those that are [made](list::Made), one for each write
//! of a register, must be caught by either: by what is in the table. A write that can be skipped
//! without effect is in [`EQUIVALENT`].

mod list;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use self::list::Made;
use self::list::Thought;
use crate::boot;
use crate::boot::Outcome;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::paths::Kernel;
use crate::results;
use crate::suite::Length;
use crate::tap::Case;
use crate::tap::Verdict;

/// Where the table goes.
pub const TABLE: &str = "build/test/mutants.json";

/// The selftests that look for a write that is skipped, the likeliest first.
const LOOKING: [&str; 7] = [
    "count_test",
    "state_test",
    "control_test",
    "pmi_test",
    "host_perf_test",
    "cpu_test",
    "topdown_test",
];

/// Writes that may be skipped: on which machine, and why nothing can show it.
const EQUIVALENT: [(&str, Machine, &str); 5] = [
    ("skip:switch.rs:load:1", Machine::Amd, NO_FIXED),
    ("skip:switch.rs:reload:2", Machine::Amd, NO_FIXED),
    ("skip:vendor.rs:load_status:1", Machine::Amd, NO_STATUS),
    (
        "skip:vendor/amd.rs:put_global_ctrl:1",
        Machine::Amd,
        GUEST_ONLY,
    ),
    ("skip:vendor.rs:load_status:1", Machine::Intel, NO_STATUS),
];

const NO_STATUS: &str = "perf has acknowledged what overflowed: a PMI comes with the overflow here";
const GUEST_ONLY: &str =
    "the guest's counters are GuestOnly; that perf's begin together, KUnit asserts";
const NO_FIXED: &str = "there are no fixed counters, nothing is written";

/// A line of the table.
#[derive(Serialize, Deserialize)]
struct Row {
    mutant: String,
    machine: String,
    /// Of a register write that is skipped: where it is, and what it writes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    write: Option<String>,
    /// By which occasion of the oracle or cases of a selftest.
    by: Vec<String>,
    caught: bool,
}

/// Which of the bugs.
#[derive(Clone, Copy)]
pub enum Part {
    /// Those of the module that were thought of.
    Thought,
    /// Those of Linux, which were thought of, too.
    Linux,
    Made,
}

/// Runs the tests with each bug of `part` on `boot`; with those that were thought of, also without
/// any. A bug that both machines could show is, unless `length` is long, shown by one of them; of those of
/// Linux it is every second one then, of those that are made every third.
pub fn run(part: Part, length: Length, boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    // The kernel may warn of a bug before what should catch it does.
    let boot = &Boot {
        panics_on_warning: false,
        ..boot.clone()
    };
    let mut rows = Vec::new();
    let cases = match part {
        Part::Thought => run_all_thought((boot, false), length, directory, &mut rows)?,
        Part::Linux => run_all_thought((boot, true), length, directory, &mut rows)?,
        Part::Made => run_all_made(boot, length, directory, &mut rows)?,
    };
    append(rows)?;
    Ok(cases)
}

/// The machine with this bug of Linux.
pub fn of_linux(boot: &Boot, name: &str) -> Boot {
    Boot {
        kernel: Kernel::Mutants,
        append: format!("{} mvpmu_mutant={name}", boot.append),
        ..boot.clone()
    }
}

/// Those of `all` that are for this machine: each, or of those that are for both every second one.
fn share<T>(
    all: Vec<T>,
    machine: Machine,
    length: Length,
    is_for: impl Fn(&T, Machine) -> bool,
) -> Vec<T> {
    let mut other = machine == Machine::Intel;
    let mut is_here = |one: &T| {
        if length == Length::Long
            || ![Machine::Amd, Machine::Intel]
                .iter()
                .all(|&on| is_for(one, on))
        {
            return is_for(one, machine);
        }
        other = !other;
        other
    };
    all.into_iter().filter(|one| is_here(one)).collect()
}

fn run_all_thought(
    (boot, of_linux): (&Boot, bool),
    length: Length,
    directory: &Path,
    rows: &mut Vec<Row>,
) -> Result<Vec<Case>> {
    let is_for = |mutant: &Thought, machine| mutant.expected(machine).is_some();
    let mut thought = list::thought()?;
    thought.retain(|mutant| mutant.of_linux == of_linux);
    let mut thought = share(thought, boot.machine, length, is_for);
    if of_linux && length == Length::Usual {
        // There are many; what is left is run on the AMD machine.
        thought = thought.into_iter().step_by(2).collect();
    }
    let boot = &match of_linux {
        false => boot.clone(),
        true => self::of_linux(&boot.clone().with_two_cpus(), "none"),
    };
    let mut cases = Vec::new();
    for (parameters, tests) in without_bug(&thought, of_linux) {
        let place = directory.join(format!("none{parameters}"));
        let (outcome, control) = run_one(boot, &format!("none{parameters}"), &tests, &place)?;
        let unharmed = outcome.violations.is_none() && !control.iter().any(is_failure);
        let name = format!("nothing is caught without a bug{parameters}");
        cases.push(Case::new(name, unharmed, || {
            let failed = control.iter().filter(|case| is_failure(case));
            let names: Vec<_> = failed.map(|case| case.name.as_str()).collect();
            outcome.violations.unwrap_or(names.join("\n"))
        }));
    }
    for mutant in &thought {
        cases.extend(run_thought(boot, mutant, directory, rows)?);
    }
    Ok(cases)
}

fn run_all_made(
    boot: &Boot,
    length: Length,
    directory: &Path,
    rows: &mut Vec<Row>,
) -> Result<Vec<Case>> {
    let made = list::made(boot.kernel)?;
    let mut cases = vec![equivalent_exist(&made)];
    let is_for =
        |mutant: &Made, machine| mutant.is_for(machine) && reason(&mutant.name, machine).is_none();
    let mut made = share(made, boot.machine, length, is_for);
    if length == Length::Usual {
        made = made.into_iter().step_by(3).collect();
    }
    for mutant in made {
        cases.push(run_made(boot, &mutant, directory, rows)?);
    }
    Ok(cases)
}

/// The tests that are run without a bug, by the parameters for them.
fn without_bug(thought: &[Thought], of_linux: bool) -> BTreeMap<&str, Vec<String>> {
    let mut all = BTreeMap::new();
    if !of_linux {
        all.insert("", LOOKING.map(str::to_owned).to_vec());
    }
    for mutant in thought {
        let tests: &mut Vec<_> = all.entry(&mutant.parameters).or_default();
        if !tests.contains(&mutant.test) {
            tests.push(mutant.test.clone());
        }
    }
    all
}

/// One that was thought of: how it is caught is known.
fn run_thought(
    boot: &Boot,
    mutant: &Thought,
    directory: &Path,
    rows: &mut Vec<Row>,
) -> Result<Option<Case>> {
    let Some(expected) = mutant.expected(boot.machine) else {
        return Ok(None);
    };
    let name = &mutant.name;
    let place = directory.join(name);
    let test = std::slice::from_ref(&mutant.test);
    let mut boot = boot.clone();
    if !mutant.watched {
        boot.oracle = Oracle::Off;
    }
    let (boot, of_module) = match mutant.of_linux {
        false => (boot, name.as_str()),
        true => (of_linux(&boot, name), "none"),
    };
    let of_module = format!("{of_module}{}", mutant.parameters);
    let (outcome, results) = run_one(&boot, &of_module, test, &place)?;
    let by = seen(&outcome, &results);
    let caught = by
        .iter()
        .any(|by| expected.split(" | ").any(|one| by == one));
    rows.push(Row {
        mutant: name.clone(),
        machine: boot.machine.name().to_owned(),
        write: None,
        by: by.clone(),
        caught,
    });
    let name = format!("{name} is caught: {expected}");
    Ok(Some(Case::new(&name, caught, || not_caught(&by, &place))))
}

/// One that was made: something must catch it.
fn run_made(boot: &Boot, mutant: &Made, directory: &Path, rows: &mut Vec<Row>) -> Result<Case> {
    let name = &mutant.name;
    let place = directory.join(name.replace([':', '/'], "-"));
    let (outcome, results) = run_one(boot, name, &LOOKING.map(str::to_owned), &place)?;
    let by = seen(&outcome, &results);
    let caught = !by.is_empty();
    rows.push(Row {
        mutant: name.clone(),
        machine: boot.machine.name().to_owned(),
        write: Some(format!("{}: {}", mutant.place, mutant.source)),
        by: by.clone(),
        caught,
    });
    let name = format!("{name} ({}) is caught", mutant.source);
    Ok(Case::new(&name, caught, || not_caught(&by, &place)))
}

fn not_caught(by: &[String], place: &Path) -> String {
    format!("seen: {by:?}; see {}", place.display())
}

/// Why it has no effect there.
fn reason(name: &str, machine: Machine) -> Option<&'static str> {
    let is = |(site, on, _): &&(&str, Machine, _)| *site == name && *on == machine;
    EQUIVALENT.iter().find(is).map(|(.., why)| *why)
}

/// Nothing is excused that is no longer there.
fn equivalent_exist(made: &[Made]) -> Case {
    let gone: Vec<_> = EQUIVALENT
        .iter()
        .filter(|(site, ..)| !made.iter().any(|made| made.name == *site))
        .map(|(site, ..)| *site)
        .collect();
    let name = "the writes without effect are there";
    Case::new(name, gone.is_empty(), || gone.join("\n"))
}

/// Runs tests up to the first that fails, with this bug of the module, and what follows of its parameters.
fn run_one(
    boot: &Boot,
    mutant: &str,
    tests: &[String],
    directory: &Path,
) -> Result<(Outcome, Vec<Case>)> {
    let mut job = Job::new("selftests");
    job.arguments = vec!["first-failure".into(), format!("mvpmu,mutant={mutant}")];
    job.arguments
        .extend(tests.iter().map(|test| format!("mvpmu/{test}")));
    let outcome = boot::run(boot, &job, directory, Duration::from_secs(300), false)?;
    // What comes after the first failure is not run.
    let ran: Vec<_> = tests
        .iter()
        .filter(|test| mutant.starts_with("none") || outcome.read(&format!("{test}.tap")).is_ok())
        .cloned()
        .collect();
    let results = results::of_job(&outcome, &ran);
    Ok((outcome, results))
}

fn is_failure(case: &Case) -> bool {
    matches!(case.verdict, Verdict::Failed(_))
}

/// What has caught a bug: "I2 OCCASION", said by the oracle, or "TEST: CASE" for each that failed. A
/// machine or a job that breaks down has not caught anything.
fn seen(outcome: &Outcome, results: &[Case]) -> Vec<String> {
    if let Some(text) = &outcome.violations {
        return occasion(text).into_iter().collect();
    }
    // Its own test is to fail, not that there are none.
    if !results.iter().any(|case| case.verdict == Verdict::Passed) {
        return Vec::new();
    }
    results
        .iter()
        .filter(|case| is_failure(case) && case.name.contains("_test: "))
        .map(|case| case.name.clone())
        .collect()
}

/// Of the oracle's report the invariant, without what it means, and the occasion.
fn occasion(report: &str) -> Option<String> {
    let (_, rest) = report.split_once("violation of ")?;
    let (invariant, when) = rest.lines().next()?.split_once(": ")?;
    let (number, _) = invariant.split_once(' ')?;
    Some(format!("{number} {when}"))
}

/// Prints the table, if there is one.
pub fn show() -> Result<()> {
    let Ok(text) = fs::read_to_string(TABLE) else {
        return Ok(());
    };
    let rows: Vec<Row> = serde_json::from_str(&text).context(TABLE)?;
    println!("{:40} machine by", "  mutant");
    for row in &rows {
        let by = match (row.by.first(), row.caught) {
            (Some(by), true) => by.clone(),
            (Some(by), false) => format!("NOT CAUGHT, but {by}"),
            (None, _) => "NOT CAUGHT".to_owned(),
        };
        println!("  {:38} {:7} {by}", row.mutant, row.machine);
    }
    for (site, machine, why) in EQUIVALENT {
        println!("  {site:38} {:7} has no effect: {why}", machine.name());
    }
    Ok(())
}

/// Adds rows to the table, which has those of the machines before.
fn append(rows: Vec<Row>) -> Result<()> {
    static LOCK: Mutex<()> = Mutex::new(());
    let _locked = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table: Vec<Row> = match fs::read_to_string(TABLE) {
        Ok(text) => serde_json::from_str(&text).context(TABLE)?,
        Err(_) => Vec::new(),
    };
    table.extend(rows);
    fs::write(TABLE, serde_json::to_string_pretty(&table)? + "\n").context(TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when a machine leaves out what the other cannot show, or both leave out the same.
    #[test]
    fn each_is_on_a_machine() {
        let (amd, intel) = (Machine::Amd, Machine::Intel);
        let is_for = |one: &&str, machine: Machine| match *one {
            "amd" => machine == amd,
            "intel" => machine == intel,
            _ => true,
        };
        let all = ["1", "amd", "2", "intel", "3"];
        let on = |machine, length| share(all.to_vec(), machine, length, is_for);
        assert_eq!(on(amd, Length::Long), ["1", "amd", "2", "3"]);
        assert_eq!(on(intel, Length::Long), ["1", "2", "intel", "3"]);
        assert_eq!(on(amd, Length::Usual), ["1", "amd", "3"]);
        assert_eq!(on(intel, Length::Usual), ["2", "intel"]);
    }

    // Has to fail when the words behind the number stay, or those of the next line.
    #[test]
    fn the_occasion_is_found_in_a_report() {
        let report =
            "violation of I2 (no leak out): the host goes to user mode\n  PerfCtr0 holds 1";
        let expected = Some("I2 the host goes to user mode".to_owned());
        assert_eq!(occasion(report), expected);
        assert_eq!(occasion("nothing"), None);
    }
}
