// SPDX-License-Identifier: GPL-2.0

//! `make test`: the table of all test groups, and their results.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::boot;
use crate::boot::Outcome;
use crate::checks;
use crate::demo;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::paths;
use crate::paths::Kernel;
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
    /// A program that runs in place of a kernel and writes TAP to the console.
    Bare(Boot, PathBuf),
    /// The demo, with this machine.
    Demo(Boot),
}

/// Who moves the PMU state of guests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Provider {
    Mvpmu,
    C,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Provider::Mvpmu => "mvpmu",
            Provider::C => "c",
        }
    }
}

/// Our selftests that are about mvpmu itself: not for KVM's C code.
const ABOUT_MVPMU: [&str; 1] = ["debugfs_test"];

/// Our own selftests: what `make kernel` has built with a name that says so.
fn own_selftests(provider: Provider) -> Result<Vec<String>> {
    let directory = Path::new(paths::SELFTESTS).join("mvpmu");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let about_mvpmu = ABOUT_MVPMU.contains(&name.as_str());
        if name.ends_with("_test") && !(about_mvpmu && provider == Provider::C) {
            names.push(format!("mvpmu/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

/// KVM's selftests of the list for `machine`.
fn kvm_selftests(machine: Machine) -> Vec<String> {
    include_str!("../../kernel/kvm-selftests")
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let name = words.next()?.rsplit('/').next()?;
            let here = words.any(|word| word == machine.name());
            here.then(|| format!("kvm/{name}"))
        })
        .collect()
}

/// The first one looks at the registers, the others count.
const MACHINE_TESTS: [&str; 3] = ["register_test", "exact_test", "sampling_test"];

fn selftests(machine: Machine, suite: &str, provider: Provider, tests: Vec<String>) -> Group {
    let mut arguments = vec![provider.name().to_owned()];
    arguments.extend(tests.iter().cloned());
    let base = |test: &String| test.rsplit('/').next().unwrap_or(test).to_owned();
    Group {
        name: format!("{} {suite} {}", machine.name(), provider.name()),
        work: Work::Boot {
            boot: Boot::new(machine),
            job: Job {
                arguments,
                ..Job::new("selftests")
            },
            tests: tests.iter().map(base).collect(),
            limit: Duration::from_secs(600),
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
                second_provider: true,
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
    if machine != Machine::Amd {
        return Vec::new();
    }
    let group = |what: &str, work| Group {
        name: format!("{} machine {what}", machine.name()),
        work,
    };
    let bare = Work::Bare(Boot::new(machine), paths::tool("bare_test"));
    let mut groups = vec![group("without a kernel", bare)];
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
        for provider in [Provider::Mvpmu, Provider::C] {
            let own = own_selftests(provider)?;
            groups.push(selftests(machine, "selftests", provider, own));
            let kvm = kvm_selftests(machine);
            groups.push(selftests(machine, "KVM selftests", provider, kvm));
        }
        groups.push(Group {
            name: format!("{} demo", machine.name()),
            work: Work::Demo(boot),
        });
    }
    Ok(groups)
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
                Ok(results(&outcome, tests))
            }
            Work::Bare(boot, program) => {
                let limit = Duration::from_secs(120);
                Ok(tap::parse(&boot::bare(boot, program, &directory, limit)?))
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

/// The results in the files that a job has left; what is missing has failed.
fn results(outcome: &Outcome, tests: &[String]) -> Vec<Case> {
    let mut cases = Vec::new();
    for test in tests {
        let text = outcome.read(&format!("{test}.tap"));
        let status = outcome.read(&format!("{test}.status")).ok();
        let status = status.as_deref().map(str::trim);
        let mut found = match text {
            Err(_) => {
                let why = outcome.problem().unwrap_or("no output".to_owned());
                vec![Case::failed("it ran", why)]
            }
            Ok(text) if tap::is_tap(&text) => tap::parse(&text),
            Ok(text) => vec![without_tap(&text, status)],
        };
        let failed = |case: &Case| matches!(case.verdict, Verdict::Failed(_));
        if !matches!(status, None | Some("0" | "4")) && !found.iter().any(failed) {
            let why = format!("exit status {}", status.unwrap_or_default());
            found.push(Case::failed("it ends with success", why));
        }
        for case in found {
            cases.push(Case {
                name: format!("{test}: {}", case.name),
                verdict: case.verdict,
            });
        }
    }
    let failed = |case: &Case| matches!(case.verdict, Verdict::Failed(_));
    if let Some(problem) = outcome.problem() {
        if !cases.iter().any(failed) {
            cases.push(Case::failed("the job ends with success", problem));
        }
    }
    cases
}

/// A test that knows nothing of TAP has one result.
fn without_tap(text: &str, status: Option<&str>) -> Case {
    let name = "it passes";
    match status {
        Some("0") => Case::passed(name),
        Some("4") => Case {
            name: name.to_owned(),
            verdict: Verdict::Skipped(text.trim().to_owned()),
        },
        status => {
            let status = status.unwrap_or("unknown");
            Case::failed(name, format!("exit status {status}\n{}", text.trim()))
        }
    }
}

/// Numbers of verdicts.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn add(&mut self, case: &Case) {
        match case.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
    }
}

/// Runs all groups whose name contains `filter`. Whether all passed.
pub fn run(machines: &[Machine], filter: &str) -> Result<bool> {
    let mut total = Tally::default();
    let mut groups = groups(machines)?;
    groups.retain(|group| group.name.contains(filter));
    ensure!(!groups.is_empty(), "no group of tests is named '{filter}'");
    fs::create_dir_all(LOGS)?;
    // No result of an earlier run may look like one of this.
    let _ = fs::remove_file(Path::new(LOGS).join("summary"));
    println!("{:36} passed failed skipped  time", "");
    for group in groups {
        let begin = Instant::now();
        let cases = group
            .run()
            .unwrap_or_else(|error| vec![Case::failed("it can be run", format!("{error:#}"))]);
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
            begin.elapsed().as_secs()
        );
        show(&cases, &group)?;
    }
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
