// SPDX-License-Identifier: GPL-2.0

//! The statistics of a run, as JSON.

use std::collections::BTreeMap;

use pmu_model::mark::Mark;
use pmu_model::Stats;
use serde::Serialize;

use crate::cpus;
use crate::hooks;
use crate::pmu;
use crate::stop::Reason;
use crate::timers;

/// The statistics of a run.
#[derive(Serialize)]
pub struct Report {
    machine: &'static str,
    /// `v5`, or `off`.
    pmu: String,
    end: &'static str,
    instructions: u64,
    ticks: u64,
    /// Those that happened, by number.
    exit_reasons: BTreeMap<usize, u64>,
    marks: Vec<Mark>,
    /// One for each CPU.
    cpus: Vec<Stats>,
}

impl Report {
    /// Of the run that just ended.
    pub fn collect(end: Reason) -> Self {
        Self {
            machine: "bochs",
            pmu: pmu::config().map_or("off".into(), |config| format!("v{}", config.version)),
            end: end.name(),
            instructions: cpus::instructions(),
            ticks: timers::now(),
            exit_reasons: happened(&hooks::exits()),
            marks: hooks::marks(),
            cpus: (0..cpus::count()).filter_map(counted).collect(),
        }
    }

    /// Instructions executed.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }
}

/// What is counted on a CPU.
fn counted(cpu: usize) -> Option<Stats> {
    cpus::give_turn(cpu);
    pmu::fold();
    pmu::stats()
}

/// Those of the numbers that are not 0.
fn happened(counts: &[u64]) -> BTreeMap<usize, u64> {
    let counts = counts.iter().copied().enumerate();
    counts.filter(|(_, count)| *count != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_reasons_that_happened_are_listed() {
        let mut exits = [0; hooks::EXIT_REASONS];
        exits[10] = 3;
        exits[48] = 1;
        assert_eq!(happened(&exits), BTreeMap::from([(10, 3), (48, 1)]));
    }
}
