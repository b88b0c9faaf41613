// SPDX-License-Identifier: GPL-2.0

//! A group of tests, and how it is run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::selftests::PATIENT;
use super::LOGS;
use crate::attackers;
use crate::attackers::Attacker;
use crate::bench;
use crate::boot;
use crate::calls;
use crate::carried;
use crate::controls;
use crate::demo;
use crate::differential;
use crate::every;
use crate::given;
use crate::installed;
use crate::job::Job;
use crate::machine;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::mutants;
use crate::oracle;
use crate::oracle::Oracle;
use crate::paths;
use crate::results;
use crate::sampling;
use crate::sweep::Sweep;
use crate::tap;
use crate::tap::Case;
use crate::traces;

/// A group of tests that are run together.
pub struct Group {
    pub name: String,
    pub work: Work,
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// What CI has time for.
    Usual,
    /// All of it.
    Long,
}

/// What a group does.
pub enum Work {
    /// Something without a machine, on so many CPUs.
    Local(usize, fn(&Path) -> Result<Vec<Case>>),
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
    /// The differential test, against this provider, with this many programs.
    Differential(Cpu, Provider, u64),
    /// Random calls, with mvpmu and these parameters of the module or with KVM's C code, so many
    /// programs.
    Calls(Cpu, &'static str, u64),
    /// Whether they find this bug of the module.
    CallsFind(Cpu, &'static str),
    /// The demo, with this machine.
    Demo(Boot),
    /// Deliberate bugs of the module.
    Mutants(mutants::Part, Length, Boot),
    /// Whether each attacker finds something when there is something.
    Controls(Boot),
    /// What a VM exit may cost.
    Figures(Boot),
    /// What perf's NMI watchdog may cost.
    Watchdog(Boot),
    /// What samples with branch stacks may cost.
    Samples(Boot),
    /// Kernels and root file systems that are not ours, with this machine.
    Given(Boot),
    /// Our packages, installed in a Debian that boots on this machine.
    Installed(Boot),
    /// Every selftest of KVM, with mvpmu as with KVM's C code.
    Every(Boot),
    /// Guests that are saved on one machine and restored on another one.
    Carried { from: Boot, to: Boot },
    /// What Intel PT traces, in L1.
    Traces(Boot),
    /// What it traces in a Linux guest.
    GuestTraces(Boot),
    /// What it traces of the kernel of L1.
    KernelTraces(Boot),
    /// A sweep.
    Sweep(Sweep),
}

/// Who moves the PMU state of guests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    Mvpmu,
    /// The same, switching at each VM entry and exit.
    Eager,
    C,
}

impl Provider {
    pub fn name(self) -> &'static str {
        match self {
            Provider::Mvpmu => "mvpmu",
            Provider::Eager => "mvpmu,switch=eager",
            Provider::C => "c",
        }
    }
}

fn bare(boot: &Boot, program: &Path, directory: &Path) -> Result<Vec<Case>> {
    let limit = Duration::from_secs(120);
    Ok(tap::parse(&boot::bare(boot, program, directory, limit)?))
}

/// Runs the tests of the work-arounds with all of them, then without each: exactly its own tests,
/// whose names begin with its name, must fail then.
fn quirks(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let without = |quirk: &str, program: &str| {
        let boot = Boot {
            without: Some(quirk.to_owned()),
            ..boot.clone()
        };
        bare(&boot, &paths::tool(program), &directory.join(quirk))
    };
    let is_there = |quirk: &str, expected: &[&str], found: &[Case]| {
        let found = tap::failures(found);
        Case::new(format!("without {quirk}"), found == expected, || {
            format!("{expected:?} should fail, {found:?} did: is the bug gone?")
        })
    };
    let mut cases = bare(boot, &paths::tool("quirks_test"), &directory.join("with"))?;
    let names: Vec<_> = cases.iter().map(|case| case.name.clone()).collect();
    let quirk = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    let mut quirks: Vec<_> = names.iter().map(|name| quirk(name)).collect();
    quirks.dedup();
    for quirk in quirks {
        let prefix = format!("{quirk}: ");
        let own: Vec<_> = names
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with(&prefix))
            .collect();
        let found = without(&quirk, "quirks_test")?;
        cases.push(is_there(&quirk, &own, &found));
    }
    // Not so much a wrong result as no result.
    let found = without(machine::ONE_THREAD, "bare_test")?;
    cases.push(is_there(machine::ONE_THREAD, &[tap::NO_PLAN], &found));
    Ok(cases)
}

/// What the oracle reports of a run shall have names.
fn report_with_names(boot: &mut Boot, oracle: Oracle) {
    boot.oracle = oracle;
    boot.append = format!("{} {}", boot.append, oracle::REPORT_MODULES);
}

impl Group {
    pub fn directory(&self) -> PathBuf {
        let name: String = self
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Path::new(LOGS).join(name)
    }

    /// Has the oracle do this, unless it is off anyway. What it reports shall have names.
    pub fn set_oracle(&mut self, oracle: Oracle) {
        match &mut self.work {
            Work::Local(..)
            | Work::Bare(..)
            | Work::Quirks(_)
            | Work::Differential(..)
            | Work::Calls(..)
            | Work::CallsFind(..)
            | Work::Given(_)
            | Work::Installed(_)
            | Work::Controls(_)
            | Work::Every(_)
            | Work::Sweep(_) => {}
            Work::Demo(boot)
            | Work::Mutants(_, _, boot)
            | Work::Figures(boot)
            | Work::Samples(boot)
            | Work::Traces(boot)
            | Work::GuestTraces(boot)
            | Work::KernelTraces(boot)
            | Work::Watchdog(boot) => {
                boot.oracle = oracle;
            }
            Work::Boot { boot, .. } if boot.oracle == Oracle::Off => {}
            Work::Boot { boot, .. } | Work::Twice { boot, .. } => {
                report_with_names(boot, oracle);
            }
            Work::Carried { from, to } => {
                report_with_names(from, oracle);
                report_with_names(to, oracle);
            }
        }
    }

    /// The attackers that it has run.
    pub fn attackers(&self) -> Vec<Attacker> {
        match &self.work {
            Work::Boot { boot, job, .. } => {
                let mut words = job.arguments.iter().filter(|word| *word != PATIENT);
                words.next().map_or_else(Vec::new, |provider| {
                    attackers::of_run(&self.directory().join("out"), boot.machine, provider)
                })
            }
            _ => Vec::new(),
        }
    }

    /// How many CPUs it keeps busy. Those of a machine take turns, but for moments.
    pub fn cpus(&self) -> usize {
        match &self.work {
            Work::Local(cpus, _) => *cpus,
            _ => 1,
        }
    }

    pub fn run(&self) -> Result<Vec<Case>> {
        let directory = self.directory();
        match &self.work {
            Work::Local(_, work) => {
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
                let mut cases = results::of_job(&outcome, tests);
                if matches!(
                    &job.script[..],
                    "selftests" | "linux-guests" | "hypervisors"
                ) {
                    cases.extend(results::of_guests(&outcome));
                }
                // What a guest leaves is in a directory of its own.
                for (guest, _) in tests.iter().filter_map(|test| test.split_once('/')) {
                    cases.push(results::of_guest_log(&outcome, guest));
                }
                // The tests of the machine write what it has to refuse.
                if job.script != "machine" {
                    cases.extend(results::of_refusals(&outcome));
                }
                Ok(cases)
            }
            Work::Twice { boot, job } => {
                let limit = Duration::from_secs(120);
                let run = |name| boot::run(boot, job, &directory.join(name), limit, false);
                Ok(results::of_two_runs(&run("first")?, &run("second")?))
            }
            Work::Bare(boot, program) => bare(boot, program, &directory),
            Work::Quirks(boot) => quirks(boot, &directory),
            Work::Mutants(part, length, boot) => mutants::run(*part, *length, boot, &directory),
            Work::Controls(boot) => controls::run(boot, &directory),
            Work::Figures(boot) => bench::test(boot, &directory),
            Work::Watchdog(boot) => bench::test_watchdog(boot, &directory),
            Work::Samples(boot) => sampling::branches::test(boot, &directory),
            Work::Given(boot) => {
                fs::create_dir_all(&directory)?;
                given::test(boot, &directory)
            }
            Work::Installed(boot) => installed::test(boot, &directory),
            Work::Carried { from, to } => carried::test(from, to, &directory),
            Work::Traces(boot) => traces::test(boot, &directory),
            Work::GuestTraces(boot) => traces::test_in_guest(boot, &directory),
            Work::KernelTraces(boot) => traces::test_of_kernel(boot, &directory),
            Work::Every(boot) => every::test(boot, &directory),
            Work::Sweep(sweep) => sweep.run(&directory),
            Work::Differential(cpu, provider, programs) => {
                differential::test(cpu, provider.name(), *programs, &directory)
            }
            Work::Calls(cpu, provider, programs) => {
                calls::test(cpu, provider, *programs, &directory)
            }
            Work::CallsFind(cpu, mutant) => calls::test_finds(cpu, mutant, &directory),
            Work::Demo(boot) => {
                let report = demo::run(boot, &directory, false)?;
                let problems = demo::problems(&report).join("\n");
                let name = "the numbers of the report are as expected";
                Ok(vec![Case::new(name, problems.is_empty(), || problems)])
            }
        }
    }
}
