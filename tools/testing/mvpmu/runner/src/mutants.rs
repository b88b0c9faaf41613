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

/// A deliberate bug: its name, a selftest that makes it show, and the invariant by which it is
/// caught on the AMD and on the Intel machine, if it applies there.
struct Mutant {
    name: &'static str,
    test: &'static str,
    amd: Option<&'static str>,
    intel: Option<&'static str>,
}

const fn mutant(name: &'static str, test: &'static str, invariant: &'static str) -> Mutant {
    Mutant {
        name,
        test,
        amd: Some(invariant),
        intel: Some(invariant),
    }
}

impl Mutant {
    const fn on_intel(self, invariant: &'static str) -> Self {
        Mutant {
            intel: Some(invariant),
            ..self
        }
    }

    const fn not_on_amd(self) -> Self {
        Mutant { amd: None, ..self }
    }

    const fn not_on_intel(self) -> Self {
        Mutant {
            intel: None,
            ..self
        }
    }

    fn invariant(&self, machine: Machine) -> Option<&'static str> {
        match machine {
            Machine::Amd => self.amd,
            Machine::Intel => self.intel,
        }
    }
}

/// On Intel a selector that is left counts as soon as perf enables the PMU: I1 comes before I2. On
/// AMD it is GuestOnly.
const MUTANTS: [Mutant; 18] = [
    mutant("selector-left", "count_test", "I2").on_intel("I1"),
    mutant("counter-left", "count_test", "I2"),
    mutant("fixed-counter-left", "count_test", "I2").not_on_amd(),
    mutant("fixed-control-left", "count_test", "I1").not_on_amd(),
    mutant("status-left", "state_test", "I2"),
    mutant("one-too-few", "count_test", "I2"),
    mutant("cleared-before-read", "count_test", "I4"),
    mutant("host-counts", "count_test", "I1"),
    mutant("wrong-vcpu", "cpu_test", "I3"),
    mutant("lvtpc-left", "count_test", "I2"),
    mutant("userspace-put-skipped", "count_test", "I2"),
    mutant("preemption-put-skipped", "cpu_test", "I2"),
    mutant("dirty-counters-left", "host_perf_test", "I3"),
    mutant("host-waits", "host_perf_test", "I5"),
    mutant("selection-lost", "control_test", "I4"),
    mutant("increment-lost", "count_test", "I4"),
    mutant("all-claimed", "host_perf_test", "I2").on_intel("I1"),
    mutant("global-ctrl-stale", "control_test", "I4").not_on_intel(),
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
            .filter_map(|mutant| Some((mutant, mutant.invariant(boot.machine)?)))
    };
    let mut tests: Vec<_> = mutants().map(|(mutant, _)| mutant.test).collect();
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
    for (mutant, invariant) in mutants() {
        let place = directory.join(mutant.name);
        let (outcome, results) = run_one(boot, mutant.name, &[mutant.test], &place)?;
        let seen = seen(&outcome, &results, mutant.test, invariant);
        let caught = seen.as_deref() == Some(invariant);
        let name = format!("{} is caught by {}", mutant.name, invariant);
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
fn seen(outcome: &Outcome, results: &[Case], test: &str, expected: &str) -> Option<String> {
    let of_oracle = outcome.violations.as_deref().and_then(|text| {
        let (_, rest) = text.split_once("violation of ")?;
        rest.split_whitespace().next()
    });
    let prefix = format!("{test}:");
    let of_test = || {
        let ran = results.iter().any(|case| case.verdict == Verdict::Passed);
        let failed = |case: &Case| is_failure(case) && case.name.starts_with(&prefix);
        (ran && results.iter().any(failed)).then_some(match expected {
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
