// SPDX-License-Identifier: GPL-2.0

//! Whose instructions a VM exit takes, or sampling in a guest: a listing by function, KVM's C code
//! beside mvpmu.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::measured;
use super::scenario::SCENARIOS;
use super::FEW;
use super::MANY;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::oracle;
use crate::sampling;

/// As many as bench.c has.
const ROUNDS: f64 = 9.0;

/// Sampling with 6 and with 10 events: what the guest's marks before and after it are called, and
/// without perf (see initramfs/sampling.c).
const SAMPLING: [(&str, &str); 2] = [("sampling-6", "guest:2:0"), ("sampling-10", "guest:4:0")];

/// Which exit, or sampling.
pub struct Exit<'a> {
    pub machine: Machine,
    pub scenario: &'a str,
    /// Counters of the guest; 100 are all.
    pub counters: &'a str,
    /// What is on the host: none or event.
    pub host: &'a str,
}

/// The function, and how often one of its instructions was executed.
fn executed(line: &str) -> Option<(String, f64)> {
    let (times, what) = line.strip_prefix("listing: ")?.split_once(' ')?;
    let name = match what.split_once(' ') {
        Some((address, name)) if address.starts_with("0x") => {
            name.rsplit_once("+0x").map_or(name, |(name, _)| name)
        }
        _ => what,
    };
    Some((name.to_owned(), times.parse().ok()?))
}

/// The instructions of one exit, by function.
fn of_exit(exit: &Exit<'_>, provider: &str, place: &Path) -> Result<BTreeMap<String, f64>> {
    let scenario = SCENARIOS.iter().find(|known| known.name == exit.scenario);
    let scenario = scenario.with_context(|| {
        let known = SCENARIOS.iter().map(|known| known.name);
        let known: Vec<_> = known
            .chain(SAMPLING.iter().map(|(name, _)| *name))
            .collect();
        format!(
            "there is no scenario {}, but {}",
            exit.scenario,
            known.join(", ")
        )
    })?;
    let boot = boot(exit.machine, "host");
    let what = (exit.host, exit.counters);
    measured(&boot, provider, what, &[*scenario], (place, false))?;
    functions(&boot, place, ROUNDS * (MANY - FEW) as f64)
}

/// Those of a Linux guest's work with perf more than without, in thousands.
fn of_sampling(boot: &Boot, provider: &str, place: &Path) -> Result<BTreeMap<String, f64>> {
    sampling::sample(boot, provider, (place, false))?;
    functions(boot, place, 1000.0)
}

fn boot(machine: Machine, marks: &str) -> Boot {
    Boot {
        model: vec![format!("listing={marks}")],
        append: oracle::REPORT_MODULES.to_owned(),
        ..Boot::new(machine).with_instruction_clock()
    }
}

/// What the machine has listed, each time by this divisor.
fn functions(boot: &Boot, place: &Path, divisor: f64) -> Result<BTreeMap<String, f64>> {
    let log = fs::read_to_string(place.join("machine.log"))?;
    let lines: Vec<_> = log.lines().collect();
    let mut functions = BTreeMap::new();
    for line in oracle::with_names(&lines, place, boot.kernel) {
        if let Some((name, times)) = executed(&line) {
            *functions.entry(name).or_default() += times / divisor;
        }
    }
    Ok(functions)
}

fn listing(exit: &Exit<'_>, provider: &str, directory: &Path) -> Result<BTreeMap<String, f64>> {
    let place = directory.join(provider);
    match SAMPLING.iter().find(|(name, _)| *name == exit.scenario) {
        Some((_, marks)) => of_sampling(&boot(exit.machine, marks), provider, &place),
        None => of_exit(exit, provider, &place),
    }
}

fn of(listing: &BTreeMap<String, f64>, name: &str) -> f64 {
    listing.get(name).copied().unwrap_or_default()
}

/// Prints it: what differs most comes first.
pub fn show(exit: &Exit<'_>, directory: &Path) -> Result<()> {
    let [c, ours] = [
        listing(exit, "c", directory)?,
        listing(exit, "mvpmu", directory)?,
    ];
    let mut names: Vec<_> = c.keys().chain(ours.keys()).collect();
    let more = |name: &String| of(&ours, name) - of(&c, name);
    names.sort();
    names.dedup();
    names.sort_by(|a, b| more(b).abs().total_cmp(&more(a).abs()));
    let line =
        |name: &str, c: f64, ours: f64| println!("{c:8.1} {ours:8.1} {:+8.1}  {name}", ours - c);
    println!("{:>8} {:>8} {:>8}  function", "C", "mvpmu", "more");
    line("all", c.values().sum(), ours.values().sum());
    for name in names {
        let (c, ours) = (of(&c, name), of(&ours, name));
        // Less is what ticks of the timer leave.
        if c.max(ours) >= 0.5 {
            line(name, c, ours);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the offset stays, or a name ends at its first space.
    #[test]
    fn a_line_is_of_a_function() {
        let line = "listing: -12 0xffffffffa0080040 <mvpmu::A as B>::put [mvpmu.ko]+0x1f";
        let put = "<mvpmu::A as B>::put [mvpmu.ko]".to_owned();
        assert_eq!(executed(line), Some((put, -12.0)));
        assert_eq!(
            executed("listing: 3 user mode"),
            Some(("user mode".to_owned(), 3.0))
        );
        assert_eq!(executed("bochs-vmm: end"), None);
    }
}
