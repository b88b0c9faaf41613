// SPDX-License-Identifier: GPL-2.0

//! What became of the tests of a job, and the numbers of verdicts.

use crate::boot::End;
use crate::boot::Outcome;
use crate::kernel_log;
use crate::tap;
use crate::tap::Case;
use crate::tap::Verdict;

fn failed(case: &Case) -> bool {
    matches!(case.verdict, Verdict::Failed(_))
}

/// The results in the files that a job has left; what is missing has failed.
pub fn of_job(outcome: &Outcome, tests: &[String]) -> Vec<Case> {
    let mut cases: Vec<_> = of_oracle(outcome).into_iter().collect();
    cases.extend(of_log(outcome));
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
    if let Some(problem) = outcome.problem() {
        if !cases.iter().any(failed) {
            cases.push(Case::failed("the job ends with success", problem));
        }
    }
    cases
}

/// What the oracle has to say of the run.
fn of_oracle(outcome: &Outcome) -> Option<Case> {
    let name = "the oracle has seen no violation";
    let why = match &outcome.violations {
        Some(violations) => Some(violations.clone()),
        None => outcome
            .stats()
            .and_then(|stats| stats.watched())
            .err()
            .map(|why| why.to_string()),
    };
    let case = || Case::new(name, why.is_none(), || why.unwrap_or_default());
    outcome.watched.then(case)
}

/// That the oracle has seen guests that could reach the PMU.
pub fn of_guests(outcome: &Outcome) -> Option<Case> {
    let entries = outcome.stats().map_or(0, |stats| stats.mediated_entries());
    let case = || {
        Case::new("the oracle has seen guests with a PMU", entries > 0, || {
            "it has seen none".to_owned()
        })
    };
    outcome.watched.then(case)
}

/// That the machine has not refused what the host wrote to its PMU.
pub fn of_refusals(outcome: &Outcome) -> Option<Case> {
    let name = "the machine has refused the host no write to its PMU";
    let why = match outcome.stats() {
        Ok(stats) => match stats.refused() {
            0 => None,
            n => Some(format!("{n} writes")),
        },
        Err(error) => Some(format!("{error:#}")),
    };
    let case = || Case::new(name, why.is_none(), || why.unwrap_or_default());
    matches!(outcome.end, End::Job(_)).then(case)
}

/// What the host's log says. (A machine that was stopped has left none.)
fn of_log(outcome: &Outcome) -> Option<Case> {
    let case = || judged_log(outcome, "the host's log has no complaint", "kernel-log");
    matches!(outcome.end, End::Job(_)).then(case)
}

/// What the log says that a guest has left in the directory of this name.
pub fn of_guest_log(outcome: &Outcome, guest: &str) -> Case {
    let name = format!("{guest}: its log has no complaint");
    judged_log(outcome, &name, &format!("{guest}/kernel-log"))
}

fn judged_log(outcome: &Outcome, name: &str, file: &str) -> Case {
    let complaints = match outcome.read(file) {
        Ok(log) => kernel_log::complaints(&log),
        Err(error) => vec![format!("{error:#}")],
    };
    Case::new(name, complaints.is_empty(), || complaints.join("\n"))
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

/// Whether two runs of the same job are equal in all that the machine shows and counts.
pub fn of_two_runs(first: &Outcome, second: &Outcome) -> Vec<Case> {
    let problems = [first, second].map(Outcome::problem);
    let mut cases = Vec::new();
    for (name, problem) in ["the first run", "the second run"].iter().zip(problems) {
        let name = format!("{name} ends with success");
        cases.push(Case::new(name, problem.is_none(), || {
            problem.unwrap_or_default()
        }));
    }
    for (name, file) in [
        ("the console is the same", "console"),
        (
            "instructions, VM exits and PMU operations are as many",
            "stats",
        ),
    ] {
        let [first, second] = [first, second]
            .map(|run| std::fs::read(run.directory().join(file)).unwrap_or_default());
        let same = !first.is_empty() && first == second;
        cases.push(Case::new(name, same, || difference(&first, &second)));
    }
    cases
}

/// The first line that differs.
fn difference(first: &[u8], second: &[u8]) -> String {
    let [first, second] = [first, second].map(String::from_utf8_lossy);
    let (mut first, mut second) = (first.lines(), second.lines());
    loop {
        match (first.next(), second.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return "nothing was written".to_owned(),
            (a, b) => return format!("{}\n{}", a.unwrap_or_default(), b.unwrap_or_default()),
        }
    }
}

/// Numbers of verdicts.
#[derive(Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub fn add(&mut self, case: &Case) {
        match case.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
    }
}
