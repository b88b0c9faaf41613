// SPDX-License-Identifier: GPL-2.0

//! What the attackers among the selftests have found.
//!
//! Each leaves a line of diagnostics in its test's output:
//! `# attacker NAME reads N switches N leaks N`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::machine::Machine;

/// One attacker, on one machine, against one provider.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Attacker {
    attacker: String,
    machine: Machine,
    provider: String,
    reads: u64,
    switches: u64,
    leaks: u64,
}

/// The attackers in the files that a run of selftests has left in `directory`.
pub fn of_run(directory: &Path, machine: Machine, provider: &str) -> Vec<Attacker> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tap"))
        .collect();
    files.sort();
    let mut attackers = Vec::new();
    for file in files {
        let text = fs::read(file).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            attackers.extend(parse(line, machine, provider));
        }
    }
    attackers
}

fn parse(line: &str, machine: Machine, provider: &str) -> Option<Attacker> {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["#", "attacker", name, "reads", reads, "switches", switches, "leaks", leaks] = words[..]
    else {
        return None;
    };
    Some(Attacker {
        attacker: name.to_owned(),
        machine,
        provider: provider.to_owned(),
        reads: reads.parse().ok()?,
        switches: switches.parse().ok()?,
        leaks: leaks.parse().ok()?,
    })
}

impl Attacker {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.attacker
    }

    /// Whether it has found something.
    pub fn leaks(&self) -> bool {
        self.leaks > 0
    }
}

/// Writes the list, unless no attacker was run.
pub fn write(attackers: &[Attacker], to: &Path) -> Result<()> {
    if attackers.is_empty() {
        return Ok(());
    }
    fs::write(to, serde_json::to_string_pretty(attackers)? + "\n")?;
    let sum = |of: fn(&Attacker) -> u64| attackers.iter().map(of).sum::<u64>();
    println!(
        "{} attackers: {} reads, {} switches, {} leaks",
        attackers.len(),
        sum(|attacker| attacker.reads),
        sum(|attacker| attacker.switches),
        sum(|attacker| attacker.leaks)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the numbers are taken in another order.
    #[test]
    fn the_line_of_an_attacker_is_read() {
        let line = "# attacker process/a reads 30 switches 2 leaks 1";
        let attacker = parse(line, Machine::Amd, "c").unwrap();
        assert_eq!(attacker.attacker, "process/a");
        let numbers = (attacker.reads, attacker.switches, attacker.leaks);
        assert_eq!(numbers, (30, 2, 1));
    }

    // Has to fail when a number that is none is taken for 0.
    #[test]
    fn other_lines_are_not_taken_for_one() {
        for line in [
            "# attacker a reads many switches 2 leaks 0",
            "ok 1 attacker a",
            "",
        ] {
            assert_eq!(parse(line, Machine::Amd, "c"), None);
        }
    }
}
