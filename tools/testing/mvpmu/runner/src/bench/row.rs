// SPDX-License-Identifier: GPL-2.0

//! What a VM exit costs: the rows of switch.json, and how they come from what the job has left.

use std::collections::BTreeMap;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::scenario::Scenario;
use super::scenario::RECORDING;
use super::scenario::SCENARIOS;
use crate::machine::Machine;

/// What a VM exit costs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    pub machine: String,
    pub provider: String,
    pub scenario: String,
    pub host_event: bool,
    /// Counters that the guest has enabled.
    pub counters: u64,
    pub rdmsr: f64,
    pub wrmsr: f64,
    pub rdpmc: f64,
    pub lvtpc: f64,
    /// Of host and guest.
    pub instructions: Option<f64>,
}

impl Row {
    /// Of a guest that records branches: the scenario in which it does not.
    pub fn without_branches(&self) -> Option<Scenario> {
        let mut all = RECORDING.iter();
        let (_, without) = all.find(|(recording, _)| recording.name == self.scenario)?;
        Some(*without)
    }

    /// Operations on PMU registers.
    pub fn operations(&self) -> f64 {
        self.rdmsr + self.wrmsr + self.rdpmc
    }
}

/// What to look for in the rows: all scenarios of a machine, or one.
#[derive(Clone, Copy)]
pub struct Rows<'a>(pub &'a [Row]);

impl<'a> Rows<'a> {
    /// The row of a provider.
    pub fn of(
        self,
        machine: Machine,
        provider: &str,
        (scenario, host_event): (&str, bool),
        counters: u64,
    ) -> Option<&'a Row> {
        self.0.iter().find(|row| {
            row.machine == machine.name()
                && row.provider == provider
                && row.scenario == scenario
                && row.host_event == host_event
                && row.counters == counters
        })
    }

    /// How many counters guests have enabled on the machine, the fewest first.
    pub fn counters(self, machine: Machine) -> Vec<u64> {
        let of_machine = self.0.iter().filter(|row| row.machine == machine.name());
        let mut counters: Vec<_> = of_machine.map(|row| row.counters).collect();
        counters.sort();
        counters.dedup();
        counters
    }
}

/// "key value" lines, from one "scenario" to the next.
pub fn blocks(text: &str) -> Vec<BTreeMap<String, String>> {
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

/// Whether the machine has seen the exits of the scenario: so many each time.
fn caused(scenario: &str, exits: f64) -> Result<()> {
    let recording = RECORDING.iter().map(|(recording, _)| recording);
    let known = SCENARIOS.iter().chain(recording);
    let known = known.clone().find(|known| known.name == scenario);
    let known = known.with_context(|| format!("no scenario {scenario}"))?;
    let right = match known.exits {
        // A timer tick in the few, or in the many, is one more.
        Some(wanted) => exits.round() == wanted as f64,
        None => exits >= 1.0,
    };
    ensure!(right, "{scenario}: {exits} VM exits each time");
    Ok(())
}

/// The row of a block.
pub fn row(machine: Machine, provider: &str, block: &BTreeMap<String, String>) -> Result<Row> {
    let text = |key: &str| block.get(key).with_context(|| format!("no {key}"));
    let number = |key: &str| -> Result<f64> { Ok(text(key)?.parse()?) };
    let exits = number("difference")?;
    let each = |key: &str| -> Result<f64> {
        let difference = number(&format!("many {key}"))? - number(&format!("few {key}"))?;
        // No "-0" for less than nothing, which is the noise of few.
        Ok((difference / exits * 1000.0).round() / 1000.0 + 0.0)
    };
    let scenario = text("scenario")?;
    caused(scenario, each("exits")?)?;
    // The guest may have less than it was asked to use. 100 are all that it has.
    let asked: i64 = text("counters")?.parse()?;
    let used: u64 = text("used")?.parse()?;
    ensure!(
        asked == 100 && used > 0 || used == asked.max(0) as u64,
        "{used} counters are in use, not {asked}"
    );
    Ok(Row {
        machine: machine.name().to_owned(),
        provider: provider.to_owned(),
        scenario: scenario.clone(),
        host_event: text("host_event")? == "event",
        counters: used,
        rdmsr: each("rdmsr")?,
        wrmsr: each("wrmsr")?,
        rdpmc: each("rdpmc")?,
        lvtpc: each("lvtpc")?,
        instructions: Some(each("instructions")?),
    })
}

/// The instructions of one exit, from the rounds that had the least.
pub fn least(block: &BTreeMap<String, String>) -> Result<f64> {
    let number = |key: &str| -> Result<f64> {
        let text = block.get(key).with_context(|| format!("no {key}"))?;
        Ok(text.parse()?)
    };
    let difference = number("many least")? - number("few least")?;
    Ok(difference / number("difference")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the difference is not divided by the exits, or is that of other keys.
    #[test]
    fn a_row_is_the_cost_of_one_exit() {
        let mut text =
            String::from("scenario cpuid\nhost_event event\ncounters 100\ndifference 10\n");
        text.push_str("used 6\n");
        for (n, key) in ["rdmsr", "wrmsr", "rdpmc", "lvtpc", "instructions"]
            .iter()
            .enumerate()
        {
            text.push_str(&format!("few {key} {n}\nmany {key} {}\n", 100 * n + n));
        }
        text.push_str("few exits 5\nmany exits 16\n");
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

    // Has to fail when it is not that of one exit, or of the medians.
    #[test]
    fn the_least_is_the_cost_of_one_exit_too() {
        let text =
            "scenario cpuid\ndifference 10\nfew least 5\nmany least 55\nmany instructions 99\n";
        assert_eq!(least(&blocks(text)[0]).unwrap(), 5.0);
        assert!(least(&blocks("scenario cpuid\ndifference 10\nmany least 55\n")[0]).is_err());
    }

    // Has to fail when the counters or exits that the guest was asked for are taken for granted.
    #[test]
    fn what_the_guest_did_is_what_it_was_asked_for() {
        let block = |used: u64, asked: i64, exits: u64| {
            let mut text = format!(
                "scenario io\nhost_event none\ncounters {asked}\ndifference 10\nused {used}\n\
                 few exits 1\nmany exits {}\n",
                exits + 1
            );
            for key in ["rdmsr", "wrmsr", "rdpmc", "lvtpc", "instructions"] {
                text.push_str(&format!("few {key} 0\nmany {key} 0\n"));
            }
            row(Machine::Amd, "c", &blocks(&text)[0])
        };
        for (used, asked) in [(4, 4), (0, -1), (6, 100)] {
            assert_eq!(block(used, asked, 10).unwrap().counters, used);
        }
        for (used, asked, exits) in [(3, 4, 10), (1, -1, 10), (0, 100, 10), (4, 4, 0), (4, 4, 20)] {
            assert!(block(used, asked, exits).is_err(), "{used} {asked} {exits}");
        }
    }

    // Has to fail when a scenario that ended early takes the numbers of the next one.
    #[test]
    fn what_is_missing_is_an_error() {
        let text =
            "scenario io\nhost_event none\ncounters 1\ndifference 10\nscenario io\nfew rdmsr 1";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 2);
        assert!(row(Machine::Amd, "c", &blocks[0]).is_err());
    }
}
