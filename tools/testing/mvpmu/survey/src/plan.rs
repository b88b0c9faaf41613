// SPDX-License-Identifier: GPL-2.0

//! What is done, in which order, and how much of it.

use std::time::Duration;

use mvpmu_report::schema::Provider;

/// How a program's words become part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A selftest, and what of it is run where time is short; nothing: all.
    Tests(&'static str, &'static [&'static str]),
    /// A guest that says what it should have counted, and what it did.
    Report,
    /// A guest that counts the same over and over.
    Repeat,
    /// Guests that exit.
    Exits,
}

/// A step.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub name: &'static str,
    pub provider: Provider,
    pub kind: Kind,
}

const fn step(name: &'static str, provider: Provider, kind: Kind) -> Planned {
    Planned {
        name,
        provider,
        kind,
    }
}

const fn of_mvpmu(name: &'static str, test: &'static str, few: &'static [&'static str]) -> Planned {
    step(name, Provider::Mvpmu, Kind::Tests(test, few))
}

/// "FIXTURE.VARIANT.TEST", as `-r` of a selftest takes it. Attackers need minutes on a test machine, where
/// other tests run all of them.
const FEW_COUNTS: [&str; 3] = [
    "count.loop.all_counters_at_once_are_exact",
    "count.cpuid_exits.each_counter_alone_is_exact",
    "count.port_io_exits.all_counters_at_once_are_exact",
];
const FEW_GUESTS: [&str; 2] = [
    "attack_guest_once.guest_user_mode_reads_its_own_guest_only",
    "attack_guest_once.guest_user_mode_reads_nothing_without_the_right",
];
const FEW_PROCESSES: [&str; 1] = ["attack_host.own_event.vcpu_thread_reads_nothing_after_a_run"];

/// Everything. Steps with the same provider follow each other, as KVM is loaded anew for another one.
/// What exits cost is measured twice with each, in an order in which a clock that drifts harms both the same.
pub const STEPS: [Planned; 21] = [
    step("a guest that counts", Provider::Mvpmu, Kind::Report),
    of_mvpmu("exact counts", "count_test", &FEW_COUNTS),
    of_mvpmu("control of counters", "control_test", &[]),
    of_mvpmu("registers", "msr_test", &[]),
    of_mvpmu("what accesses exit", "exits_test", &[]),
    of_mvpmu("PMIs", "pmi_test", &[]),
    of_mvpmu("saved and restored state", "state_test", &[]),
    of_mvpmu("events of perf on the host", "host_perf_test", &[]),
    of_mvpmu("attackers: guests", "attack_guest_test", &FEW_GUESTS),
    of_mvpmu(
        "attackers: processes with RDPMC",
        "attack_host_test",
        &FEW_PROCESSES,
    ),
    of_mvpmu("attackers: perf on the host", "attack_perf_test", &[]),
    of_mvpmu("what perf leaves", "host_rdpmc_test", &[]),
    step("the same over and over", Provider::Mvpmu, Kind::Repeat),
    step("VM exits", Provider::Mvpmu, Kind::Exits),
    step("a guest that counts", Provider::C, Kind::Report),
    step(
        "exact counts",
        Provider::C,
        Kind::Tests("count_test", &FEW_COUNTS),
    ),
    step("PMIs", Provider::C, Kind::Tests("pmi_test", &[])),
    step("VM exits", Provider::C, Kind::Exits),
    step("VM exits once more", Provider::C, Kind::Exits),
    step("VM exits once more", Provider::Mvpmu, Kind::Exits),
    step("VM exits", Provider::Off, Kind::Exits),
];

/// Why guests exit, for `bench`.
pub const SCENARIOS: [&str; 6] = ["ept", "cpuid", "cpuid_insn", "io", "halt", "selector"];

/// How many counters guests have enabled: none and all.
pub fn counters(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::Off => &["-1"],
        _ => &["0", "100"],
    }
}

/// Whether a guest can exit so.
pub fn can_exit(provider: Provider, scenario: &str) -> bool {
    // Without a PMU there is no selector.
    provider != Provider::Off || scenario != "selector"
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long a program may take.
    pub limit: Duration,
    /// How often the same code is counted.
    pub repetitions: u64,
    /// Whether all of each selftest is run.
    pub all_tests: bool,
    /// How many VM exits a round has at least, and at most.
    pub exits: (u64, u64),
}

impl Effort {
    /// What takes about two minutes; on an emulator, where time is not measured but made, less often.
    pub fn on(emulated: bool) -> Self {
        match emulated {
            false => Effort {
                limit: Duration::from_secs(120),
                repetitions: 2000,
                all_tests: true,
                exits: (1000, 6000),
            },
            true => Effort {
                limit: Duration::from_secs(400),
                repetitions: 10,
                all_tests: false,
                exits: (10, 40),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    // Seen to fail when a step has the name of another one.
    #[test]
    fn each_step_is_known_by_its_name_and_provider() {
        let names: BTreeSet<_> = STEPS
            .iter()
            .map(|step| (step.name, step.provider))
            .collect();
        assert_eq!(names.len(), STEPS.len());
    }
}
