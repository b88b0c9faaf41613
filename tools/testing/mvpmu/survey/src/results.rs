// SPDX-License-Identifier: GPL-2.0

//! What programs said, as parts of the report.

use std::collections::BTreeMap;

use mvpmu_host::key_value;
use mvpmu_report::schema::Count;
use mvpmu_report::schema::Deviation;
use mvpmu_report::schema::Difference;
use mvpmu_report::schema::ExitCost;
use mvpmu_report::schema::Finding;
use mvpmu_report::schema::Provider;
use mvpmu_report::schema::Remark;
use mvpmu_report::schema::Step;
use mvpmu_report::schema::StepOutcome;
use mvpmu_report::spread::Spread;
use serde_json::Value;
use tap::Verdict;

use crate::command::End;
use crate::command::Ran;

/// How many lines of one test go into a report.
const LINES: usize = 20;

fn remark(test: &str, lines: Vec<String>) -> Remark {
    Remark {
        test: test.to_owned(),
        lines,
    }
}

/// What becomes of a step, of what became of its tests.
fn judge(step: &mut Step) {
    step.outcome = match (step.failed.is_empty(), step.passed) {
        (false, _) => StepOutcome::Failed,
        (true, 0) => StepOutcome::Skipped,
        (true, _) => StepOutcome::Passed,
    };
}

/// A step that has nothing in it yet.
pub fn begin(name: &str, provider: Provider) -> Step {
    Step {
        name: name.to_owned(),
        provider,
        outcome: StepOutcome::Skipped,
        milliseconds: 0,
        passed: 0,
        failed: Vec::new(),
        skipped: Vec::new(),
    }
}

/// The step of a program that writes TAP.
pub fn of_tests(step: &mut Step, ran: &Ran) {
    // A test program's own exit statuses are 0, 1, and 4: all skipped.
    let ended = matches!(ran.end, End::Exit(Some(0 | 1 | 4)));
    if ended || tap::is_tap(&ran.output) {
        for case in tap::parse(&ran.output) {
            let lines = |text: &str| text.lines().take(LINES).map(str::to_owned).collect();
            match case.verdict {
                Verdict::Passed => step.passed += 1,
                Verdict::Failed(why) => step.failed.push(remark(&case.name, lines(&why))),
                Verdict::Skipped(why) => step.skipped.push(remark(&case.name, lines(&why))),
            }
        }
    }
    if !ended || (ran.end == End::Exit(Some(1)) && step.failed.is_empty()) {
        step.failed.push(remark("it ends with success", ran.why()));
    }
    finish(step, ran);
}

/// The step of any other program: it succeeds or not.
pub fn of_program(step: &mut Step, test: &str, ran: &Ran) {
    match ran.succeeded() {
        true => step.passed += 1,
        false => step.failed.push(remark(test, ran.why())),
    }
    finish(step, ran);
}

fn finish(step: &mut Step, ran: &Ran) {
    step.milliseconds += u64::try_from(ran.time.as_millis()).unwrap_or(u64::MAX);
    let killed = step.outcome == StepOutcome::Killed || matches!(ran.end, End::Killed | End::Stuck);
    judge(step);
    if killed {
        step.outcome = StepOutcome::Killed;
    }
}

/// "NAME_expected: N" and "NAME_counted: N" lines.
pub fn counts(output: &str, provider: Provider) -> Vec<Count> {
    let expected = key_value::parse(output).filter_map(|(key, value)| {
        let what = key.strip_suffix("_expected")?;
        let counted = key_value::value(output, &format!("{what}_counted"))?;
        Some(Count {
            provider,
            what: what.replace('_', " "),
            expected: value.parse().ok()?,
            counted: counted.parse().ok()?,
        })
    });
    expected.collect()
}

/// "CODE: EVENT EXPECTED DIFFERENCE TIMES" lines.
pub fn deviations(output: &str) -> Vec<Deviation> {
    let mut found: Vec<Deviation> = Vec::new();
    for (code, rest) in key_value::parse(output) {
        let words: Vec<_> = rest.split_whitespace().collect();
        let &[event, expected, by, times] = &words[..] else {
            continue;
        };
        let (Ok(expected), Ok(by), Ok(times)) = (expected.parse(), by.parse(), times.parse())
        else {
            continue;
        };
        let difference = Difference { by, times };
        match found.last_mut() {
            Some(last) if last.code == code && last.event == event => {
                last.differences.push(difference)
            }
            _ => found.push(Deviation {
                code: code.to_owned(),
                event: event.to_owned(),
                expected,
                differences: vec![difference],
            }),
        }
    }
    found
}

/// What VM exits took, in all rounds so far.
#[derive(Default)]
pub struct Costs(BTreeMap<(usize, Provider, u32), Vec<f64>>);

impl Costs {
    /// Adds "used N" and "round CYCLES" lines: of `exits` more VM exits each. Whether there were any.
    pub fn add(&mut self, scenario: usize, provider: Provider, exits: u64, output: &str) -> bool {
        let values = |key: &'static str| {
            let lines = output
                .lines()
                .filter_map(move |line| line.strip_prefix(key));
            lines.filter_map(|value| value.trim().parse::<f64>().ok())
        };
        let Some(used) = values("used ").next() else {
            return false;
        };
        let rounds = values("round ").map(|cycles| cycles / exits as f64);
        let all = self.0.entry((scenario, provider, used as u32)).or_default();
        let before = all.len();
        all.extend(rounds);
        all.len() > before
    }

    /// For the report.
    pub fn report(&self, scenarios: &[&str]) -> Vec<ExitCost> {
        let costs = self
            .0
            .iter()
            .filter_map(|(&(scenario, provider, counters), cycles)| {
                Some(ExitCost {
                    scenario: scenarios[scenario].to_owned(),
                    provider,
                    counters,
                    cycles: Spread::of(cycles.clone())?,
                })
            });
        costs.collect()
    }
}

/// What `mvpmu-check --json` has found, without what is about an installed system.
pub fn findings(output: &str) -> Vec<Finding> {
    const ABOUT_INSTALLATION: [&str; 3] = ["module", "events", "KVM"];
    let value: Value = serde_json::from_str(output).unwrap_or_default();
    let found = value.get("findings").cloned().unwrap_or_default();
    let found: Vec<Finding> = serde_json::from_value(found).unwrap_or_default();
    let is_of_machine = |finding: &Finding| !ABOUT_INSTALLATION.contains(&finding.about.as_str());
    found.into_iter().filter(is_of_machine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ran(end: End, output: &str) -> Ran {
        Ran {
            end,
            output: output.to_owned(),
            time: Duration::from_millis(1500),
        }
    }

    fn step_of(end: End, output: &str) -> Step {
        let mut step = begin("a", Provider::Mvpmu);
        of_tests(&mut step, &ran(end, output));
        step
    }

    // Seen to fail when the end of the program is not looked at.
    #[test]
    fn a_step_is_what_its_tests_are() {
        let exit = |status| End::Exit(Some(status));
        let passed = step_of(exit(0), "TAP version 13\n1..1\nok 1 a\n");
        assert_eq!((passed.outcome, passed.passed), (StepOutcome::Passed, 1));
        assert_eq!(passed.milliseconds, 1500);
        let failed = step_of(
            exit(1),
            "TAP version 13\n1..2\nok 1 a\n# 2 != 3\nnot ok 2 b\n",
        );
        assert_eq!(failed.outcome, StepOutcome::Failed);
        assert_eq!(failed.failed[0].lines, ["2 != 3"]);
        let skipped = step_of(exit(4), "TAP version 13\n1..0 # SKIP no PMU\n");
        assert_eq!(skipped.outcome, StepOutcome::Skipped);
        for (end, outcome) in [
            (End::Killed, StepOutcome::Killed),
            (End::Stuck, StepOutcome::Killed),
            (End::Exit(None), StepOutcome::Failed),
            (exit(1), StepOutcome::Failed),
        ] {
            let step = step_of(end, "TAP version 13\n1..1\nok 1 a\n");
            assert_eq!(step.outcome, outcome, "{end:?}");
            assert_eq!(step.failed[0].test, "it ends with success");
        }
        assert_eq!(step_of(exit(0), "").outcome, StepOutcome::Failed);
    }

    #[test]
    fn a_step_of_many_programs_stays_killed() {
        let mut step = begin("a", Provider::C);
        of_program(&mut step, "one", &ran(End::Killed, ""));
        of_program(&mut step, "two", &ran(End::Exit(Some(0)), ""));
        assert_eq!((step.outcome, step.passed), (StepOutcome::Killed, 1));
        assert_eq!(step.milliseconds, 3000);
    }

    #[test]
    fn what_a_guest_counted_has_its_two_lines() {
        let text = "pmu: AMD\npmis_expected: 100\npmis_counted: 99\nalone_expected: 1\n";
        let found = counts(text, Provider::C);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].what.as_str(), found[0].expected, found[0].counted),
            ("pmis", 100, 99)
        );
    }

    // Seen to fail when each line is a deviation of its own.
    #[test]
    fn differences_of_the_same_code_and_event_are_one() {
        let text = "loop: instructions 2005 0 98\nloop: instructions 2005 1 2\nloop: branches 1000 0 100\n";
        let found = deviations(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].repetitions(), found[0].wrong()), (100, 2));
    }

    #[test]
    fn costs_are_those_of_one_exit() {
        let mut costs = Costs::default();
        assert!(costs.add(0, Provider::C, 100, "used 6\nround 200000\nround 220000\n"));
        assert!(costs.add(0, Provider::C, 100, "used 6\nround 240000\n"));
        assert!(!costs.add(0, Provider::C, 100, "used 6\n"));
        assert!(!costs.add(0, Provider::C, 100, "no PMU\n"));
        let report = costs.report(&["cpuid"]);
        assert_eq!(report.len(), 1);
        assert_eq!((report[0].counters, report[0].cycles.median), (6, 2200.0));
        assert_eq!(report[0].cycles.count, 3);
    }

    #[test]
    fn findings_are_of_the_machine() {
        let text = r#"{"status": 1, "findings": [
            {"about": "CPU", "severity": "ok", "text": "AMD, with SVM", "command": null},
            {"about": "module", "severity": "todo", "text": "none", "command": "make"}]}"#;
        assert_eq!(findings(text).len(), 1);
        assert_eq!(findings("no JSON").len(), 0);
    }
}
