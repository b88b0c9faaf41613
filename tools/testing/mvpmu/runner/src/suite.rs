// SPDX-License-Identifier: GPL-2.0

//! `make test`: the table of all test groups.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::attackers;
use crate::attackers::Attacker;
use crate::boot;
use crate::checks;
use crate::demo;
use crate::differential;
use crate::job::Job;
use crate::machine;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::mutants;
use crate::object_code;
use crate::oracle;
use crate::oracle::Oracle;
use crate::paths;
use crate::paths::Kernel;
use crate::results;
use crate::results::Tally;
use crate::schedule;
use crate::tap;
use crate::tap::Case;
use crate::tap::Verdict;

const LOGS: &str = "build/test";

/// A group of tests that are run together.
struct Group {
    name: String,
    work: Work,
}

/// What a group does.
enum Work {
    /// Something without a machine.
    Local(fn(&Path) -> Result<Vec<Case>>),
    /// A job in L1 that leaves TAP files, each named after its test.
    Boot {
        boot: Boot,
        job: Job,
        /// The names of the TAP files there must be.
        tests: Vec<String>,
        limit: Duration,
    },
    /// A job in L1, twice: everything must be the same.
    Twice { boot: Boot, job: Job },
    /// A program that runs in place of a kernel and writes TAP to the console.
    Bare(Boot, PathBuf),
    /// The work-arounds for bugs of the emulator: all is well with them, and without one there is
    /// the bug.
    Quirks(Boot),
    /// The differential test, against this provider.
    Differential(Machine, Provider),
    /// The demo, with this machine.
    Demo(Boot),
    /// The deliberate bugs of the module.
    Mutants(Boot),
}

/// Who moves the PMU state of guests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Provider {
    Mvpmu,
    /// The same, switching at each VM entry and exit.
    Eager,
    C,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Provider::Mvpmu => "mvpmu",
            Provider::Eager => "mvpmu,switch=eager",
            Provider::C => "c",
        }
    }
}

/// Our selftests that are about mvpmu itself: not for KVM's C code.
const ABOUT_MVPMU: [&str; 1] = ["debugfs_test"];

/// How the names of the attackers among our selftests begin.
const ATTACK: &str = "attack_";

/// Our own selftests, what `make kernel` has built with a name that says so: the attackers, or
/// the others.
fn own_selftests(provider: Provider, attackers: bool) -> Result<Vec<String>> {
    let directory = Path::new(paths::SELFTESTS).join("mvpmu");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let about_mvpmu = ABOUT_MVPMU.contains(&name.as_str());
        if name.ends_with("_test")
            && name.starts_with(ATTACK) == attackers
            && !(about_mvpmu && provider == Provider::C)
        {
            names.push(format!("mvpmu/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// KVM's selftests of the list for `machine`: those that share a boot, or those that do not.
fn kvm_selftests(machine: Machine, alone: bool) -> Vec<String> {
    include_str!("../../kernel/kvm-selftests")
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
        name: format!("{} {suite} {}", boot.machine.name(), provider.name()),
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

/// The module must refuse to work on `boot`, and say `reason`.
fn refusal(name: &str, boot: Boot, reason: &str) -> Group {
    Group {
        name: format!("{} refusal: {name}", boot.machine.name()),
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

/// The selftests of what differs between Intel CPUs: which state is switched how, and what of it
/// guests can reach.
const BY_CPU: [&str; 6] = [
    "mvpmu/control_test",
    "mvpmu/count_test",
    "mvpmu/exits_test",
    "mvpmu/host_perf_test",
    "mvpmu/msr_test",
    "mvpmu/pmi_test",
];

/// What the Intel machine is tested for beyond what both are.
fn intel_groups() -> Vec<Group> {
    let with = |options| Boot {
        options,
        ..Boot::new(Machine::Intel)
    };
    let narrow = with(&["--pmu", "v5,no-full-width"]);
    let no_load = with(&["--vmx", "no-load-global-ctrl"]);
    let mut groups = vec![
        refusal("narrow writes", narrow, "cannot be written at full width"),
        refusal("no load", no_load, "cannot load PERF_GLOBAL_CTRL"),
        refusal("hybrid", with(&["--hybrid"]), "mixes core types"),
        Group {
            name: "intel two runs".to_owned(),
            work: Work::Twice {
                boot: Boot::new(Machine::Intel),
                job: Job::new("guest-report"),
            },
        },
    ];
    for (suite, options) in [
        // Skylake and Ice Lake.
        ("selftests, no save", &["--vmx", "no-save-global-ctrl"]),
        ("selftests, PMU v4", &["--pmu", "v4"]),
        // One more than guests get: KVM intercepts what would show it to them.
        ("selftests, 4 fixed", &["--pmu", "v5,fixed=4"]),
    ] {
        let own = BY_CPU.map(str::to_owned).to_vec();
        groups.push(selftests(with(options), suite, Provider::Mvpmu, own));
    }
    groups
}

fn lifecycle(machine: Machine, kernel: Kernel) -> Group {
    let variant = match kernel {
        Kernel::Main => "",
        Kernel::Debug => " (debug kernel)",
    };
    Group {
        name: format!("{} life cycle{variant}", machine.name()),
        work: Work::Boot {
            boot: Boot {
                kernel,
                ..Boot::new(machine)
            },
            job: Job {
                second_provider: Some(machine.foreign_module()),
                ..Job::new("lifecycle")
            },
            tests: vec!["lifecycle".to_owned()],
            limit: Duration::from_secs(300),
        },
    }
}

fn kunit(machine: Machine) -> Group {
    Group {
        name: format!("{} KUnit", machine.name()),
        work: Work::Boot {
            boot: Boot {
                kernel: Kernel::Debug,
                ..Boot::new(machine)
            },
            job: Job::new("kunit"),
            tests: vec!["kunit".to_owned()],
            limit: Duration::from_secs(120),
        },
    }
}

/// The tests of the machine itself, by itself and from L1 without KVM.
fn machine_tests(machine: Machine) -> Vec<Group> {
    let group = |what: &str, work| Group {
        name: format!("{} machine {what}", machine.name()),
        work,
    };
    let mut groups = Vec::new();
    if machine == Machine::Amd {
        // That of the Intel machine is tested by `cargo test`.
        // They are about the PMU, and leave values of their guests there on purpose.
        let boot = Boot {
            oracle: Oracle::Off,
            ..Boot::new(machine)
        };
        let bare = Work::Bare(boot.clone(), paths::tool("bare_test"));
        groups.push(group("without a kernel", bare));
        groups.push(group("quirks", Work::Quirks(boot)));
    }
    for (pmu, name, tests) in [
        (Pmu::On, "on", &MACHINE_TESTS[..]),
        (Pmu::Old, "old", &MACHINE_TESTS[..1]),
        (Pmu::Off, "off", &MACHINE_TESTS[..1]),
    ] {
        let work = Work::Boot {
            boot: Boot {
                pmu,
                ..Boot::new(machine)
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

/// Everything there is, in the order in which it is run.
fn groups(machines: &[Machine]) -> Result<Vec<Group>> {
    let local = |name: &str, work| Group {
        name: name.to_owned(),
        work: Work::Local(work),
    };
    let mut groups = vec![
        local("sources", checks::sources),
        local("series", checks::series),
        local("object code", object_code::test),
        local("cargo test", checks::cargo_test),
    ];
    for &machine in machines {
        let boot = Boot::new(machine);
        groups.extend(machine_tests(machine));
        groups.push(kunit(machine));
        groups.push(lifecycle(machine, Kernel::Main));
        groups.push(lifecycle(machine, Kernel::Debug));
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
        groups.push(refusal("no PMU", without_pmu, "the host has no PMU"));
        groups.push(refusal("old PMU", old_pmu, "is too old"));
        groups.push(refusal("no KVM", without_kvm, "the CPU cannot run KVM"));
        for provider in [Provider::Mvpmu, Provider::Eager, Provider::C] {
            let own = own_selftests(provider, false)?;
            groups.push(selftests(boot.clone(), "selftests", provider, own));
            if provider == Provider::Eager {
                continue;
            }
            let attackers = own_selftests(provider, true)?;
            groups.push(selftests(boot.clone(), "attackers", provider, attackers));
            groups.push(Group {
                name: format!("{} differential {}", machine.name(), provider.name()),
                work: Work::Differential(machine, provider),
            });
            for (alone, suite) in [(true, "KVM selftests alone"), (false, "KVM selftests")] {
                let kvm = kvm_selftests(machine, alone);
                if !kvm.is_empty() {
                    groups.push(selftests(boot.clone(), suite, provider, kvm));
                }
            }
        }
        if machine == Machine::Intel {
            groups.extend(intel_groups());
        }
        groups.push(Group {
            name: format!("{} mutants", machine.name()),
            work: Work::Mutants(boot.clone()),
        });
        groups.push(Group {
            name: format!("{} demo", machine.name()),
            work: Work::Demo(boot),
        });
    }
    Ok(groups)
}

fn bare(boot: &Boot, program: &Path, directory: &Path) -> Result<Vec<Case>> {
    let limit = Duration::from_secs(120);
    Ok(tap::parse(&boot::bare(boot, program, directory, limit)?))
}

/// Runs the tests of the work-arounds with all of them, then without each: its own tests, whose
/// names begin with its name, must not pass then.
fn quirks(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let without = |quirk: &str, program: &str| {
        let boot = Boot {
            without: Some(quirk.to_owned()),
            ..boot.clone()
        };
        bare(&boot, &paths::tool(program), &directory.join(quirk))
    };
    let is_there = |name: &str, passes: bool| {
        Case::new(format!("without it: {name}"), !passes, || {
            "the bug is gone, and so can be what works round it".to_owned()
        })
    };
    let mut cases = bare(boot, &paths::tool("quirks_test"), &directory.join("with"))?;
    let names: Vec<_> = cases.iter().map(|case| case.name.clone()).collect();
    for name in names {
        let quirk = name.split(':').next().unwrap_or_default();
        let passes = without(quirk, "quirks_test")?.contains(&Case::passed(&*name));
        cases.push(is_there(&name, passes));
    }
    // Not so much a wrong result as no result.
    let found = without(machine::ONE_THREAD, "bare_test")?;
    let passes = found.iter().all(|case| case.verdict == Verdict::Passed);
    cases.push(is_there(machine::ONE_THREAD, passes));
    Ok(cases)
}

impl Group {
    fn directory(&self) -> PathBuf {
        let name: String = self
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Path::new(LOGS).join(name)
    }

    /// Has the oracle do this, unless it is off anyway. What it reports shall have names.
    fn set_oracle(&mut self, oracle: Oracle) {
        match &mut self.work {
            Work::Local(_) | Work::Bare(..) | Work::Quirks(_) | Work::Differential(..) => {}
            Work::Demo(boot) | Work::Mutants(boot) => boot.oracle = oracle,
            Work::Boot { boot, .. } | Work::Twice { boot, .. } => {
                boot.oracle = oracle;
                boot.append = format!("{} {}", boot.append, oracle::REPORT_MODULES);
            }
        }
    }

    /// The attackers that it has run.
    fn attackers(&self) -> Vec<Attacker> {
        match &self.work {
            Work::Boot { boot, job, .. } => match &job.arguments[..] {
                [provider, ..] => {
                    attackers::of_run(&self.directory().join("out"), boot.machine, provider)
                }
                [] => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// How many CPUs it keeps busy. Those of a machine take turns, but for moments.
    fn cpus(&self) -> usize {
        match &self.work {
            Work::Local(_) => usize::MAX,
            _ => 1,
        }
    }

    fn run(&self) -> Result<Vec<Case>> {
        let directory = self.directory();
        match &self.work {
            Work::Local(work) => {
                fs::create_dir_all(&directory)?;
                work(&directory)
            }
            Work::Boot {
                boot,
                job,
                tests,
                limit,
            } => {
                let outcome = boot::run(boot, job, &directory, *limit, false)?;
                Ok(results::of_job(&outcome, tests))
            }
            Work::Twice { boot, job } => {
                let limit = Duration::from_secs(120);
                let run = |name| boot::run(boot, job, &directory.join(name), limit, false);
                Ok(results::of_two_runs(&run("first")?, &run("second")?))
            }
            Work::Bare(boot, program) => bare(boot, program, &directory),
            Work::Quirks(boot) => quirks(boot, &directory),
            Work::Mutants(boot) => mutants::run(boot, &directory),
            Work::Differential(machine, provider) => {
                differential::test(*machine, provider.name(), &directory)
            }
            Work::Demo(boot) => {
                let report = demo::run(boot, &directory, false)?;
                let problems = demo::problems(&report).join("\n");
                let name = "the numbers of the report are as expected";
                Ok(vec![Case::new(name, problems.is_empty(), || problems)])
            }
        }
    }
}

/// Runs all groups whose name contains `filter`. Whether all passed.
pub fn run(machines: &[Machine], filter: &str, oracle: Oracle) -> Result<bool> {
    let mut total = Tally::default();
    let mut groups = groups(machines)?;
    groups.retain(|group| group.name.contains(filter));
    for group in &mut groups {
        group.set_oracle(oracle);
    }
    ensure!(!groups.is_empty(), "no group of tests is named '{filter}'");
    fs::create_dir_all(LOGS)?;
    // No result of an earlier run may look like one of this.
    let _ = fs::remove_file(Path::new(LOGS).join("summary"));
    let _ = fs::remove_file(mutants::TABLE);
    println!("{:36} passed failed skipped  time", "");
    let mut written = Ok(());
    schedule::run(
        &groups,
        thread::available_parallelism().map_or(1, usize::from),
        Group::cpus,
        |group| {
            let begin = Instant::now();
            let cases = group
                .run()
                .unwrap_or_else(|error| vec![Case::failed("it can be run", format!("{error:#}"))]);
            (cases, begin.elapsed())
        },
        |group, (cases, time)| {
            let mut tally = Tally::default();
            for case in &cases {
                tally.add(case);
                total.add(case);
            }
            println!(
                "{:36} {:6} {:6} {:7} {:3} s",
                group.name,
                tally.passed,
                tally.failed,
                tally.skipped,
                time.as_secs()
            );
            if let Err(error) = show(&cases, group) {
                written = Err(error);
            }
        },
    );
    written?;
    mutants::show()?;
    let attackers: Vec<_> = groups.iter().flat_map(Group::attackers).collect();
    attackers::write(&attackers, &Path::new(LOGS).join("attackers.json"))?;
    let summary = format!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    fs::write(Path::new(LOGS).join("summary"), format!("{summary}\n"))?;
    println!("{summary}");
    Ok(total.failed == 0)
}

/// Shows what did not pass, and writes all results to the group's log.
fn show(cases: &[Case], group: &Group) -> Result<()> {
    let mut log = String::new();
    for case in cases {
        let (line, more) = match &case.verdict {
            Verdict::Passed => (format!("passed   {}", case.name), ""),
            Verdict::Failed(why) => (format!("FAILED   {}", case.name), why.as_str()),
            Verdict::Skipped(why) => (format!("skipped  {}", case.name), why.as_str()),
        };
        let mut text = format!("{line}\n");
        for line in more.lines() {
            text.push_str(&format!("         {line}\n"));
        }
        if case.verdict != Verdict::Passed {
            let short: Vec<_> = text.lines().take(8).collect();
            println!("  {}", short.join("\n  "));
        }
        log.push_str(&text);
    }
    let path = group.directory().join("results");
    if cases
        .iter()
        .any(|case| matches!(case.verdict, Verdict::Failed(_)))
    {
        println!("  all of it: {}", path.display());
    }
    fs::create_dir_all(group.directory())?;
    fs::write(&path, log).with_context(|| path.display().to_string())
}
