// SPDX-License-Identifier: GPL-2.0

//! What the machine has counted in a run, as far as it says whether the run is to be trusted.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;

/// The statistics that a machine writes when it ends.
#[derive(Debug, Deserialize)]
pub struct MachineStats {
    cpus: Vec<Cpu>,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    host: Host,
    vm_entries: u64,
    /// None, if there was no oracle.
    oracle: Option<Oracle>,
}

#[derive(Debug, Deserialize)]
struct Host {
    refused: u64,
}

#[derive(Debug, Deserialize)]
struct Oracle {
    switches: u64,
    mediated_entries: u64,
    violations: u64,
}

impl MachineStats {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// Writes of PMU registers that the host was refused (#GP). A machine without a PMU has no
    /// statistics of its CPUs, and nothing to refuse.
    pub fn refused(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.host.refused).sum()
    }

    /// VM entries of guests that could reach the PMU.
    pub fn mediated_entries(&self) -> u64 {
        let oracles = self.cpus.iter().filter_map(|cpu| cpu.oracle.as_ref());
        oracles.map(|oracle| oracle.mediated_entries).sum()
    }

    /// Whether the oracle has watched all CPUs, was told of what happened there, and had nothing to
    /// object.
    pub fn watched(&self) -> Result<()> {
        ensure!(!self.cpus.is_empty(), "the machine has no CPU");
        for (n, cpu) in self.cpus.iter().enumerate() {
            let oracle = cpu.oracle.as_ref();
            let oracle = oracle.with_context(|| format!("CPU {n} had no oracle"))?;
            ensure!(oracle.violations == 0, "CPU {n}: {oracle:?}");
            // The host has always more than one task.
            ensure!(oracle.switches > 0, "CPU {n}: it saw no task switch");
            ensure!(
                oracle.mediated_entries <= cpu.vm_entries,
                "CPU {n}: it saw more entries than there were"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = r#"{"host": {"refused": 3}, "vm_entries": 9, "oracle":
        {"switches": 1, "mediated_entries": 4, "violations": 0}}"#;

    fn of(cpus: &[String]) -> Result<MachineStats> {
        MachineStats::parse(&format!(r#"{{"cpus": [{}]}}"#, cpus.join(",")))
    }

    // Has to fail when only the first CPU is looked at, or a count that is missing is taken for 0.
    #[test]
    fn every_cpu_has_to_be_watched() {
        let good = || CPU.to_owned();
        let stats = of(&[good(), good()]).unwrap();
        stats.watched().unwrap();
        assert_eq!((stats.refused(), stats.mediated_entries()), (6, 8));
        assert!(of(&[]).unwrap().watched().is_err());
        for (from, to) in [
            ("\"switches\": 1", "\"switches\": 0"),
            ("\"violations\": 0", "\"violations\": 1"),
            ("\"mediated_entries\": 4", "\"mediated_entries\": 10"),
        ] {
            let stats = of(&[good(), CPU.replace(from, to)]).unwrap();
            assert!(stats.watched().is_err(), "{to}");
        }
        let (front, _) = CPU.split_once("\"oracle\":").unwrap();
        let without = of(&[good(), format!("{front}\"oracle\": null}}")]).unwrap();
        assert!(without.watched().is_err());
        for key in ["refused", "violations", "switches", "mediated_entries"] {
            assert!(of(&[CPU.replace(key, "other")]).is_err(), "{key}");
        }
    }
}
