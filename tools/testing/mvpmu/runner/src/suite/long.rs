// SPDX-License-Identifier: GPL-2.0

//! What only `make test-long` runs of the groups that are usual else: `make test` has half an hour for all of
//! them. Of what is much the same on both machines it runs one, mostly that of the faster machine, AMD.

use anyhow::ensure;
use anyhow::Result;

/// The names of the groups.
const ONLY_LONG: [&str; 31] = [
    "amd attackers' control",
    "amd demo",
    "amd given kernel",
    "amd hypervisors",
    "amd perf and tracepoints",
    "amd selftests with preferred events mvpmu",
    "amd selftests with shared events mvpmu",
    "amd selftests, 4 CPUs mvpmu",
    "intel KUnit",
    "intel KVM selftests mvpmu",
    "intel branches of perf",
    "intel cycles",
    "intel given kernel",
    "intel hard times",
    "intel host tools",
    "intel host tools without a PMU",
    "intel icelake debug kernel's selftests mvpmu",
    "intel icelake debug kernel's selftests, pt=host_guest mvpmu",
    "intel installed",
    "intel mutants of Linux",
    "intel mutants, writes skipped",
    "intel perf on the host, prefer",
    "intel refusal: no KVM",
    "intel refusal: no PMU",
    "intel refusal: old PMU",
    "intel selftests mvpmu,switch=eager",
    "intel selftests with the watchdog mvpmu",
    "intel shown commands",
    "intel skylake migration to fewer counters",
    "intel skylake selftests c",
    "intel two runs",
];

/// Takes those out that have such a name.
pub fn leave_out<T>(groups: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    groups.retain(|group| !ONLY_LONG.contains(&name(group)));
}

/// That there are all of them, among these names.
pub fn check(names: &[String]) -> Result<()> {
    for name in ONLY_LONG {
        ensure!(
            names.iter().any(|group| group == name),
            "there is no group of tests '{name}', which only make test-long should run"
        );
    }
    Ok(())
}
