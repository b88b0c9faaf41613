// SPDX-License-Identifier: GPL-2.0

//! The sweep: a machine injects an event at each instruction of the kernel in a run of a guest that
//! counts, and each time the run must show the same in the end. The Intel machine copies itself for
//! it (bochs-vmm/src/sweep.rs), on the AMD machine the run is repeated (qemu-pmu/src/sweep.rs,
//! selftests/mvpmu/sweep.c).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::boot;
use crate::job::Job;
use crate::kernel_log;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::oracle;
use crate::tap::Case;

/// The events.
pub const KINDS: &str = "nmi,pmi,timer,byte";
/// A prime: what repeats in the run is met at other places each time.
pub const SAMPLE: u64 = 509;

/// What else there is in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Company {
    /// Nothing
    Alone,
    /// An event of the host's, for the thread of the vCPU
    Event,
    /// A real-time task that waits for a byte, and then counts the CPU
    Waiter,
    /// Both
    Both,
}

impl Company {
    /// All of them.
    pub const ALL: [Company; 4] = [
        Company::Alone,
        Company::Event,
        Company::Waiter,
        Company::Both,
    ];

    /// The arguments of the program.
    fn words(self) -> &'static [&'static str] {
        match self {
            Company::Alone => &[],
            Company::Event => &["event"],
            Company::Waiter => &["waiter"],
            Company::Both => &["event", "waiter"],
        }
    }

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Company::Alone => "alone",
            Company::Event => "event",
            Company::Waiter => "waiter",
            Company::Both => "both",
        }
    }
}

/// What has the PMU switched, and counts what is emulated: all of the module, and what others do for
/// it. See `in` in selftests/mvpmu/sweep.c.
const SWITCH: [&str; 6] = [
    "[mvpmu]",
    "perf_load_guest_pmu",
    "perf_put_guest_pmu",
    "kvm_pmu_instruction_retired",
    "kvm_mediated_pmu_update",
    "kvm_mediated_pmu_msr_access",
];
/// What counts an instruction that KVM emulates.
const INCREMENT: [&str; 1] = ["kvm_pmu_instruction_retired"];

/// One sweep.
#[derive(Clone)]
pub struct Sweep {
    pub machine: Machine,
    pub provider: String,
    pub company: Company,
    pub kinds: String,
    /// Only in these functions; none: everywhere, which the AMD machine cannot.
    pub places: Vec<String>,
    /// Only after every so many-th instruction.
    pub every: u64,
    /// Only the first so many times that an instruction is executed.
    pub times: Option<u64>,
    pub limit: Duration,
}

impl Sweep {
    /// All instructions.
    pub fn whole(company: Company) -> Self {
        Sweep {
            machine: Machine::Intel,
            provider: "mvpmu".to_owned(),
            company,
            kinds: KINDS.to_owned(),
            places: Vec::new(),
            every: 1,
            times: None,
            limit: Duration::from_secs(7200),
        }
    }

    /// Some of them, anywhere.
    pub fn sample(company: Company) -> Self {
        Sweep {
            every: SAMPLE,
            limit: Duration::from_secs(300),
            ..Self::whole(company)
        }
    }

    /// Each instruction that switches the PMU.
    pub fn switch(company: Company) -> Self {
        Sweep {
            places: SWITCH.map(str::to_owned).to_vec(),
            times: Some(1),
            ..Self::whole(company)
        }
    }

    /// The same on the AMD machine.
    pub fn on_amd(self) -> Self {
        Sweep {
            machine: Machine::Amd,
            limit: Duration::from_secs(7200),
            ..self
        }
    }

    /// Only at every so many-th instruction; a prime, see [`SAMPLE`].
    pub fn sampled(self, every: u64) -> Self {
        Sweep { every, ..self }
    }

    /// Each instruction of the function that counts what is emulated: the thread of the vCPU loses
    /// the CPU there, and with it the state in hardware.
    ///
    /// Has to fail when kvm_pmu_trigger_event() allows interrupts between its look at where the state
    /// is and the counting.
    pub fn increment() -> Self {
        Sweep {
            kinds: "byte".to_owned(),
            places: INCREMENT.map(str::to_owned).to_vec(),
            limit: Duration::from_secs(300),
            ..Self::whole(Company::Waiter)
        }
    }

    /// Which instructions.
    fn which(&self) -> String {
        let all = match self.every {
            1 => "each instruction".to_owned(),
            n => format!("every {n}th instruction"),
        };
        match &self.places[..] {
            [] => all,
            places => format!("{all} in {}", places.join(", ")),
        }
    }

    /// Runs it. One test says that all was as it should be, else there is one for each thing that
    /// was shown instead.
    pub fn run(&self, directory: &Path) -> Result<Vec<Case>> {
        let mut job = Job::new("sweep");
        job.arguments.push(self.provider.clone());
        let words = self.company.words().iter().map(|word| (*word).to_owned());
        job.arguments.extend(words);
        let boot = match self.machine {
            Machine::Intel => self.intel(),
            Machine::Amd => {
                job.arguments.extend(self.repetition());
                Boot::new(Machine::Amd).with_instruction_clock()
            }
        };
        let boot = Boot {
            append: format!("loglevel=5 {}", oracle::REPORT_MODULES),
            ..boot
        };
        if !self.places.is_empty() {
            job.arguments.push("in".to_owned());
            job.arguments.extend(self.places.clone());
        }
        let outcome = boot::run(&boot, &job, directory, self.limit, false)?;

        let (log, complaints) = match self.machine {
            Machine::Intel => (directory.join("machine.log"), Vec::new()),
            Machine::Amd => {
                let log = outcome.read("kernel-log").unwrap_or_default();
                (outcome.console.clone(), complaints(&log, &self.kinds))
            }
        };
        let log = fs::read(log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter_map(|line| line.strip_prefix("sweep: "));
        let named = oracle::with_names(&lines.collect::<Vec<_>>(), directory, boot.kernel);
        fs::write(directory.join("sweep"), named.join("\n"))?;
        let title = format!(
            "{}, {}: {}",
            self.provider,
            self.company.name(),
            self.which()
        );
        let mut cases = cases(&title, &named, outcome.problem());
        if !complaints.is_empty() {
            let name = format!("{title}: the host's log has no complaint");
            cases.push(Case::failed(name, complaints.join("\n")));
        }
        Ok(cases)
    }

    /// The machine that repeats the run itself.
    fn intel(&self) -> Boot {
        let mut options = vec![
            "--sweep".to_owned(),
            self.kinds.clone(),
            "--sweep-every".to_owned(),
            self.every.to_string(),
        ];
        if let Some(times) = self.times {
            options.extend(["--sweep-times".to_owned(), times.to_string()]);
        }
        let options: Vec<&'static str> = options.into_iter().map(|o| &*o.leak()).collect();
        Boot {
            options: options.leak(),
            ..Boot::new(Machine::Intel)
        }
    }

    /// The words for the program, for it to repeat the run.
    fn repetition(&self) -> impl Iterator<Item = String> + '_ {
        let kinds = self.kinds.split(',').map(str::to_owned);
        let every = format!("every={}", self.every);
        let times = self.times.map(|times| format!("times={times}"));
        kinds.chain([every]).chain(times)
    }
}

/// What the kernel's log has that the injected events do not explain: it asks every NMI for its
/// reason.
fn complaints(log: &str, kinds: &str) -> Vec<String> {
    const UNKNOWN: [&str; 2] = ["NMI received for unknown reason", "Dazed and confused"];
    let nmis = kinds.split(',').any(|kind| kind == "nmi" || kind == "pmi");
    let mut complaints = kernel_log::complaints(log);
    complaints.retain(|line| !(nmis && UNKNOWN.iter().any(|text| line.contains(text))));
    complaints
}

/// How many lines of what was shown are told.
const SHOWN: usize = 40;

fn cases(title: &str, lines: &[String], problem: Option<String>) -> Vec<Case> {
    const FAILED: &str = "failed: ";
    const NONE: &str = " 0 cases, ";
    let whole = lines.iter().find(|line| line.contains(" cases, "));
    let swept = whole.is_some_and(|line| line.ends_with(" 0 failed") && !line.contains(NONE));
    if let (true, None) = (swept, &problem) {
        return vec![Case::passed(title)];
    }
    let mut cases: Vec<Case> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with(FAILED))
        .map(|(n, line)| {
            let shown = lines[n + 1..].iter().take_while(|l| l.starts_with(' '));
            let shown: Vec<_> = shown.take(SHOWN).map(String::as_str).collect();
            let name = format!("{title}: {}", &line[FAILED.len()..]);
            Case::failed(name, shown.join("\n"))
        })
        .collect();
    if cases.is_empty() {
        let why = problem.unwrap_or("nothing was swept".to_owned());
        cases.push(Case::failed(title, why));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str], problem: Option<&str>) -> Vec<Case> {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        cases("it", &lines, problem.map(str::to_owned))
    }

    // Has to fail when a sweep that did nothing passes.
    #[test]
    fn a_sweep_without_cases_has_not_passed() {
        let passed = vec![Case::passed("it")];
        assert_eq!(of(&["9 instructions, 9 cases, 0 failed"], None), passed);
        assert_ne!(of(&["9 instructions, 0 cases, 0 failed"], None), passed);
        assert_ne!(of(&[], None), passed);
        let died = of(&["9 instructions, 9 cases, 0 failed"], Some("it died"));
        assert_eq!(died, [Case::failed("it", "it died")]);
    }

    #[test]
    fn each_thing_that_was_shown_is_a_case() {
        let lines = [
            "9 instructions, 9 cases, 3 failed",
            "expected: result: 1",
            "failed: nmi after instruction 3",
            "  result: 2",
            "failed: pmi after instruction 4",
        ];
        let expected = [
            Case::failed("it: nmi after instruction 3", "  result: 2"),
            Case::failed("it: pmi after instruction 4", ""),
        ];
        assert_eq!(of(&lines, None), expected);
    }
}
