// SPDX-License-Identifier: GPL-2.0

//! The tests of the tests: each deliberate bug of the module must be caught.
//!
//! A build of the module with `CONFIG_MVPMU_MUTANTS` has a parameter that selects one. A bug that
//! breaks one of the invariants I1 to I3 must be caught by the oracle of the machine, as a
//! violation of that one; what breaks I4 or I5 (exact counts of the guest, of the host) by a
//! selftest that fails.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use crate::boot;
use crate::boot::Outcome;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::results;
use crate::tap::Case;
use crate::tap::Verdict;

/// Where the table goes.
pub const TABLE: &str = "build/test/mutants.json";

/// A deliberate bug: its name, the machines it applies to, the invariant it breaks, and a selftest
/// that makes it do so.
struct Mutant {
    name: &'static str,
    machines: &'static [Machine],
    invariant: &'static str,
    test: &'static str,
}

const BOTH: &[Machine] = &[Machine::Amd, Machine::Intel];
const INTEL: &[Machine] = &[Machine::Intel];

const fn mutant(
    name: &'static str,
    machines: &'static [Machine],
    invariant: &'static str,
    test: &'static str,
) -> Mutant {
    Mutant {
        name,
        machines,
        invariant,
        test,
    }
}

const MUTANTS: [Mutant; 16] = [
    mutant("selector-left", BOTH, "I2", "count_test"),
    mutant("counter-left", BOTH, "I2", "count_test"),
    mutant("fixed-counter-left", INTEL, "I2", "count_test"),
    mutant("fixed-control-left", INTEL, "I2", "count_test"),
    mutant("status-left", BOTH, "I2", "pmi_test"),
    mutant("one-too-few", BOTH, "I2", "count_test"),
    mutant("cleared-before-read", BOTH, "I4", "count_test"),
    mutant("host-counts", BOTH, "I1", "count_test"),
    mutant("wrong-vcpu", BOTH, "I3", "cpu_test"),
    mutant("lvtpc-left", BOTH, "I2", "count_test"),
    mutant("userspace-put-skipped", BOTH, "I2", "count_test"),
    mutant("preemption-put-skipped", BOTH, "I2", "cpu_test"),
    mutant("dirty-counters-left", BOTH, "I3", "host_perf_test"),
    mutant("host-waits", BOTH, "I5", "host_perf_test"),
    mutant("selection-lost", BOTH, "I4", "control_test"),
    mutant("increment-lost", BOTH, "I4", "count_test"),
];

/// A line of the table.
#[derive(Serialize, Deserialize)]
struct Row {
    mutant: String,
    machine: String,
    /// What was seen: the oracle's invariant, or that of a selftest that failed; or nothing.
    invariant: Option<String>,
    caught: bool,
}

/// Runs the tests with each bug on `boot`, and once without any.
pub fn run(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let mutants = || {
        MUTANTS
            .iter()
            .filter(|mutant| mutant.machines.contains(&boot.machine))
    };
    let mut tests: Vec<_> = mutants().map(|mutant| mutant.test).collect();
    tests.sort_unstable();
    tests.dedup();

    let (outcome, control) = run_one(boot, "none", &tests, &directory.join("none"))?;
    let unharmed = outcome.violations.is_none() && !control.iter().any(is_failure);
    let mut cases = vec![Case::new(
        "nothing is caught without a bug",
        unharmed,
        || {
            let failed = control.iter().filter(|case| is_failure(case));
            let names: Vec<_> = failed.map(|case| case.name.as_str()).collect();
            outcome.violations.unwrap_or(names.join("\n"))
        },
    )];
    let mut rows = Vec::new();
    for mutant in mutants() {
        let place = directory.join(mutant.name);
        let (outcome, results) = run_one(boot, mutant.name, &[mutant.test], &place)?;
        let seen = seen(&outcome, &results, mutant);
        let caught = seen.as_deref() == Some(mutant.invariant);
        let name = format!("{} is caught by {}", mutant.name, mutant.invariant);
        cases.push(Case::new(&name, caught, || {
            let what = seen.as_deref().unwrap_or("nothing");
            format!("{what} was caught; see {}", place.display())
        }));
        rows.push(Row {
            mutant: mutant.name.to_owned(),
            machine: boot.machine.name().to_owned(),
            invariant: seen,
            caught,
        });
    }
    append(rows)?;
    Ok(cases)
}

fn run_one(
    boot: &Boot,
    mutant: &str,
    tests: &[&str],
    directory: &Path,
) -> Result<(Outcome, Vec<Case>)> {
    let mut job = Job::new("selftests");
    job.arguments = vec![format!("mvpmu,mutant={mutant}")];
    job.arguments
        .extend(tests.iter().map(|test| format!("mvpmu/{test}")));
    let outcome = boot::run(boot, &job, directory, Duration::from_secs(300), false)?;
    let tests: Vec<_> = tests.iter().map(|&test| test.to_owned()).collect();
    let results = results::of_job(&outcome, &tests);
    Ok((outcome, results))
}

fn is_failure(case: &Case) -> bool {
    matches!(case.verdict, Verdict::Failed(_))
}

/// The invariant that is seen to be violated.
fn seen(outcome: &Outcome, results: &[Case], mutant: &Mutant) -> Option<String> {
    let of_oracle = outcome.violations.as_deref().and_then(|text| {
        let (_, rest) = text.split_once("violation of ")?;
        rest.split_whitespace().next()
    });
    let prefix = format!("{}:", mutant.test);
    let of_test = || {
        let ran = results.iter().any(|case| case.verdict == Verdict::Passed);
        let failed = |case: &Case| is_failure(case) && case.name.starts_with(&prefix);
        (ran && results.iter().any(failed)).then_some(match mutant.invariant {
            "I5" => "I5",
            _ => "I4",
        })
    };
    of_oracle.or_else(of_test).map(str::to_owned)
}

/// Prints the table, if there is one.
pub fn show() -> Result<()> {
    let Ok(text) = fs::read_to_string(TABLE) else {
        return Ok(());
    };
    let rows: Vec<Row> = serde_json::from_str(&text).context(TABLE)?;
    println!("{:36} machine invariant", "  mutant");
    for row in &rows {
        let seen = row.invariant.as_deref().unwrap_or("-");
        let caught = if row.caught { "caught" } else { "NOT CAUGHT" };
        println!("  {:34} {:7} {seen:9} {caught}", row.mutant, row.machine);
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
