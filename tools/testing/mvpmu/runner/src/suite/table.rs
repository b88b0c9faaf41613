// SPDX-License-Identifier: GPL-2.0

//! The table of all test groups.

use anyhow::Result;
use pmu_model::profile;

use super::group::Group;
use super::group::Length;
use super::group::Provider;
use super::group::Work;
use super::guests::host_perf;
use super::guests::hypervisors;
use super::guests::linux_guests;
use super::guests::migration;
use super::guests::migration_by_qemu;
use super::guests::migration_to_fewer_counters;
use super::guests::some_in_linux_guest;
use super::guests::tracepoints;
use super::guests::watchdog_in_linux_guest;
use super::hosts::host_tools;
use super::hosts::shown_commands;
use super::lives::after_kexec;
use super::lives::cycles;
use super::lives::hard_times;
use super::lives::hard_times_with_kcsan;
use super::lives::kunit;
use super::lives::lifecycle;
use super::lives::refusal;
use super::machines::amd_sweeps;
use super::machines::differential;
use super::machines::machine_tests;
use super::machines::random_calls;
use super::machines::sweep;
use super::machines::two_runs;
use super::selftests::cpu_groups;
use super::selftests::kvm_selftests;
use super::selftests::long_groups;
use super::selftests::model_groups;
use super::selftests::own_selftests;
use super::selftests::selftests;
use super::selftests::with_debug_kernel;
use super::selftests::with_host_events;
use super::selftests::with_other_kernels;
use super::selftests::with_pt;
use super::selftests::with_watchdog;
use crate::checks;
use crate::differential;
use crate::machine::has_branch_stack;
use crate::machine::name;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::mutants;
use crate::object_code;
use crate::paths::Kernel;
use crate::shown;
use crate::sweep::Company;
use crate::sweep::Sweep;
use crate::uki;

fn with_four_cpus(cpu: Cpu) -> Group {
    let boot = Boot {
        cpus: 4,
        ..Boot::of_cpu(cpu)
    };
    let tests = ["cpu_test", "host_perf_test"].map(|name| format!("mvpmu/{name}"));
    selftests(boot, "selftests, 4 CPUs", Provider::Mvpmu, tests.to_vec())
}

/// The kernels of what usually is run on each machine with another one.
fn sampled(machine: Machine, length: Length) -> impl Iterator<Item = Kernel> {
    let kernels = match (length, machine) {
        (Length::Long, _) => &[Kernel::Main, Kernel::Debug][..],
        (_, Machine::Amd) => &[Kernel::Debug],
        (_, Machine::Intel) => &[Kernel::Main],
    };
    kernels.iter().copied()
}

/// The attackers, with bugs that help them.
fn attackers_control(cpu: Cpu) -> Group {
    Group {
        name: format!("{} attackers' control", name(cpu)),
        work: Work::Controls(Boot::of_cpu(cpu).with_two_cpus()),
    }
}

/// What the AMD machine is tested for beyond what both are.
fn amd_groups(cpu: Cpu) -> Vec<Group> {
    vec![
        with_four_cpus(cpu),
        after_kexec(cpu),
        attackers_control(cpu),
    ]
}

/// What the Intel machine is tested for beyond what both are.
fn intel_groups(cpu: Cpu, length: Length) -> Vec<Group> {
    let with = |options| Boot {
        options,
        ..Boot::of_cpu(cpu)
    };
    let narrow = with(&["--pmu", "on,no-full-width"]);
    let no_load = with(&["--vmx", "no-load-global-ctrl"]);
    let mut groups = vec![
        refusal("narrow writes", narrow, "cannot be written at full width"),
        refusal("no load", no_load, "cannot load PERF_GLOBAL_CTRL"),
        refusal("hybrid", with(&["--hybrid"]), "mixes core types"),
        two_runs(cpu, "", Boot::of_cpu(cpu)),
        two_runs(cpu, " of two CPUs", Boot::of_cpu(cpu).with_two_cpus()),
        with_four_cpus(cpu),
    ];
    if length == Length::Long {
        groups.push(attackers_control(cpu));
    }
    if cpu == Machine::Intel.cpu() {
        groups.extend(with_pt());
        groups.push(sweep("increment", Sweep::increment()));
        let companies = match length {
            Length::Usual => &[Company::Both][..],
            Length::Long => &Company::ALL,
        };
        for &company in companies {
            groups.push(sweep(company.name(), Sweep::sample(company)));
            if length == Length::Long {
                let name = format!("switch, {}", company.name());
                groups.push(sweep(&name, Sweep::switch(company)));
            }
        }
    }
    groups
}

/// What is usually run with KVM's C code, and with switch=eager.
const SOME: [&str; 8] = [
    "mvpmu/control_test",
    "mvpmu/count_test",
    "mvpmu/guest_branches_test",
    "mvpmu/mode_test",
    "mvpmu/nested_test",
    "mvpmu/no_branches_test",
    "mvpmu/pmi_test",
    "mvpmu/state_test",
];

/// The long groups, shorter and each on one machine: eager is the same load and put as else, at
/// each VM entry and exit. The attackers are the guests, and the events of the host.
fn eager_shorter(cpu: Cpu) -> Group {
    let attackers = ["mvpmu/attack_guest_test", "mvpmu/attack_perf_test"];
    match Machine::of(cpu) {
        Machine::Amd => selftests(
            Boot::of_cpu(cpu),
            "attackers",
            Provider::Eager,
            attackers.map(str::to_owned).to_vec(),
        ),
        Machine::Intel => differential(cpu, Provider::Eager, differential::PROGRAMS / 2),
    }
}

/// Everything there is, in the order in which it is run.
pub fn groups(cpus: &[Cpu], length: Length) -> Result<Vec<Group>> {
    let local = |name: &str, cpus, work| Group {
        name: name.to_owned(),
        work: Work::Local(cpus, work),
    };
    let mut groups = vec![
        local("sources", usize::MAX, checks::sources),
        local("series", 1, checks::series),
        local("apply", 1, checks::apply),
        local("options", 1, checks::options),
        local("documentation", 1, checks::documentation),
        local("shown commands", 1, shown::test),
        local("deb packages", 1, checks::packages),
        local("object code", 1, object_code::test),
        local("cargo test", usize::MAX, checks::cargo_test),
    ];
    if length == Length::Long {
        groups.push(local("each patch", usize::MAX, checks::each_patch));
        let name = "object code with static branches";
        groups.push(local(name, 1, object_code::test_static_branches));
    }
    for &cpu in cpus {
        let machine = Machine::of(cpu);
        let boot = Boot::of_cpu(cpu);
        groups.extend(machine_tests(cpu));
        groups.push(Group {
            name: format!("{} given kernel", name(cpu)),
            work: Work::Given(boot.clone()),
        });
        // What boots from a disk or a stick takes ten minutes of the AMD machine.
        if machine == Machine::Intel || length == Length::Long {
            groups.push(Group {
                name: format!("{} installed", name(cpu)),
                work: Work::Installed(boot.clone()),
            });
        }
        if cpu == machine.cpu() {
            let image = format!("{} image", name(cpu));
            match (machine, length) {
                (Machine::Amd, Length::Usual) => {
                    groups.push(local(&image, 1, uki::on_amd_that_is_unable));
                }
                (Machine::Amd, Length::Long) => groups.push(local(&image, 1, uki::on_amd)),
                // It is the same without firmware and stick.
                (Machine::Intel, Length::Usual) => {}
                (Machine::Intel, Length::Long) => groups.push(local(&image, 1, uki::on_intel)),
            }
        }
        groups.push(kunit(cpu));
        groups.extend(sampled(machine, length).map(|kernel| lifecycle(cpu, kernel)));
        groups.push(cycles(cpu, length));
        let without_pmu = Boot {
            pmu: Pmu::Off,
            ..boot.clone()
        };
        let old_pmu = Boot {
            pmu: Pmu::Old,
            ..boot.clone()
        };
        let without_kvm = Boot {
            virtualisation: false,
            ..boot.clone()
        };
        groups.push(host_tools("", boot.clone(), None));
        let no_pmu = "the host has no PMU";
        groups.push(host_tools(
            " without a PMU",
            without_pmu.clone(),
            Some(no_pmu),
        ));
        groups.push(refusal("no PMU", without_pmu, no_pmu));
        groups.push(refusal("old PMU", old_pmu, "is too old"));
        groups.push(refusal("no KVM", without_kvm, "the CPU cannot run KVM"));
        for provider in [Provider::Mvpmu, Provider::Eager, Provider::C] {
            // Exact is what a guest counts that has all counters of the CPU. The C code gives it three
            // fixed ones.
            let cpu = match provider {
                Provider::C if cpu == Machine::Intel.cpu() => &profile::SKYLAKE,
                _ => cpu,
            };
            let boot = Boot::of_cpu(cpu);
            // Some want two.
            let two = boot.clone().with_two_cpus();
            let long = length == Length::Long;
            let mut own = own_selftests(cpu, provider, false)?;
            if !long && provider != Provider::Mvpmu {
                own.retain(|test| SOME.contains(&test.as_str()));
            }
            groups.push(selftests(two.clone(), "selftests", provider, own));
            if provider == Provider::Eager {
                if long {
                    groups.push(eager_shorter(cpu));
                }
                continue;
            }
            // With the C code the others say something of the machines.
            if provider == Provider::C && !long {
                continue;
            }
            let attackers = own_selftests(cpu, provider, true)?;
            groups.push(selftests(two, "attackers", provider, attackers));
            let programs = match length {
                Length::Usual => differential::PROGRAMS,
                Length::Long => 2 * differential::PROGRAMS,
            };
            groups.push(differential(cpu, provider, programs));
            for (alone, suite) in [(true, "KVM selftests alone"), (false, "KVM selftests")] {
                let kvm = kvm_selftests(machine, alone);
                if (!alone || long) && !kvm.is_empty() {
                    groups.push(selftests(boot.clone(), suite, provider, kvm));
                }
            }
        }
        groups.push(with_watchdog(cpu));
        groups.extend(model_groups(cpu, length));
        groups.extend(with_host_events(cpu));
        groups.push(tracepoints(cpu));
        if cpu == machine.cpu() {
            // On the Intel machine it takes too long.
            if cpu.is_amd() || length == Length::Long {
                groups.push(some_in_linux_guest(cpu));
            }
            if length == Length::Long {
                groups.push(watchdog_in_linux_guest(cpu));
            }
            // The C code gives guests three fixed counters.
            let of_both = match machine {
                Machine::Amd => cpu,
                Machine::Intel => &profile::SKYLAKE,
            };
            groups.push(match length {
                Length::Usual => migration(of_both, 4),
                Length::Long => migration(of_both, 50),
            });
            groups.push(migration_to_fewer_counters(machine));
            if length == Length::Long {
                groups.push(migration_by_qemu(of_both, 50));
            }
            groups.extend(sampled(machine, length).map(|kernel| hard_times(cpu, kernel, length)));
            // The Intel machine's CPUs take turns.
            if length == Length::Long && machine == Machine::Amd {
                groups.push(hard_times_with_kcsan(cpu));
            }
            groups.extend(random_calls(cpu, length));
        }
        // Usually one value of the parameter on each machine.
        for (host_events, usual) in [("refuse", Machine::Amd), ("prefer", Machine::Intel)] {
            if machine == usual || length == Length::Long {
                groups.push(host_perf(cpu, host_events));
            }
        }
        // On Intel it takes several minutes.
        if machine == Machine::Amd || length == Length::Long {
            groups.push(hypervisors(cpu));
        }
        groups.push(shown_commands(cpu));
        if cpu == machine.cpu() {
            groups.push(with_debug_kernel(machine));
        }
        groups.extend(match machine {
            Machine::Amd => amd_groups(cpu),
            Machine::Intel => intel_groups(cpu, length),
        });
        if cpu == machine.cpu() {
            groups.extend(cpu_groups(machine));
            if machine == Machine::Amd {
                groups.extend(amd_sweeps(length));
            }
        }
        if length == Length::Long {
            if cpu == Machine::Intel.cpu() {
                groups.push(Group {
                    name: format!("{} traces of perf in a Linux guest", name(cpu)),
                    work: Work::GuestTraces(Boot::of_cpu(cpu)),
                });
                groups.push(Group {
                    name: format!("{} traces of perf of the kernel", name(cpu)),
                    work: Work::KernelTraces(Boot::of_cpu(cpu)),
                });
            }
            if cpu == machine.cpu() {
                groups.push(Group {
                    name: format!("{} every KVM selftest", name(cpu)),
                    work: Work::Every(boot.clone()),
                });
            }
            groups.extend(long_groups(cpu)?);
            if cpu == machine.cpu() {
                groups.extend(with_other_kernels(machine)?);
            }
            let who = match machine {
                Machine::Amd => &[(Provider::Mvpmu, 2), (Provider::C, 2), (Provider::Mvpmu, 4)][..],
                // KVM's C code has no slots for guests.
                Machine::Intel => &[(Provider::Mvpmu, 1), (Provider::Mvpmu, 2)],
            };
            let guests = who.iter();
            groups.extend(guests.map(|&(provider, vcpus)| linux_guests(cpu, provider, vcpus)));
        }
        // Those that take longest first.
        groups.push(Group {
            name: format!("{} mutants, writes skipped", name(cpu)),
            work: Work::Mutants(mutants::Part::Made, length, boot.clone()),
        });
        groups.push(Group {
            name: format!("{} VM exits", name(cpu)),
            work: Work::Figures(boot.clone().with_instruction_clock()),
        });
        // On the AMD machine they take twice as long.
        if has_branch_stack(cpu) && (machine == Machine::Intel || length == Length::Long) {
            groups.push(Group {
                name: format!("{} samples with branch stacks", name(cpu)),
                work: Work::Samples(boot.clone().with_instruction_clock()),
            });
        }
        if length == Length::Long {
            groups.push(Group {
                name: format!("{} VM exits, with the watchdog", name(cpu)),
                work: Work::Watchdog(boot.clone().with_instruction_clock()),
            });
        }
        groups.push(Group {
            name: format!("{} mutants of Linux", name(cpu)),
            work: Work::Mutants(mutants::Part::Linux, length, boot.clone()),
        });
        groups.push(Group {
            name: format!("{} mutants", name(cpu)),
            work: Work::Mutants(mutants::Part::Thought, length, boot.clone()),
        });
        groups.push(Group {
            name: format!("{} demo", name(cpu)),
            work: Work::Demo(boot),
        });
    }
    Ok(groups)
}
