// SPDX-License-Identifier: GPL-2.0

//! What a report holds. As JSON it is one object of this form.
//!
//! It says nothing of a person or of one copy of a machine: no serial number, address, name or identifier.

use mvpmu_host::module::Capability;
use serde::Deserialize;
use serde::Serialize;

use crate::spread::Spread;

/// What the object calls itself.
pub const NAME: &str = "mvpmu-report";

/// Goes up with each change that a program which reads it has to know.
pub const VERSION: u32 = 1;

/// A report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`NAME`].
    pub schema: String,
    /// [`VERSION`].
    pub version: u32,
    /// All of it in a line.
    pub verdict: Verdict,
    /// What was booted.
    pub software: Software,
    /// The CPU.
    pub cpu: Cpu,
    /// What the module says of the PMU, if it could be asked.
    pub pmu: Option<Capability>,
    /// What mvpmu-check says of the machine.
    pub findings: Vec<Finding>,
    /// What was done, in its order.
    pub steps: Vec<Step>,
    /// What a guest has counted, and what is right.
    pub counts: Vec<Count>,
    /// How far counts of the same code are from what is right.
    pub deviations: Vec<Deviation>,
    /// What VM exits cost.
    pub exits: Vec<ExitCost>,
    /// What the kernel had to say of KVM, perf and the module, and its warnings.
    pub log: Vec<String>,
}

/// How the run ended.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Something was off.
    Failed,
    /// This machine cannot do it.
    Unable,
    /// It had not ended when this was written: the machine has stopped, or was stopped.
    Unfinished,
}

impl Outcome {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "PASSED",
            Outcome::Failed => "FAILED",
            Outcome::Unable => "UNABLE",
            Outcome::Unfinished => "UNFINISHED",
        }
    }
}

/// The verdict.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// How the run ended.
    pub outcome: Outcome,
    /// Why.
    pub text: String,
}

/// What was booted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// The version of the image's programs.
    pub mvpmu: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether the kernel works round bugs of CPUs that leak data, which VM exits have to pay for.
    pub mitigations: bool,
}

/// The CPU.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// AuthenticAMD, GenuineIntel or another one.
    pub vendor: String,
    /// By CPUID.
    pub family: u32,
    /// By CPUID.
    pub model: u32,
    /// By CPUID.
    pub stepping: u32,
    /// How it is sold.
    pub name: String,
    /// The revision of its microcode.
    pub microcode: String,
    /// How many of them the kernel uses.
    pub cpus: u32,
    /// Of the time stamp counter.
    pub tsc_khz: Option<u64>,
    /// What the hypervisor below calls itself, if there is one.
    pub hypervisor: Option<String>,
    /// Whether it is one of the test machines, which have instructions for time.
    pub emulated: bool,
}

/// What was found, as mvpmu-check says it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub about: String,
    /// ok, advice, todo or never.
    pub severity: String,
    /// What was found.
    pub text: String,
}

/// Who moves the PMU state of guests.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Nobody: guests have no PMU.
    Off,
    /// KVM's own C code.
    C,
    /// The module.
    Mvpmu,
}

impl Provider {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Off => "no PMU",
            Provider::C => "C",
            Provider::Mvpmu => "mvpmu",
        }
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// All of it was right.
    Passed,
    /// Something was not.
    Failed,
    /// It had nothing to do here.
    Skipped,
    /// It took too long, and was ended.
    Killed,
}

impl StepOutcome {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            StepOutcome::Passed => "passed",
            StepOutcome::Failed => "FAILED",
            StepOutcome::Skipped => "skipped",
            StepOutcome::Killed => "KILLED",
        }
    }
}

/// A step: a program that was run.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it looks at.
    pub name: String,
    /// With whom.
    pub provider: Provider,
    /// What became of it.
    pub outcome: StepOutcome,
    /// How long it took.
    pub milliseconds: u64,
    /// How many of its tests have passed.
    pub passed: u32,
    /// Those that have failed.
    pub failed: Vec<Remark>,
    /// Those that could not be run.
    pub skipped: Vec<Remark>,
}

/// A test that has not passed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Remark {
    /// Its name.
    pub test: String,
    /// What it said.
    pub lines: Vec<String>,
}

/// What a guest has counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// By whose help.
    pub provider: Provider,
    /// What was counted.
    pub what: String,
    /// What is right.
    pub expected: u64,
    /// What the counter said.
    pub counted: u64,
}

/// Counts of the same code, over and over.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// What the code does.
    pub code: String,
    /// What was counted.
    pub event: String,
    /// What is right.
    pub expected: u64,
    /// Differences from that, the smallest first.
    pub differences: Vec<Difference>,
}

/// A difference between what was counted and what is right.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Above 0: too many.
    pub by: i64,
    /// How often.
    pub times: u64,
}

impl Deviation {
    /// How often it was counted.
    pub fn repetitions(&self) -> u64 {
        self.differences.iter().map(|d| d.times).sum()
    }

    /// How often that was not right.
    pub fn wrong(&self) -> u64 {
        let wrong = self.differences.iter().filter(|d| d.by != 0);
        wrong.map(|d| d.times).sum()
    }
}

/// What a VM exit costs, there and back, with what the host does for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExitCost {
    /// Why the guest exits.
    pub scenario: String,
    /// Who moves its PMU state.
    pub provider: Provider,
    /// How many counters it has enabled.
    pub counters: u32,
    /// Cycles of the time stamp counter.
    pub cycles: Spread,
}
