// SPDX-License-Identifier: GPL-2.0

//! The table of all test groups.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use pmu_model::profile;

use super::group::Group;
use super::group::Length;
use super::group::Provider;
use super::group::Work;
use crate::checks;
use crate::differential;
use crate::job::Job;
use crate::machine::name;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::object_code;
use crate::oracle::Oracle;
use crate::paths;
use crate::paths::Kernel;
use crate::sweep::Company;

/// Our selftests that are about mvpmu itself: not for KVM's C code.
const ABOUT_MVPMU: [&str; 2] = ["debugfs_test", "topdown_test"];

/// A selftest for a kernel whose lockup detector is perf's: the debug kernel.
const NEEDS_NMI_WATCHDOG: &str = "watchdog_test";

/// The selftest of slots and PERF_METRICS: not for KVM's C code, which gives guests neither.
const OF_METRICS: &str = "mvpmu/topdown_test";

/// Whether the CPU has what the selftest is about.
fn can_run(test: &str, cpu: Cpu) -> bool {
    let has_metrics = match cpu.pmu {
        profile::Pmu::Intel { config, .. } => config.metrics > 0,
        profile::Pmu::Amd(_) => false,
    };
    test != OF_METRICS || has_metrics
}

/// How the names of the attackers among our selftests begin.
const ATTACK: &str = "attack_";

/// Our own selftests, what `make kernel` has built with a name that says so: the attackers, or
/// the others.
fn own_selftests(cpu: Cpu, provider: Provider, attackers: bool) -> Result<Vec<String>> {
    let directory = Path::new(paths::SELFTESTS).join("mvpmu");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let about_mvpmu = ABOUT_MVPMU.contains(&name.as_str());
        if name.ends_with("_test")
            && name.starts_with(ATTACK) == attackers
            && !(about_mvpmu && provider == Provider::C)
            && name != NEEDS_NMI_WATCHDOG
            && can_run(&format!("mvpmu/{name}"), cpu)
        {
            names.push(format!("mvpmu/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// KVM's selftests of the list for `machine`: those that share a boot, or those that do not.
fn kvm_selftests(machine: Machine, alone: bool) -> Vec<String> {
    include_str!("../../../kernel/kvm-selftests")
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let name = words.next()?.rsplit('/').next()?;
            let words: Vec<_> = words.collect();
            let here = words.contains(&machine.name()) && words.contains(&"alone") == alone;
            here.then(|| format!("kvm/{name}"))
        })
        .collect()
}

/// The first one looks at the registers, the others count.
const MACHINE_TESTS: [&str; 3] = ["register_test", "exact_test", "sampling_test"];

fn selftests(boot: Boot, suite: &str, provider: Provider, tests: Vec<String>) -> Group {
    let mut arguments = vec![provider.name().to_owned()];
    arguments.extend(tests.iter().cloned());
    let base = |test: &String| test.rsplit('/').next().unwrap_or(test).to_owned();
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
fn with_watchdog(cpu: Cpu) -> Group {
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

/// Events of the host that count in guests, where whoever comes first has the PMU.
fn with_shared_events(cpu: Cpu) -> Group {
    let tests = vec!["mvpmu/host_events_test".to_owned()];
    let boot = Boot::of_cpu(cpu);
    let mut group = selftests(boot, "selftests with shared events", Provider::Mvpmu, tests);
    if let Work::Boot { job, .. } = &mut group.work {
        job.arguments[0].push_str(",host_events=share");
    }
    group
}

/// The module must refuse to work on `boot`, and say `reason`.
fn refusal(name: &str, boot: Boot, reason: &str) -> Group {
    Group {
        name: format!("{} refusal: {name}", boot.name()),
        work: Work::Boot {
            boot,
            job: Job {
                arguments: vec![reason.to_owned()],
                ..Job::new("refusal")
            },
            tests: vec!["refusal".to_owned()],
            limit: Duration::from_secs(60),
        },
    }
}

/// The tools for hosts; on a machine that cannot do it, with the reason.
fn host_tools(name: &str, boot: Boot, reason: Option<&str>) -> Group {
    Group {
        name: format!("{} host tools{name}", boot.machine.name()),
        work: Work::Boot {
            boot,
            job: Job {
                arguments: reason.into_iter().map(str::to_owned).collect(),
                host_tools: true,
                ..Job::new("host-tools")
            },
            tests: vec!["host-tools".to_owned()],
            limit: Duration::from_secs(1200),
        },
    }
}

/// The selftests of what differs between CPUs: which state is switched how, and what of it guests can
/// reach.
const BY_CPU: [&str; 7] = [
    "mvpmu/control_test",
    "mvpmu/count_test",
    "mvpmu/exits_test",
    "mvpmu/host_perf_test",
    "mvpmu/msr_test",
    "mvpmu/pmi_test",
    OF_METRICS,
];

/// Machines whose PMIs come late, and one whose firmware has left something in each register of the
/// PMU.
fn model_groups(cpu: Cpu) -> Vec<Group> {
    let group = |model: &str, tests: &[&str]| {
        let boot = Boot {
            model: vec![model.to_owned()],
            ..Boot::of_cpu(cpu)
        };
        let own = tests.iter().map(|test| format!("mvpmu/{test}")).collect();
        selftests(boot, &format!("selftests, {model}"), Provider::Mvpmu, own)
    };
    // The PMIs of a guest, and those of an event of the host beside one.
    let tests = ["pmi_test", "attack_perf_test"];
    let late = |delay: u32| group(&format!("pmi-delay={delay}"), &tests);
    let mut groups = Vec::from([1, 20, 200].map(late));
    groups.push(group(
        "power-on=random:1",
        &["count_test", "host_perf_test"],
    ));
    groups
}

/// What is tested on the CPUs that a machine is not else.
fn cpu_groups(machine: Machine) -> Vec<Group> {
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

/// What the AMD machine is tested for beyond what both are: more CPUs.
fn amd_groups(cpu: Cpu) -> Vec<Group> {
    let four = Boot {
        cpus: 4,
        ..Boot::of_cpu(cpu)
    };
    let tests = ["cpu_test", "host_perf_test"].map(|name| format!("mvpmu/{name}"));
    vec![selftests(
        four,
        "selftests, 4 CPUs",
        Provider::Mvpmu,
        tests.to_vec(),
    )]
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
        Group {
            name: format!("{} two runs", name(cpu)),
            work: Work::Twice {
                boot: Boot::of_cpu(cpu),
                job: Job::new("guest-report"),
            },
        },
    ];
    if cpu == Machine::Intel.cpu() {
        for company in Company::ALL {
            groups.push(Group {
                name: format!("intel sweep, {}", company.name()),
                work: Work::Sweep(company, length),
            });
        }
    }
    groups
}

fn lifecycle(cpu: Cpu, kernel: Kernel) -> Group {
    let variant = match kernel {
        Kernel::Main => "",
        Kernel::Debug => " (debug kernel)",
    };
    Group {
        name: format!("{} life cycle{variant}", name(cpu)),
        work: Work::Boot {
            boot: Boot {
                kernel,
                ..Boot::of_cpu(cpu)
            },
            job: Job {
                second_provider: Some(Machine::of(cpu).foreign_module()),
                ..Job::new("lifecycle")
            },
            tests: vec!["lifecycle".to_owned()],
            limit: Duration::from_secs(300),
        },
    }
}

fn kunit(cpu: Cpu) -> Group {
    Group {
        name: format!("{} KUnit", name(cpu)),
        work: Work::Boot {
            boot: Boot {
                kernel: Kernel::Debug,
                ..Boot::of_cpu(cpu)
            },
            job: Job::new("kunit"),
            tests: vec!["kunit".to_owned()],
            limit: Duration::from_secs(400),
        },
    }
}

/// The tests of the machine itself, by itself and from L1 without KVM.
fn machine_tests(cpu: Cpu) -> Vec<Group> {
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
        let bare = Work::Bare(boot.clone(), paths::tool("bare_test"));
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
        let noting = Boot {
            oracle: Oracle::Note,
            ..boot
        };
        let oracle = Work::Bare(noting, paths::tool("oracle_test"));
        groups.push(group("oracle", oracle));
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

fn differential(cpu: Cpu, provider: Provider, programs: u64) -> Group {
    Group {
        name: format!("{} differential {}", name(cpu), provider.name()),
        work: Work::Differential(cpu, provider, programs),
    }
}

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
        Machine::Intel => differential(cpu, Provider::Eager, differential::PROGRAMS / 4),
    }
}

/// What only the long run does: all selftests on such machines.
fn long_groups(cpu: Cpu) -> Result<Vec<Group>> {
    let models = ["pmi-delay=1", "pmi-delay=20", "pmi-delay=200"]
        .into_iter()
        .chain(["power-on=random:1", "power-on=random:2"]);
    models
        .map(|model| {
            let boot = Boot {
                model: vec![model.to_owned()],
                ..Boot::of_cpu(cpu)
            };
            let own = own_selftests(cpu, Provider::Mvpmu, false)?;
            let suite = format!("selftests mvpmu, {model}");
            Ok(selftests(boot, &suite, Provider::Mvpmu, own))
        })
        .collect()
}

/// Everything there is, in the order in which it is run.
pub fn groups(cpus: &[Cpu], length: Length) -> Result<Vec<Group>> {
    let local = |name: &str, work| Group {
        name: name.to_owned(),
        work: Work::Local(work),
    };
    let mut groups = vec![
        local("sources", checks::sources),
        local("series", checks::series),
        local("apply", checks::apply),
        local("options", checks::options),
        local("deb packages", checks::packages),
        local("object code", object_code::test),
        local("cargo test", checks::cargo_test),
    ];
    for &cpu in cpus {
        let machine = Machine::of(cpu);
        let boot = Boot::of_cpu(cpu);
        groups.extend(machine_tests(cpu));
        groups.push(Group {
            name: format!("{} given kernel", name(cpu)),
            work: Work::Given(boot.clone()),
        });
        groups.push(kunit(cpu));
        groups.push(lifecycle(cpu, Kernel::Main));
        groups.push(lifecycle(cpu, Kernel::Debug));
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
            let own = own_selftests(cpu, provider, false)?;
            groups.push(selftests(boot.clone(), "selftests", provider, own));
            if provider == Provider::Eager {
                groups.push(eager_shorter(cpu));
                continue;
            }
            let attackers = own_selftests(cpu, provider, true)?;
            groups.push(selftests(boot.clone(), "attackers", provider, attackers));
            groups.push(differential(cpu, provider, differential::PROGRAMS));
            for (alone, suite) in [(true, "KVM selftests alone"), (false, "KVM selftests")] {
                let kvm = kvm_selftests(machine, alone);
                let wanted = !alone || provider == Provider::Mvpmu || length == Length::Long;
                if wanted && !kvm.is_empty() {
                    groups.push(selftests(boot.clone(), suite, provider, kvm));
                }
            }
        }
        groups.push(with_watchdog(cpu));
        groups.extend(model_groups(cpu));
        groups.push(with_shared_events(cpu));
        groups.extend(match machine {
            Machine::Amd => amd_groups(cpu),
            Machine::Intel => intel_groups(cpu, length),
        });
        if cpu == machine.cpu() {
            groups.extend(cpu_groups(machine));
        }
        if length == Length::Long {
            groups.extend(long_groups(cpu)?);
        }
        groups.push(Group {
            name: format!("{} mutants", name(cpu)),
            work: Work::Mutants(boot.clone()),
        });
        groups.push(Group {
            name: format!("{} VM exits", name(cpu)),
            work: Work::Figures(boot.clone().with_instruction_clock()),
        });
        groups.push(Group {
            name: format!("{} demo", name(cpu)),
            work: Work::Demo(boot),
        });
    }
    Ok(groups)
}
