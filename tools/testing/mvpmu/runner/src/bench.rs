// SPDX-License-Identifier: GPL-2.0

//! `make bench`: what a VM exit costs, with each provider, in one boot each.
//!
//! A guest causes few exits and then many, in several rounds; the difference of the medians, by the
//! number of exits, is what one of them costs: operations on PMU registers in host mode, and
//! instructions of host and guest. Operations are those that KVM, perf and the provider execute. The
//! time of the machines is made of instructions, so that each run gives the same numbers.

mod figures;
mod listing;
mod overhead;
mod picture;
mod row;
mod scenario;
mod table;
mod watchdog;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use serde::de::DeserializeOwned;

pub use self::figures::test;
pub use self::listing::show as show_listing;
pub use self::listing::Exit;
use self::overhead::Overhead;
use self::row::Row;
use self::scenario::Scenario;
use self::scenario::SCENARIOS;
pub use self::watchdog::test as test_watchdog;
use self::watchdog::Cost;
use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::sampling;

/// Where the numbers go: those of another CPU than the machines are else to a place of their own.
pub fn directory(cpu: Option<Cpu>) -> PathBuf {
    match cpu {
        None => "build/bench".into(),
        Some(cpu) => format!("build/bench-{}", cpu.name).into(),
    }
}

/// In this order, with what they are called.
const MACHINES: [(Machine, &str); 2] = [(Machine::Amd, "AMD"), (Machine::Intel, "Intel")];
const PROVIDERS: [&str; 4] = ["off", "emulated", "c", "mvpmu"];
/// Few exits and many, of each round: enough for the cost of one, and so few that most rounds are
/// over before the next tick of the timer.
const FEW: u64 = 50;
const MANY: u64 = 150;
const LIMIT: Duration = Duration::from_secs(3600);

/// Without anything on the host, and with an event; with each number of counters.
const WHAT: (&str, &str) = ("none,event", "each");

/// Boots and measures these scenarios, with few exits and with many, with each of what is on the host,
/// and a guest with so many counters, or each number of them: a block for each.
fn measured(
    boot: &Boot,
    provider: &str,
    (hosts, counters): (&str, &str),
    scenarios: &[Scenario],
    (place, echo): (&Path, bool),
) -> Result<Vec<BTreeMap<String, String>>> {
    let mut job = Job::new("bench");
    job.arguments = vec![
        provider.to_owned(),
        FEW.to_string(),
        MANY.to_string(),
        hosts.to_owned(),
        counters.to_owned(),
    ];
    job.arguments
        .extend(scenarios.iter().map(|scenario| scenario.name.to_owned()));
    let outcome = boot::run(boot, &job, place, LIMIT, echo)?;
    let problem = outcome.violations.clone().or(outcome.problem());
    ensure!(problem.is_none(), "{}", problem.unwrap_or_default());
    Ok(row::blocks(&outcome.read("rows")?))
}

/// Boots and measures these scenarios.
fn measure(
    boot: &Boot,
    provider: &str,
    scenarios: &[Scenario],
    (place, echo): (&Path, bool),
) -> Result<Vec<Row>> {
    measured(boot, provider, WHAT, scenarios, (place, echo))?
        .iter()
        .map(|block| {
            row::row(boot.machine, provider, block)
                .with_context(|| format!("{block:?}; see {}", place.join("out/errors").display()))
        })
        .collect()
}

/// Runs all scenarios on the machines. What `make test` asks of a VM exit and does not hold.
pub fn run(cpus: &[Cpu], directory: &Path) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    fs::create_dir_all(directory)?;
    for &cpu in cpus {
        let boot = Boot::of_cpu(cpu).with_instruction_clock();
        for provider in PROVIDERS {
            println!("{} {provider}:", boot.name());
            let place = directory.join(format!("{}-{provider}", boot.machine.name()));
            let scenarios = scenario::with_branches(provider, &SCENARIOS);
            rows.extend(measure(&boot, provider, &scenarios, (&place, true))?);
            // Each time, so that nothing is lost if it is interrupted.
            write(
                &directory.join("switch.json"),
                &(serde_json::to_string_pretty(&rows)? + "\n"),
            )?;
        }
        println!("{} with the watchdog:", boot.name());
        let place = directory.join(boot.machine.name());
        costs.extend(watchdog::measure(&boot, &place, true)?);
        write(
            &directory.join("watchdog.json"),
            &(serde_json::to_string_pretty(&costs)? + "\n"),
        )?;
    }
    table::show(&rows);
    let mut failed = Vec::new();
    for &cpu in cpus {
        let machine = Machine::of(cpu);
        let mut cases = figures::judge(machine, &rows);
        cases.extend(watchdog::judge(machine, &costs));
        for (rule, why) in figures::broken(cases) {
            println!("{}: not kept: {rule}\n{why}", machine.name());
            failed.push(rule);
        }
    }
    Ok(failed)
}

/// Makes tables and picture of the numbers that runs have left.
pub fn draw(directory: &Path) -> Result<()> {
    let rows: Vec<Row> = read(&directory.join("switch.json"))?;
    let costs: Vec<Cost> = read(&directory.join("watchdog.json"))?;
    let overheads: Vec<Overhead> = read(&directory.join("sampling.json"))?;
    let overheads: Vec<_> = overheads.into_iter().map(Overhead::row).collect();
    let branches: Vec<sampling::branches::Cost> = read(&directory.join("branches.json"))?;
    let text = table::markdown(&rows, &overheads)
        + &sampling::branches::markdown(&branches)
        + &watchdog::markdown(&costs);
    write(&directory.join("switch.md"), &text)?;
    write(
        &directory.join("switch.svg"),
        &picture::picture(&rows, &overheads),
    )
}

/// The rows of a file; none, if it is not there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let json = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&json).with_context(|| path.display().to_string())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}
