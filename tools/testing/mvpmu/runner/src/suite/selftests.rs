// SPDX-License-Identifier: GPL-2.0

//! The groups of selftests: which of them are run where.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use pmu_model::intel::Config;
use pmu_model::profile;

use super::group::Group;
use super::group::Length;
use super::group::Provider;
use super::group::Work;
use crate::job::Job;
use crate::machine::has_branch_stack;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::paths;
use crate::paths::Kernel;

/// Our selftests that are about mvpmu itself: not for KVM's C code.
const ABOUT_MVPMU: [&str; 8] = [
    "attack_branches_test",
    "debugfs_test",
    "frozen_branches_test",
    "guest_branches_test",
    "shared_branches_test",
    "stats_test",
    "topdown_test",
    "trace_test",
];

/// Selftests of groups of their own: for the debug kernel, whose lockup detector is perf's and which has
/// BPF programs and can be made to fail, for machines on which an instruction takes some cycles, beside
/// perf's own of branches, and for parameters.
const ELSEWHERE: [&str; 11] = [
    "fail_test",
    "watchdog_test",
    "snapshot_test",
    "cycles_test",
    "host_branches_test",
    "preferred_events_test",
    "attack_trace_test",
    "guest_pt_test",
    "host_pt_test",
    "pt_cost_test",
    "traced_guest_test",
];

/// The selftest of slots and PERF_METRICS: not for KVM's C code, which gives guests neither.
const OF_METRICS: &str = "mvpmu/topdown_test";

/// The selftests of last branch records in guests: only the last one for KVM's C code, which gives guests
/// none, and for CPUs that have none.
const OF_BRANCHES: [&str; 5] = [
    "mvpmu/attack_branches_test",
    "mvpmu/frozen_branches_test",
    "mvpmu/guest_branches_test",
    "mvpmu/shared_branches_test",
    "mvpmu/no_branches_test",
];

/// The selftest of a trace of branches that the CPU stores in memory.
const OF_TRACE: &str = "mvpmu/host_trace_test";

/// Whether the CPU has what the selftest is about.
fn can_run(test: &str, cpu: Cpu) -> bool {
    let has = |what: fn(Config) -> bool| match cpu.pmu {
        profile::Pmu::Intel { config, .. } => what(config),
        profile::Pmu::Amd(_) => false,
    };
    match test {
        OF_METRICS => has(|config| config.metrics > 0),
        OF_TRACE => has(|config| config.bts),
        _ if OF_BRANCHES[..4].contains(&test) => has_branch_stack(cpu),
        _ => true,
    }
}

/// How the names of the attackers among our selftests begin.
const ATTACK: &str = "attack_";

/// Our own selftests, what `make kernel` has built with a name that says so: the attackers, or
/// the others.
pub fn own_selftests(cpu: Cpu, provider: Provider, attackers: bool) -> Result<Vec<String>> {
    let directory = Path::new(paths::SELFTESTS).join("mvpmu");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let about_mvpmu = ABOUT_MVPMU.contains(&name.as_str());
        if name.ends_with("_test")
            && name.starts_with(ATTACK) == attackers
            && !(about_mvpmu && provider == Provider::C)
            && !ELSEWHERE.contains(&name.as_str())
            && can_run(&format!("mvpmu/{name}"), cpu)
        {
            names.push(format!("mvpmu/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// KVM's selftests of the list for `machine`: those that share a boot, or those that do not.
pub fn kvm_selftests(machine: Machine, alone: bool) -> Vec<String> {
    let here = format!("{}{}", machine.name(), if alone { ":alone" } else { "" });
    include_str!("../../../kernel/kvm-selftests")
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let name = words.next()?.rsplit('/').next()?;
            words
                .any(|word| word == here)
                .then(|| format!("kvm/{name}"))
        })
        .collect()
}

pub fn selftests(boot: Boot, suite: &str, provider: Provider, tests: Vec<String>) -> Group {
    let mut arguments = vec![provider.name().to_owned()];
    arguments.extend(tests.iter().cloned());
    let base = |test: &String| {
        let program = test.split_once('=').map_or(test.as_str(), |(name, _)| name);
        program.rsplit('/').next().unwrap_or(program).to_owned()
    };
    Group {
        name: format!("{} {suite} {}", boot.name(), provider.name()),
        work: Work::Boot {
            boot,
            job: Job {
                arguments,
                ..Job::new("selftests")
            },
            tests: tests.iter().map(base).collect(),
            limit: Duration::from_secs(1200),
        },
    }
}

/// Selftests of what could disturb the host's NMI watchdog, and it them: PMIs, and counts.
const WITH_WATCHDOG: [&str; 2] = ["mvpmu/pmi_test", "mvpmu/watchdog_test"];

/// Some of our selftests on a host as distributions have it: its NMI watchdog owns a counter.
pub fn with_watchdog(cpu: Cpu) -> Group {
    let tests = WITH_WATCHDOG.map(str::to_owned).to_vec();
    let boot = Boot {
        kernel: Kernel::Debug,
        ..Boot::of_cpu(cpu)
    };
    let mut group = selftests(boot, "selftests with the watchdog", Provider::Mvpmu, tests);
    if let Work::Boot { job, .. } = &mut group.work {
        job.arguments.insert(0, "watchdog".to_owned());
    }
    group
}

/// Some of our selftests on the debug kernel, for what it has more: control groups, suspend, BPF, failures. On
/// the Intel machine snapshots of branches: it has such registers as the CPU that this is.
pub fn with_debug_kernel(machine: Machine) -> Group {
    let (cpu, tests) = match machine {
        Machine::Amd => (
            machine.cpu(),
            &[
                "fail_test",
                "host_rdpmc_test",
                "host_times_test",
                "hotplug_test",
            ][..],
        ),
        Machine::Intel => (
            &profile::ICELAKE,
            &[
                "fail_test",
                "host_times_test",
                "hotplug_test",
                "snapshot_test",
            ][..],
        ),
    };
    let boot = Boot {
        kernel: Kernel::Debug,
        ..Boot::of_cpu(cpu).with_two_cpus()
    };
    let tests = tests.iter().map(|test| format!("mvpmu/{test}")).collect();
    selftests(boot, "debug kernel's selftests", Provider::Mvpmu, tests)
}

/// What a kernel with PREEMPT_RT is told. QEMU's CPU does not say that its TSC is constant, which it is, and KVM
/// wants that then. Of the tests of KUnit only ours: that of the crate kernel for SpinLockIrq expects
/// interrupts to be off, which such a lock leaves on.
const OF_RT: &str = "setcpuid=constant_tsc kunit.filter_glob=*mvpmu*";

/// The word for the job's script that gives tests more time, before the provider's name.
pub const PATIENT: &str = "patient";

/// What is not for the kernel that looks for data races, as it holds a CPU up at random: how many instructions of
/// the host an exit takes, and that perf says two times of one moment. It reads them without its lock
/// (__perf_event_read_value()).
const DISTURBED_BY_KCSAN: [&str; 2] = ["mvpmu/host_exact_test", "mvpmu/host_times_test"];

/// Into how many groups the tests of such a kernel are divided, so that each ends in an hour or so: on the Intel
/// machine a kernel that checks each lock, or each access, executes ten times as many instructions.
fn parts(machine: Machine, kernel: Kernel) -> usize {
    match (machine, kernel) {
        (Machine::Intel, Kernel::Rt | Kernel::Kcsan) => 4,
        _ => 1,
    }
}

/// Kernels that watch for what no test sees: the selftests and the attackers, and no report in the log.
pub fn with_other_kernels(machine: Machine) -> Result<Vec<Group>> {
    let cpu = machine.cpu();
    let mut tests = own_selftests(cpu, Provider::Mvpmu, false)?;
    tests.extend(own_selftests(cpu, Provider::Mvpmu, true)?);
    let of = |kernel: Kernel, part: usize, parts: usize| {
        let boot = Boot {
            kernel,
            // There may be several reports.
            panics_on_warning: false,
            // In code of clang's it does not see which function of perf's writes last branch records.
            oracle: match (kernel, machine) {
                (Kernel::Kasan, Machine::Intel) => Oracle::Off,
                _ => Oracle::On,
            },
            append: match kernel {
                Kernel::Rt => OF_RT.to_owned(),
                _ => String::new(),
            },
            ..Boot::of_cpu(cpu).with_two_cpus()
        };
        let mut suite = format!("{} kernel's selftests", kernel.variant());
        let mut tests: Vec<_> = tests.iter().skip(part).step_by(parts).cloned().collect();
        if parts > 1 {
            suite.push_str(&format!(", part {} of {parts}", part + 1));
        }
        if kernel == Kernel::Kcsan {
            tests.retain(|test| !DISTURBED_BY_KCSAN.contains(&test.as_str()));
        }
        let mut group = selftests(boot, &suite, Provider::Mvpmu, tests);
        if let Work::Boot { job, limit, .. } = &mut group.work {
            job.arguments.insert(0, PATIENT.to_owned());
            *limit = Duration::from_secs(7200);
        }
        group
    };
    let kernels = [Kernel::Rt, Kernel::Kcsan, Kernel::Kasan];
    let groups = kernels.into_iter().flat_map(|kernel| {
        let parts = parts(machine, kernel);
        (0..parts).map(move |part| (kernel, part, parts))
    });
    Ok(groups
        .map(|(kernel, part, parts)| of(kernel, part, parts))
        .collect())
}

/// Events of the host that count in guests: where whoever comes first has the PMU, and where those
/// of an administrator come before guests.
pub fn with_host_events(cpu: Cpu) -> Vec<Group> {
    let tests = ["host_events_test", "preferred_events_test", "trace_test"]
        .map(|test| format!("mvpmu/{test}"));
    let with = |suite: &str, option: &str| {
        let boot = Boot::of_cpu(cpu);
        let mut group = selftests(boot, suite, Provider::Mvpmu, tests.to_vec());
        if let Work::Boot { job, .. } = &mut group.work {
            job.arguments[0].push_str(option);
        }
        group
    };
    vec![
        with("selftests with shared events", ",host_events=share"),
        with("selftests with preferred events", ",host_events=prefer"),
    ]
}

/// Guests with an Intel PT of their own, on the CPUs that have it, and that they have none on the others.
/// With them some of what else there is.
pub fn with_pt() -> Vec<Group> {
    const HOST_PT: &str = "mvpmu/host_pt_test";
    const OF_PT: [&str; 10] = [
        "mvpmu/guest_pt_test",
        HOST_PT,
        "mvpmu/traced_guest_test",
        "mvpmu/attack_trace_test",
        "mvpmu/pt_cost_test",
        "mvpmu/count_test",
        "mvpmu/host_perf_test",
        "mvpmu/msr_test",
        "mvpmu/pmi_test",
        "mvpmu/state_test",
    ];
    let with = |suite: &str, boot: Boot, tests: &[&str]| {
        let tests = tests.iter().map(|&test| test.to_owned()).collect();
        let mut group = selftests(boot, suite, Provider::Mvpmu, tests);
        if let Work::Boot { job, .. } = &mut group.work {
            job.arguments[0].push_str(",pt=host_guest");
        }
        group
    };
    let suite = "selftests, pt=host_guest";
    let debug = Boot {
        kernel: Kernel::Debug,
        ..Boot::of_cpu(&profile::ICELAKE).with_two_cpus()
    };
    let mut groups = vec![
        with(
            suite,
            Boot::of_cpu(&profile::ICELAKE).with_two_cpus(),
            &OF_PT,
        ),
        with(
            suite,
            Boot::of_cpu(Machine::Intel.cpu()).with_two_cpus(),
            &OF_PT[..5],
        ),
        with(
            suite,
            Boot::of_cpu(&profile::SKYLAKE),
            &["mvpmu/count_test", NO_PT],
        ),
        with(
            // Traces of the host are longer there than host_pt_test has room for.
            "debug kernel's selftests, pt=host_guest",
            debug,
            &[OF_PT[0], OF_PT[2]],
        ),
    ];
    let long = format!("{HOST_PT}=long");
    groups.push(with(
        "10^5 VM entries beside PT of the host",
        Boot::of_cpu(&profile::ICELAKE),
        &["mvpmu/count_test", &long],
    ));
    groups
}

/// That guests have no Intel PT.
const NO_PT: &str = "mvpmu/no_pt_test";

/// The selftests of what differs between CPUs: which state is switched how, and what of it guests can
/// reach.
const BY_CPU: [&str; 13] = [
    "mvpmu/control_test",
    "mvpmu/count_test",
    "mvpmu/exits_test",
    "mvpmu/host_perf_test",
    "mvpmu/msr_test",
    NO_PT,
    "mvpmu/pmi_test",
    OF_METRICS,
    OF_TRACE,
    OF_BRANCHES[1],
    OF_BRANCHES[2],
    OF_BRANCHES[3],
    OF_BRANCHES[4],
];

/// Machines whose PMIs come late, one whose firmware has left something in each register of the PMU,
/// and one where cycles are not instructions; usually some on each machine.
pub fn model_groups(cpu: Cpu, length: Length) -> Vec<Group> {
    let group = |model: &str, tests: &[&str]| {
        let boot = Boot {
            model: vec![model.to_owned()],
            ..Boot::of_cpu(cpu)
        };
        let own = tests.iter().map(|test| format!("mvpmu/{test}")).collect();
        selftests(boot, &format!("selftests, {model}"), Provider::Mvpmu, own)
    };
    // The PMIs of a guest, and those of an event of the host beside one.
    let late = |delay: u32| {
        let tests = ["pmi_test", "attack_perf_test"];
        group(&format!("pmi-delay={delay}"), &tests)
    };
    let power_on = || group("power-on=random:1", &["count_test", "host_perf_test"]);
    let weights = || group("weights=3:2", &["cycles_test"]);
    let without_lbr = || group("lbr=off", &["count_test", "no_branches_test"]);
    match (length, Machine::of(cpu)) {
        (Length::Long, _) => vec![
            late(1),
            late(20),
            late(200),
            power_on(),
            weights(),
            without_lbr(),
        ],
        (Length::Usual, Machine::Amd) => vec![late(200), weights()],
        (Length::Usual, Machine::Intel) => vec![late(20), power_on(), without_lbr()],
    }
}

/// What is tested on the CPUs that a machine is not else.
pub fn cpu_groups(machine: Machine) -> Vec<Group> {
    profile::ALL
        .into_iter()
        .filter(|cpu| Machine::of(cpu) == machine && *cpu != machine.cpu())
        .map(|cpu| {
            let tests = BY_CPU.into_iter().map(str::to_owned);
            let own = tests.filter(|test| can_run(test, cpu)).collect();
            selftests(Boot::of_cpu(cpu), "selftests", Provider::Mvpmu, own)
        })
        .collect()
}

/// What only the long run does: all selftests on such machines.
pub fn long_groups(cpu: Cpu) -> Result<Vec<Group>> {
    let models = ["pmi-delay=1", "pmi-delay=20", "pmi-delay=200"]
        .into_iter()
        .chain(["power-on=random:1", "power-on=random:2"]);
    models
        .map(|model| {
            let boot = Boot {
                model: vec![model.to_owned()],
                ..Boot::of_cpu(cpu).with_two_cpus()
            };
            let own = own_selftests(cpu, Provider::Mvpmu, false)?;
            let suite = format!("selftests mvpmu, {model}");
            Ok(selftests(boot, &suite, Provider::Mvpmu, own))
        })
        .collect()
}
