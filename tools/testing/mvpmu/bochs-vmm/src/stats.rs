// SPDX-License-Identifier: GPL-2.0

//! The statistics of a run, as JSON.

use std::fmt;

use pmu_model::mark;
use pmu_model::mark::Mark;
use pmu_model::Stats;

use crate::hooks;
use crate::hooks::EXIT_REASONS;
use crate::layout;
use crate::pmu;
use crate::stop::Reason;
use crate::timers;

/// The statistics of a run.
pub struct Report {
    end: Reason,
    instructions: u64,
    ticks: u64,
    exits: [u64; EXIT_REASONS],
    marks: Vec<Mark>,
    version: Option<u32>,
    pmu: Option<Stats>,
}

impl Report {
    /// Of the run that just ended.
    pub fn collect(end: Reason) -> Self {
        Self {
            end,
            instructions: layout::ICOUNT.get(),
            ticks: timers::now(),
            exits: hooks::exits(),
            marks: hooks::marks(),
            version: pmu::config().map(|config| config.version),
            pmu: pmu::stats(),
        }
    }

    /// Instructions executed.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{{")?;
        writeln!(f, "  \"machine\": \"bochs\",")?;
        match self.version {
            Some(version) => writeln!(f, "  \"pmu\": \"v{version}\",")?,
            None => writeln!(f, "  \"pmu\": \"off\",")?,
        }
        writeln!(f, "  \"end\": \"{}\",", self.end.name())?;
        writeln!(f, "  \"instructions\": {},", self.instructions)?;
        writeln!(f, "  \"ticks\": {},", self.ticks)?;
        let exits: Vec<String> = self
            .exits
            .iter()
            .enumerate()
            .filter(|(_, count)| **count != 0)
            .map(|(reason, count)| format!("\"{reason}\": {count}"))
            .collect();
        writeln!(f, "  \"exit_reasons\": {{{}}},", exits.join(", "))?;
        writeln!(f, "  \"marks\": {},", mark::array(&self.marks))?;
        match &self.pmu {
            Some(stats) => writeln!(f, "  \"cpus\": [{stats}]")?,
            None => writeln!(f, "  \"cpus\": []")?,
        }
        write!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_reasons_that_happened_are_listed() {
        let mut exits = [0; EXIT_REASONS];
        exits[10] = 3;
        exits[48] = 1;
        let report = Report {
            end: Reason::ExitPort(0),
            instructions: 5,
            ticks: 7,
            exits,
            marks: Vec::new(),
            version: None,
            pmu: None,
        };
        let text = report.to_string();
        assert!(text.contains(r#""exit_reasons": {"10": 3, "48": 1},"#));
        assert!(text.contains(r#""instructions": 5,"#));
        assert!(text.contains(r#""end": "exit-port","#));
        assert!(text.contains(r#""cpus": []"#));
        assert!(text.contains(r#""pmu": "off""#));
    }
}
