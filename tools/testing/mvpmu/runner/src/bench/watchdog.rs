// SPDX-License-Identifier: GPL-2.0

//! What perf's NMI watchdog costs VMs that count nothing: its event counts in guests, too, so that a
//! VM entry need not stop it.
//!
//! The kernels that are built here have the buddy detector. Perf's is that of the debug kernel.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::measured;
use super::row;
use super::scenario::CPUID_CYCLES;
use super::table::number;
use super::MACHINES;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::paths::Kernel;
use crate::tap::Case;

/// With which provider, and what that makes of the VM.
const VMS: [(&str, &str); 2] = [
    ("off", "a VM without a PMU"),
    ("mvpmu", "a VM that counts nothing"),
];
/// What there is on the host, for the job: first nothing.
const NOTHING: &str = "none";
const WATCHDOG: &str = "watchdog";

/// Instructions of a CPUID exit of such a VM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Cost {
    machine: String,
    provider: String,
    without: f64,
    with: f64,
}

/// Boots the debug kernel with each provider.
pub fn measure(boot: &Boot, directory: &Path, echo: bool) -> Result<Vec<Cost>> {
    let boot = Boot {
        kernel: Kernel::Debug,
        ..boot.clone()
    };
    let hosts = [NOTHING, WATCHDOG].join(",");
    let cost = |&(provider, _): &(&str, &str)| -> Result<Cost> {
        let place = directory.join(format!("watchdog-{provider}"));
        let blocks = measured(
            &boot,
            provider,
            (hosts.as_str(), "0"),
            &[CPUID_CYCLES],
            (&place, echo),
        )?;
        let instructions = |host: &str| -> Result<f64> {
            let is_that = |on: &String| on == host;
            let mut blocks = blocks.iter();
            let block = blocks.find(|block| block.get("host_event").is_some_and(is_that));
            let block = block.with_context(|| format!("nothing with {host}"))?;
            row::row(boot.machine, provider, block)?;
            row::least(block)
        };
        Ok(Cost {
            machine: boot.machine.name().to_owned(),
            provider: provider.to_owned(),
            without: instructions(NOTHING)?,
            with: instructions(WATCHDOG)?,
        })
    };
    VMS.iter().map(cost).collect()
}

fn of<'a>(costs: &'a [Cost], machine: Machine, provider: &str) -> Option<&'a Cost> {
    costs
        .iter()
        .find(|cost| cost.machine == machine.name() && cost.provider == provider)
}

/// Measures on the machine, and tests that.
pub fn test(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    Ok(judge(boot.machine, &measure(boot, directory, false)?))
}

/// What a round of so many exits has by the way, by each of them: some 100 instructions, more or less.
const BY_THE_WAY: f64 = 2.0;

/// It must cost them nothing.
pub fn judge(machine: Machine, costs: &[Cost]) -> Vec<Case> {
    let case = |&(provider, vm): &(&str, &str)| {
        let name = format!("perf's NMI watchdog costs {vm} nothing");
        let cost = of(costs, machine, provider);
        let nothing = cost.is_some_and(|cost| cost.with <= cost.without + BY_THE_WAY);
        Case::new(name, nothing, || format!("{cost:?}"))
    };
    VMS.iter().map(case).collect()
}

/// The table for README.md.
pub fn markdown(costs: &[Cost]) -> String {
    let mut text = String::new();
    for (machine, title) in MACHINES {
        for (provider, vm) in VMS {
            if let Some(Cost { without, with, .. }) = of(costs, machine, provider) {
                text.push_str(&format!(
                    "| {title} machine, {vm} | {} | {} |\n",
                    number(*without),
                    number(*with)
                ));
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nInstructions of a CPUID exit on the debug kernel, without and with perf's NMI watchdog:\n\n\
         | VM | without | with |\n| --- | --- | --- |\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Verdict;

    fn cost(provider: &str, with: f64) -> Cost {
        Cost {
            machine: "amd".to_owned(),
            provider: provider.to_owned(),
            without: 1000.0,
            with,
        }
    }

    // Has to fail when one VM stands for the other, or none is good enough.
    #[test]
    fn each_vm_has_to_pay_nothing() {
        let passed = |costs: &[Cost]| {
            let cases = judge(Machine::Amd, costs).into_iter();
            let verdicts = cases.map(|case| case.verdict == Verdict::Passed);
            verdicts.collect::<Vec<_>>()
        };
        let off = cost("off", 1000.0);
        assert_eq!(passed(&[off.clone(), cost("mvpmu", 1000.0)]), [true, true]);
        assert_eq!(passed(&[off.clone(), cost("mvpmu", 1002.1)]), [true, false]);
        assert_eq!(passed(&[off]), [true, false]);
    }
}
