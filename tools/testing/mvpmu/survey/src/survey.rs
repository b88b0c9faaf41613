// SPDX-License-Identifier: GPL-2.0

//! The run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use mvpmu_host::module;
use mvpmu_host::Root;
use mvpmu_report::file;
use mvpmu_report::schema;
use mvpmu_report::schema::Outcome;
use mvpmu_report::schema::Provider;
use mvpmu_report::schema::Remark;
use mvpmu_report::schema::Report;
use mvpmu_report::schema::Step;
use mvpmu_report::schema::StepOutcome;
use mvpmu_report::schema::Verdict;
use mvpmu_report::text;

use crate::command;
use crate::command::Ran;
use crate::consoles::Consoles;
use crate::machine;
use crate::plan;
use crate::plan::Effort;
use crate::plan::Kind;
use crate::plan::Planned;
use crate::results;
use crate::results::Costs;
use crate::stick;
use crate::stick::Search;
use crate::stick::Stick;

/// The drivers of the image for screen, keyboard and disks, in the order in which they can be loaded.
const DRIVERS: &str = "/image/drivers";

/// How long what is no test may take: loading modules and looking at the machine.
const SHORT: Duration = Duration::from_secs(60);

const LOG: &str = "/tmp/said";

/// On the kernel's command line: the report is shown as JSON, too, for who boots by network and reads the
/// serial port.
const AS_JSON: &str = "mvpmu.json";

/// What has been found so far.
pub struct Survey<'a> {
    consoles: &'a mut Consoles,
    stick: Option<Stick>,
    place: Option<String>,
    report: Report,
    costs: Costs,
    effort: Effort,
}

fn run(words: &[&str], limit: Duration) -> Result<Ran> {
    command::run(words, limit, Path::new(LOG))
}

/// Loads what there may be devices for. Where one is missing its driver does nothing.
pub fn load_drivers() {
    let list = fs::read_to_string(DRIVERS).unwrap_or_default();
    for path in list.lines() {
        // A driver that does not load is seen by what is missing then.
        let _ = run(&["load-module", path], SHORT);
    }
}

/// The kernel's log.
fn log() -> Vec<String> {
    let output = run(&["kernel-log"], SHORT).map(|ran| ran.output);
    machine::log(&output.unwrap_or_default())
}

fn is_loaded() -> bool {
    module::is_loaded(&Root::new(Path::new("/")))
}

/// KVM with the provider.
fn load(provider: Provider) -> Result<Ran> {
    match provider {
        Provider::Off => run(&["load-kvm"], SHORT),
        Provider::C => run(&["load-provider", "c"], SHORT),
        Provider::Mvpmu => run(&["load-provider", "mvpmu"], SHORT),
    }
}

/// What does not unload is seen by that the next provider does not load.
fn unload() -> Result<()> {
    if is_loaded() {
        run(&["rmmod", "mvpmu"], SHORT)?;
    }
    run(&["unload-kvm"], SHORT)?;
    Ok(())
}

fn fail(step: &mut Step, test: &str, why: String) {
    step.outcome = StepOutcome::Failed;
    step.failed.push(Remark {
        test: test.to_owned(),
        lines: vec![why],
    });
}

impl<'a> Survey<'a> {
    /// Does all of it.
    pub fn run(consoles: &'a mut Consoles) {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = machine::cpu(&cpuinfo, &log());
        let software = machine::software();
        consoles.line(&format!(
            "\nmvpmu {} on Linux {}: {}",
            software.mvpmu, software.kernel, cpu.name
        ));
        let effort = Effort::on(cpu.emulated);
        let report = Report {
            schema: schema::NAME.to_owned(),
            version: schema::VERSION,
            verdict: Verdict {
                outcome: Outcome::Unfinished,
                text: "it had just begun".to_owned(),
            },
            software,
            cpu,
            pmu: None,
            findings: Vec::new(),
            steps: Vec::new(),
            counts: Vec::new(),
            deviations: Vec::new(),
            exits: Vec::new(),
            log: Vec::new(),
        };
        let mut survey = Survey {
            consoles,
            stick: None,
            place: None,
            report,
            costs: Costs::default(),
            effort,
        };
        survey.find_stick();
        survey.report.verdict = survey.verdict().unwrap_or_else(|error| Verdict {
            outcome: Outcome::Failed,
            text: format!("the survey itself: {error:#}"),
        });
        survey.report.log = machine::remarkable(&log());
        survey.save();
        survey.show();
    }

    fn verdict(&mut self) -> Result<Verdict> {
        Ok(match self.look()? {
            None => self.all_steps()?,
            Some(why) => Verdict {
                outcome: Outcome::Unable,
                text: why,
            },
        })
    }

    fn find_stick(&mut self) {
        self.stick = match stick::search() {
            Search::Found(stick) => {
                self.consoles.line(&format!(
                    "The report goes to the directory {} of {}. Nothing else is written to.",
                    stick::MARKER,
                    stick.device
                ));
                Some(stick)
            }
            Search::Nothing => {
                self.consoles.line(&format!(
                    "No FAT file system has a directory {}: the report is only shown, nothing is written.",
                    stick::MARKER
                ));
                None
            }
            Search::Ambiguous(devices) => {
                self.consoles.line(&format!(
                    "{} all have a directory {}: the report is only shown, nothing is written.",
                    devices.join(", "),
                    stick::MARKER
                ));
                None
            }
        };
    }

    /// What there is; the reason, if guests cannot have the PMU here.
    fn look(&mut self) -> Result<Option<String>> {
        // A kernel without it has nothing to switch off.
        let _ = fs::write("/proc/sys/kernel/nmi_watchdog", "0");
        let check = run(&["mvpmu-check", "--json"], SHORT)?;
        self.report.findings = results::findings(&check.output);
        let root = Root::new(Path::new("/"));
        let loaded = load(Provider::Mvpmu)?;
        if loaded.succeeded() {
            self.report.pmu = module::capability(&root).ok();
            unload()?;
            return Ok(None);
        }
        let refused = module::refusal(&root);
        unload()?;
        // Without the parameter it loads anywhere, to say what is missing.
        for path in ["irqbypass", "kvm", "mvpmu"] {
            run(&["load-module", &format!("/modules/{path}.ko")], SHORT)?;
        }
        self.report.pmu = module::capability(&root).ok();
        unload()?;
        let hindrance = self.report.findings.iter().find(|finding| {
            let severe = ["todo", "never"].contains(&finding.severity.as_str());
            severe && ["CPU", "PMU"].contains(&finding.about.as_str())
        });
        let why = match hindrance {
            Some(finding) => format!("{}: {}", finding.about, finding.text),
            None => refused.unwrap_or_else(|| loaded.why().join("; ")),
        };
        Ok(Some(why))
    }

    fn all_steps(&mut self) -> Result<Verdict> {
        let mut current = None;
        for (number, planned) in (1..).zip(&plan::STEPS) {
            let title = format!("{}, {}", planned.name, planned.provider.name());
            let count = plan::STEPS.len();
            self.consoles
                .say(&format!("[{number:2}/{count}] {title} ... "));
            self.report.verdict.text = format!("it was at: {title}");
            self.save();
            let mut step = results::begin(planned.name, planned.provider);
            if current != Some(planned.provider) {
                unload()?;
                let ran = load(planned.provider)?;
                if !ran.succeeded() {
                    unload()?;
                    results::of_program(&mut step, "KVM loads with it", &ran);
                    self.done(step);
                    continue;
                }
                current = Some(planned.provider);
            }
            if let Err(error) = self.one_step(planned, &mut step) {
                fail(&mut step, "it can be run", format!("{error:#}"));
            }
            self.done(step);
        }
        unload()?;
        self.report.exits = self.costs.report(&plan::SCENARIOS);
        Ok(self.judge())
    }

    fn one_step(&mut self, planned: &Planned, step: &mut Step) -> Result<()> {
        let limit = self.effort.limit;
        let repetitions = self.effort.repetitions.to_string();
        match planned.kind {
            Kind::Tests(test, few) => {
                let path = format!("/selftests/mvpmu/{test}");
                let mut words = vec![path.as_str()];
                if !self.effort.all_tests {
                    words.extend(few.iter().flat_map(|test| ["-r", test]));
                }
                let ran = run(&words, limit)?;
                results::of_tests(step, &ran);
            }
            Kind::Report => {
                let ran = run(&["/selftests/mvpmu/guest_report"], limit)?;
                results::of_program(step, "the guest counts what it should", &ran);
                self.report
                    .counts
                    .extend(results::counts(&ran.output, planned.provider));
            }
            Kind::Repeat => {
                let ran = run(&["/selftests/mvpmu/repeat", &repetitions], limit)?;
                results::of_program(step, "the guest counts to the end", &ran);
                self.report.deviations = results::deviations(&ran.output);
            }
            Kind::Exits => self.exits(planned.provider, step)?,
        }
        Ok(())
    }

    fn exits(&mut self, provider: Provider, step: &mut Step) -> Result<()> {
        let (few, many) = self.effort.exits;
        let (least, most) = (few.to_string(), many.to_string());
        for (index, scenario) in plan::SCENARIOS.iter().enumerate() {
            if !plan::can_exit(provider, scenario) {
                continue;
            }
            for counters in plan::counters(provider) {
                let words = [
                    "/selftests/mvpmu/bench",
                    scenario,
                    "0",
                    counters,
                    &least,
                    &most,
                    "tsc",
                ];
                let ran = run(&words, self.effort.limit)?;
                let test = format!("{scenario}, counters {counters}");
                let counted = self.costs.add(index, provider, many - few, &ran.output);
                results::of_program(step, &test, &ran);
                if ran.succeeded() && !counted {
                    fail(step, &test, "it says no cycles".to_owned());
                }
            }
        }
        Ok(())
    }

    fn done(&mut self, step: Step) {
        self.consoles.line(&format!(
            "{}: {} passed, {} failed, {} skipped, {:.1} s",
            step.outcome.name(),
            step.passed,
            step.failed.len(),
            step.skipped.len(),
            step.milliseconds as f64 / 1000.0
        ));
        self.report.steps.push(step);
    }

    fn judge(&self) -> Verdict {
        let steps = &self.report.steps;
        let is_bad =
            |step: &&Step| matches!(step.outcome, StepOutcome::Failed | StepOutcome::Killed);
        let bad: Vec<_> = steps
            .iter()
            .filter(is_bad)
            .map(|step| format!("{}, {}", step.name, step.provider.name()))
            .collect();
        match bad.is_empty() {
            true => Verdict {
                outcome: Outcome::Passed,
                text: format!("all {} steps", steps.len()),
            },
            false => Verdict {
                outcome: Outcome::Failed,
                text: format!("{} of {} steps: {}", bad.len(), steps.len(), bad.join("; ")),
            },
        }
    }

    /// Brings the report, as it is now, to the stick.
    fn save(&mut self) {
        let Some(stick) = &mut self.stick else {
            return;
        };
        let written = file::json(&self.report)
            .and_then(|json| stick.write(&json, &text::report(&self.report)));
        match written {
            Ok(place) => self.place = Some(place),
            Err(error) => {
                self.consoles
                    .line(&format!("\nThe report cannot be written: {error:#}"));
                self.place = None;
            }
        }
    }

    fn show(&mut self) {
        self.consoles.line("");
        let options = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        if options.split_whitespace().any(|option| option == AS_JSON) {
            match file::json(&self.report) {
                Ok(json) => self.consoles.line(&json),
                Err(error) => self.consoles.line(&format!("{error:#}")),
            }
        }
        self.consoles.line(&text::report(&self.report));
        if let (Some(stick), Some(place)) = (&self.stick, &self.place) {
            self.consoles.line(&format!(
                "The report is on {}, in {place}. The stick may be pulled out.",
                stick.device
            ));
        }
    }
}
