// SPDX-License-Identifier: GPL-2.0

//! `make bench`: what a VM exit costs, with each provider, in one boot each.
//!
//! A guest causes few exits and then many; the difference, by the number of exits, is what one of
//! them costs: operations on PMU registers in host mode, and on the Intel machine, which is exact,
//! instructions. Operations are those that KVM, perf and the provider execute.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;

const DIRECTORY: &str = "build/bench";
const PROVIDERS: [&str; 4] = ["off", "emulated", "c", "mvpmu"];
const SCENARIOS: [&str; 6] = ["ept", "cpuid", "cpuid_insn", "io", "halt", "share"];
const FEW: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(3600);

/// What a VM exit costs.
#[derive(Serialize)]
struct Row {
    machine: &'static str,
    provider: &'static str,
    scenario: String,
    host_event: bool,
    /// Counters that the guest has enabled.
    counters: u64,
    rdmsr: f64,
    wrmsr: f64,
    rdpmc: f64,
    lvtpc: f64,
    /// `null` where the machine does not count them.
    instructions: Option<f64>,
}

/// The many exits of `cpuid`: short runs have noise in the instructions.
fn many(machine: Machine) -> u64 {
    match machine {
        Machine::Amd => FEW + 10_000,
        Machine::Intel => FEW + 100_000,
    }
}

impl Row {
    fn operations(&self) -> f64 {
        self.rdmsr + self.wrmsr + self.rdpmc
    }
}

/// Runs all scenarios on the machines.
pub fn run(machines: &[Machine]) -> Result<()> {
    let directory = Path::new(DIRECTORY);
    let mut rows = Vec::new();
    for &machine in machines {
        for provider in PROVIDERS {
            println!("{} {provider}:", machine.name());
            let mut job = Job::new("bench");
            job.arguments = vec![
                provider.to_owned(),
                FEW.to_string(),
                many(machine).to_string(),
            ];
            job.arguments.extend(SCENARIOS.map(str::to_owned));
            let place = directory.join(format!("{}-{provider}", machine.name()));
            let outcome = boot::run(&Boot::new(machine), &job, &place, LIMIT, true)?;
            let problem = outcome.violations.clone().or(outcome.problem());
            ensure!(problem.is_none(), "{}", problem.unwrap_or_default());
            let text = outcome.read("rows")?;
            for block in blocks(&text) {
                rows.push(row(machine, provider, &block).with_context(|| {
                    format!("{block:?}; see {}", place.join("out/errors").display())
                })?);
            }
        }
    }
    fs::create_dir_all(directory)?;
    let path = directory.join("switch.json");
    let json = serde_json::to_string_pretty(&rows)? + "\n";
    fs::write(&path, json).with_context(|| path.display().to_string())?;
    show(&rows);
    println!("{}", path.display());
    Ok(())
}

/// "key value" lines, from one "scenario" to the next.
fn blocks(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut blocks: Vec<BTreeMap<String, String>> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.rsplit_once(' ') else {
            continue;
        };
        if key == "scenario" {
            blocks.push(BTreeMap::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.insert(key.to_owned(), value.to_owned());
        }
    }
    blocks
}

fn row(machine: Machine, provider: &'static str, block: &BTreeMap<String, String>) -> Result<Row> {
    let text = |key: &str| block.get(key).with_context(|| format!("no {key}"));
    let number = |key: &str| -> Result<f64> { Ok(text(key)?.parse()?) };
    let exits = number("difference")?;
    let each = |key: &str| -> Result<f64> {
        let difference = number(&format!("many {key}"))? - number(&format!("few {key}"))?;
        // No "-0" for less than nothing, which is the noise of few.
        Ok((difference / exits * 1000.0).round() / 1000.0 + 0.0)
    };
    let counters: i64 = text("counters")?.parse()?;
    Ok(Row {
        machine: machine.name(),
        provider,
        scenario: text("scenario")?.clone(),
        host_event: text("host_event")? == "1",
        counters: match counters {
            100 => number("used")? as u64,
            k => k.max(0) as u64,
        },
        rdmsr: each("rdmsr")?,
        wrmsr: each("wrmsr")?,
        rdpmc: each("rdpmc")?,
        lvtpc: each("lvtpc")?,
        instructions: match machine {
            Machine::Intel => Some(each("instructions")?),
            Machine::Amd => None,
        },
    })
}

/// To one digit, without "-0.0".
fn operations(row: &Row) -> f64 {
    (row.operations() * 10.0).round() / 10.0 + 0.0
}

/// Operations per exit, a line for each scenario and number of counters.
fn show(rows: &[Row]) {
    println!("PMU register operations per VM exit (RDMSR + WRMSR + RDPMC; instructions)");
    println!(
        "{:24} {:>18} {:>18} {:>18} {:>18}",
        "", "off", "emulated", "C", "mvpmu"
    );
    let mut cells: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for row in rows {
        let key = (row.machine, row.host_event, &row.scenario, row.counters);
        let text = match row.instructions {
            Some(instructions) => format!("{:.1}; {instructions:.0}", operations(row)),
            None => format!("{:.1}", operations(row)),
        };
        cells.entry(key).or_default().insert(row.provider, text);
    }
    for ((machine, host_event, scenario, counters), cells) in cells {
        let event = if host_event { "+event" } else { "" };
        let name = format!("{machine} {scenario}{event} k={counters}");
        let line: Vec<_> = PROVIDERS
            .iter()
            .map(|provider| format!("{:>18}", cells.get(provider).map_or("", String::as_str)))
            .collect();
        println!("{name:24} {}", line.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the difference is not divided by the exits, or is that of other keys.
    #[test]
    fn a_row_is_the_cost_of_one_exit() {
        let mut text = String::from("scenario cpuid\nhost_event 1\ncounters 100\ndifference 10\n");
        text.push_str("used 6\n");
        for (n, key) in ["rdmsr", "wrmsr", "rdpmc", "lvtpc", "instructions"]
            .iter()
            .enumerate()
        {
            text.push_str(&format!("few {key} {n}\nmany {key} {}\n", 100 * n + n));
        }
        let blocks = blocks(&text);
        assert_eq!(blocks.len(), 1);
        let row = row(Machine::Intel, "c", &blocks[0]).unwrap();
        assert_eq!(
            (row.rdmsr, row.wrmsr, row.rdpmc, row.lvtpc),
            (0.0, 10.0, 20.0, 30.0)
        );
        assert_eq!(row.instructions, Some(40.0));
        assert_eq!((row.counters, row.host_event), (6, true));
        assert_eq!(row.operations(), 30.0);
    }

    // Has to fail when a scenario that ended early takes the numbers of the next one.
    #[test]
    fn what_is_missing_is_an_error() {
        let text = "scenario io\nhost_event 0\ncounters 1\ndifference 10\nscenario io\nfew rdmsr 1";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 2);
        assert!(row(Machine::Amd, "c", &blocks[0]).is_err());
    }
}
