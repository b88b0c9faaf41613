// SPDX-License-Identifier: GPL-2.0

//! The groups that test the machines, or that need what only they can do: runs that are the same.

use std::time::Duration;

use pmu_model::profile;

use super::group::Group;
use super::group::Length;
use super::group::Provider;
use super::group::Work;
use crate::calls;
use crate::job::Job;
use crate::machine::name;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Pmu;
use crate::oracle::Oracle;
use crate::paths;
use crate::sweep::Company;
use crate::sweep::Sweep;

/// The first one looks at the registers, the others count.
const MACHINE_TESTS: [&str; 3] = ["register_test", "exact_test", "sampling_test"];

/// Whether an Intel CPU has last branch records here.
fn has_lbr(cpu: Cpu) -> bool {
    matches!(cpu.pmu, profile::Pmu::Intel { config, .. } if config.lbr)
}

/// Whether an Intel CPU has PT here.
fn has_pt(cpu: Cpu) -> bool {
    matches!(cpu.pmu, profile::Pmu::Intel { config, .. } if config.pt)
}

/// Last branch records of perf in L1.
fn branches_of_perf(cpu: Cpu) -> Group {
    Group {
        name: format!("{} branches of perf", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                perf: true,
                ..Job::new("branches")
            },
            tests: ["lbr_test", "host_branches_test", "perf"]
                .map(str::to_owned)
                .to_vec(),
            limit: Duration::from_secs(600),
        },
    }
}

/// The tests of the machine itself, by itself and from L1 without KVM.
pub fn machine_tests(cpu: Cpu) -> Vec<Group> {
    let group = |what: &str, work| Group {
        name: format!("{} machine {what}", name(cpu)),
        work,
    };
    let mut groups = Vec::new();
    if cpu.is_amd() {
        // That of the Intel machine is tested by `cargo test`.
        // They are about the PMU, and leave values of their guests there on purpose.
        let boot = Boot {
            oracle: Oracle::Off,
            ..Boot::of_cpu(cpu)
        };
        // The others have last branch records.
        let without = Boot {
            model: vec!["lbr=off".to_owned()],
            ..boot.clone()
        };
        let bare = Work::Bare(without, paths::tool("bare_test"));
        groups.push(group("without a kernel", bare));
        groups.push(group("quirks", Work::Quirks(boot.clone())));
        let with_options = Boot {
            model: ["power-on=random:1", "pmi-delay=200", "weights=3:2"]
                .map(str::to_owned)
                .to_vec(),
            ..boot.clone()
        };
        let options = Work::Bare(with_options, paths::tool("options_test"));
        groups.push(group("options", options));
        for (what, test) in [
            ("branches", "branches_test"),
            ("branches of guests", "guest_branches_test"),
        ] {
            let work = Work::Bare(boot.clone(), paths::tool(test));
            groups.push(group(what, work));
        }
        groups.push(branches_of_perf(cpu));
        let noting = Boot {
            oracle: Oracle::Note,
            ..boot
        };
        let oracle = Work::Bare(noting, paths::tool("oracle_test"));
        groups.push(group("oracle", oracle));
    } else if has_lbr(cpu) {
        groups.push(branches_of_perf(cpu));
    }
    if has_pt(cpu) {
        groups.push(Group {
            name: format!("{} traces of perf", name(cpu)),
            work: Work::Traces(Boot::of_cpu(cpu)),
        });
    }
    for (pmu, name, tests) in [
        (Pmu::On, "on", &MACHINE_TESTS[..]),
        (Pmu::Old, "old", &MACHINE_TESTS[..1]),
        (Pmu::Off, "off", &MACHINE_TESTS[..1]),
    ] {
        let work = Work::Boot {
            boot: Boot {
                pmu,
                ..Boot::of_cpu(cpu)
            },
            job: Job {
                arguments: vec![name.to_owned()],
                ..Job::new("machine")
            },
            tests: tests.iter().map(|&test| test.to_owned()).collect(),
            limit: Duration::from_secs(200),
        };
        groups.push(group(&format!("with PMU {name}"), work));
    }
    groups
}

pub fn differential(cpu: Cpu, provider: Provider, programs: u64) -> Group {
    Group {
        name: format!("{} differential {}", name(cpu), provider.name()),
        work: Work::Differential(cpu, provider, programs),
    }
}

/// Random calls, with each value of the parameter `host_events`, and whether they find a bug; usually some.
pub fn random_calls(cpu: Cpu, length: Length) -> Vec<Group> {
    let group = |what: &str, work| Group {
        name: format!("{} random calls{what}", name(cpu)),
        work,
    };
    let of = |(provider, programs): (&'static str, u64)| {
        let work = Work::Calls(cpu, provider, programs);
        group(&format!(" {provider}"), work)
    };
    if length == Length::Usual {
        // Another value on each machine, as those of host_perf().
        return vec![of(match cpu.is_amd() {
            true => ("mvpmu", calls::PROGRAMS / 4),
            false => ("mvpmu,host_events=prefer", calls::PROGRAMS / 5),
        })];
    }
    let some = 5 * calls::PROGRAMS;
    let mut groups = Vec::from(
        [
            ("mvpmu", 10 * calls::PROGRAMS),
            ("mvpmu,host_events=share", some),
            ("mvpmu,host_events=prefer", some),
            ("mvpmu,switch=eager", some),
            ("c", some),
        ]
        .map(of),
    );
    groups.push(group("' control", Work::CallsFind(cpu, calls::MUTANT)));
    groups
}

pub fn two_runs(cpu: Cpu, what: &str, boot: Boot) -> Group {
    Group {
        name: format!("{} two runs{what}", name(cpu)),
        work: Work::Twice {
            boot,
            job: Job::new("guest-report"),
        },
    }
}

pub fn sweep(name: &str, sweep: Sweep) -> Group {
    Group {
        name: format!("{} sweep, {name}", sweep.machine.name()),
        work: Work::Sweep(sweep),
    }
}

/// The sweeps of the AMD machine: only of what switches the PMU.
pub fn amd_sweeps(length: Length) -> Vec<Group> {
    let switch = |company| Sweep::switch(company).on_amd();
    match length {
        Length::Usual => vec![
            sweep("increment", Sweep::increment().on_amd().sampled(7)),
            sweep("both", switch(Company::Both).sampled(53)),
        ],
        Length::Long => {
            let mut groups = vec![sweep("increment", Sweep::increment().on_amd())];
            for company in Company::ALL {
                let name = format!("switch, {}", company.name());
                groups.push(sweep(&name, switch(company)));
            }
            groups
        }
    }
}
