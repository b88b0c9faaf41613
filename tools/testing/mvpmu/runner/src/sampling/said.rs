// SPDX-License-Identifier: GPL-2.0

//! What the program that samples says (initramfs/sampling.c).

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

/// An event, as the program has seen it.
#[derive(Debug)]
pub struct Event {
    /// What it has counted.
    count: u64,
    /// After how many there is a sample.
    period: u64,
    pub enabled: u64,
    pub running: u64,
    pub samples: u64,
    /// Samples that it did not get.
    missed: u64,
}

impl Event {
    /// Whether each overflow gave a sample, and the count is what was executed, by the
    /// machine, in the time that the event had a counter. It stands still in interrupts of the PMU.
    fn is_exact(&self, executed: u64) -> bool {
        let expected = executed as f64 * self.running as f64 / self.enabled as f64;
        self.samples == self.count / self.period
            && (self.count as f64 / expected - 1.0).abs() < 0.05
    }
}

/// A test.
#[derive(Debug, Default)]
pub struct Said {
    pub name: String,
    /// The result of the work.
    pub sum: u64,
    pub nanoseconds: u64,
    /// What the CPU has executed; told in L1 only.
    pub instructions: Option<u64>,
    /// The branches of all samples, where they have some.
    branches: Option<u64>,
    pub events: Vec<Event>,
}

impl Said {
    pub fn samples(&self) -> u64 {
        self.events.iter().map(|event| event.samples).sum()
    }

    /// Whether it has got its samples, of what was executed, if events are to be exact.
    pub fn check(&self, executed: Option<u64>) -> Result<()> {
        let name = &self.name;
        for event in &self.events {
            ensure!(event.samples > 0, "{name}: an event without samples");
            ensure!(event.missed == 0, "{name}: not all samples are there");
            ensure!(
                executed.is_none_or(|executed| event.is_exact(executed)),
                "{name}: {event:?}: not a sample for each overflow, or not what {executed:?} instructions give"
            );
        }
        ensure!(
            self.branches
                .is_none_or(|branches| branches > self.samples()),
            "{name}: the samples have no branches"
        );
        Ok(())
    }
}

/// The tests, which have to be of these names.
pub fn said(text: &str, names: &[&str]) -> Result<Vec<Said>> {
    let mut tests: Vec<Said> = Vec::new();
    let mut ended = false;
    for line in text.lines() {
        let Some(line) = line.strip_prefix("sampling: ") else {
            continue;
        };
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["test", name, "sum", sum, "nanoseconds", nanoseconds] = words[..] {
            tests.push(Said {
                name: name.to_owned(),
                sum: sum.parse()?,
                nanoseconds: nanoseconds.parse()?,
                ..Said::default()
            });
            continue;
        }
        if let ["end"] = words[..] {
            ended = true;
            continue;
        }
        let name = words.get(1).copied().unwrap_or_default();
        let test = tests.last_mut().filter(|test| test.name == name);
        let test = test.with_context(|| format!("this is of no test: {line}"))?;
        match words[..] {
            ["instructions", _, instructions] => test.instructions = Some(instructions.parse()?),
            ["branches", _, branches] => test.branches = Some(branches.parse()?),
            ["event", _, "count", count, "period", period, "enabled", enabled, "running", running, "samples", samples, "lost", lost, "throttled", throttled] => {
                test.events.push(Event {
                    count: count.parse()?,
                    period: period.parse()?,
                    enabled: enabled.parse()?,
                    running: running.parse()?,
                    samples: samples.parse()?,
                    missed: lost.parse::<u64>()? + throttled.parse::<u64>()?,
                })
            }
            _ => bail!("the program says: {line}"),
        }
    }
    ensure!(ended, "the program has not ended");
    ensure!(
        tests
            .iter()
            .map(|test| test.name.as_str())
            .eq(names.iter().copied()),
        "the tests are not {names:?}"
    );
    Ok(tests)
}
