// SPDX-License-Identifier: GPL-2.0

//! What reports say differently.

use std::collections::BTreeSet;

use mvpmu_host::printable;

use crate::schema::Provider;
use crate::schema::Step;
use crate::table;
use crate::text;
use crate::Report;

/// A report and the name of its file.
pub struct Named {
    /// The file.
    pub name: String,
    /// What it holds.
    pub report: Report,
}

/// What is other in `report` than in `reference`, but for time and who it is.
pub fn differences(report: &Report, reference: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let shape = |report: &Report| {
        let pmu = report.pmu.as_ref()?;
        Some((
            pmu.version,
            pmu.gp_counters,
            pmu.fixed_counters,
            pmu.counter_width,
        ))
    };
    if shape(report) != shape(reference) {
        let shown = |report| match shape(report) {
            Some((version, gp, fixed, width)) => {
                format!("version {version}, {gp} counters of {width} bits, {fixed} fixed")
            }
            None => "unknown".to_owned(),
        };
        lines.push(format!(
            "PMU: {}, there {}",
            shown(report),
            shown(reference)
        ));
    }
    for step in merged(report, reference) {
        let here = find(report, &step);
        let there = find(reference, &step);
        lines.extend(of_step(&step, here, there));
    }
    for count in &report.counts {
        if count.counted != count.expected {
            let who = count.provider.name();
            lines.push(format!(
                "{}, {who}: {}, not {}",
                count.what, count.counted, count.expected
            ));
        }
    }
    // The test machines count exactly.
    let off = report.deviations.iter().filter(|found| found.wrong() != 0);
    lines.extend(off.map(text::deviation));
    lines
}

type Key = (String, Provider);

fn key(step: &Step) -> Key {
    (step.name.clone(), step.provider)
}

/// The steps of both, in the order of the first.
fn merged(report: &Report, reference: &Report) -> Vec<Key> {
    let mut seen = BTreeSet::new();
    let all = report.steps.iter().chain(&reference.steps);
    all.map(key)
        .filter(|key| seen.insert(key.clone()))
        .collect()
}

fn find<'a>(report: &'a Report, wanted: &Key) -> Option<&'a Step> {
    report.steps.iter().find(|step| key(step) == *wanted)
}

fn of_step((name, provider): &Key, here: Option<&Step>, there: Option<&Step>) -> Vec<String> {
    let title = format!("{name}, {}", provider.name());
    let (Some(here), Some(there)) = (here, there) else {
        let outcome = |step: Option<&Step>| step.map_or("not run", |step| step.outcome.name());
        return vec![format!(
            "{title}: {}, there {}",
            outcome(here),
            outcome(there)
        )];
    };
    let mut lines = Vec::new();
    let tests = |step: &Step| {
        let words = [("failed", &step.failed), ("skipped", &step.skipped)];
        let found = words.into_iter().flat_map(|(word, remarks)| {
            remarks
                .iter()
                .map(move |remark| (remark.test.clone(), word))
        });
        found.collect::<Vec<_>>()
    };
    let (mine, other) = (tests(here), tests(there));
    for (test, word) in mine.iter().filter(|found| !other.contains(found)) {
        lines.push(format!("{title}: {test}: {word}"));
    }
    for (test, word) in other.iter().filter(|found| !mine.contains(found)) {
        lines.push(format!("{title}: {test}: not {word}"));
    }
    if here.outcome != there.outcome && lines.is_empty() {
        lines.push(format!(
            "{title}: {}, there {}",
            here.outcome.name(),
            there.outcome.name()
        ));
    }
    lines
}

/// What several reports say, next to each other.
pub fn several(reports: &[Named]) -> String {
    let mut lines = Vec::new();
    for (number, Named { name, report }) in (1..).zip(reports) {
        let cpu = &report.cpu;
        let emulated = if cpu.emulated { ", emulated" } else { "" };
        lines.push(format!("{number}: {name}: {}{emulated}", cpu.name));
        lines.push(format!(
            "   microcode {}, Linux {}, mvpmu {}",
            cpu.microcode, report.software.kernel, report.software.mvpmu
        ));
        lines.push(format!("   {}", text::verdict(report).trim_end()));
    }
    for (number, Named { report, .. }) in (1..).zip(reports).skip(1) {
        lines.push(String::new());
        lines.push(format!(
            "Report 1 other than report {number}, but for time:"
        ));
        let found = differences(&reports[0].report, report);
        match found.is_empty() {
            true => lines.push("  nothing".to_owned()),
            false => lines.extend(found.iter().map(|line| format!("  {line}"))),
        }
    }
    let costs = exits(reports);
    if !costs.is_empty() {
        lines.push(String::new());
        lines.push("VM exits, median in cycles of each one's TSC:".to_owned());
        lines.extend(costs.iter().map(|line| format!("  {line}")));
    }
    lines
        .iter()
        .map(|line| format!("{}\n", printable(line)))
        .collect()
}

/// How many counters: some, or all that a guest can have.
fn counters(report: &Report, number: u32) -> String {
    let all = report.exits.iter().map(|cost| cost.counters).max();
    match number {
        0 => "none".to_owned(),
        n if Some(n) == all => "all".to_owned(),
        n => n.to_string(),
    }
}

fn exits(reports: &[Named]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for Named { report, .. } in reports {
        for (scenario, number) in text::cases(&report.exits) {
            let case = (scenario.to_owned(), counters(report, number));
            if seen.insert(case.clone()) {
                rows.push(case);
            }
        }
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let mut titles = vec!["exit".to_owned(), "counters".to_owned()];
    for number in 1..=reports.len() {
        titles.extend(["C", "mvpmu", "mvpmu/C"].map(|word| format!("{number}: {word}")));
    }
    let mut lines = vec![titles];
    for (scenario, number) in rows {
        let mut line = vec![scenario.clone(), number.clone()];
        for Named { report, .. } in reports {
            line.extend(cells(report, &scenario, &number));
        }
        lines.push(line);
    }
    table::lines(&lines)
}

fn cells(report: &Report, scenario: &str, wanted: &str) -> [String; 3] {
    let of = |provider: Provider| {
        report.exits.iter().find(|cost| {
            let same = cost.scenario == scenario && cost.provider == provider;
            same && counters(report, cost.counters) == wanted
        })
    };
    let (c, mvpmu) = (of(Provider::C), of(Provider::Mvpmu));
    let median = |cost: Option<&crate::schema::ExitCost>| {
        cost.map_or(String::new(), |cost| format!("{:.0}", cost.cycles.median))
    };
    [median(c), median(mvpmu), text::ratio(c, mvpmu)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::schema::Difference;
    use crate::schema::Remark;
    use crate::schema::StepOutcome;

    #[test]
    fn a_report_does_not_differ_from_itself() {
        for report in [reference::amd(), reference::intel()] {
            assert_eq!(differences(&report, &report), Vec::<String>::new());
        }
    }

    // Seen to fail when steps that only one has are left out, and when a test that has failed is.
    #[test]
    fn each_difference_is_named() {
        let reference = reference::amd();
        let mut report = reference.clone();
        let pmu = report.pmu.as_mut().expect("it has a PMU");
        pmu.gp_counters = 4;
        report.counts[0].counted += 2;
        report.deviations[0]
            .differences
            .push(Difference { by: 1, times: 3 });
        let gone = report.steps.pop().expect("there are steps");
        let step = &mut report.steps[0];
        step.outcome = StepOutcome::Failed;
        step.failed.push(Remark {
            test: "a.b".to_owned(),
            lines: Vec::new(),
        });
        let found = differences(&report, &reference).join("\n");
        for part in [
            "4 counters of 48 bits, 0 fixed, there version 2, 6 counters",
            &format!(
                "{}, not {}",
                report.counts[0].counted, report.counts[0].expected
            ),
            "+1 3 times",
            &format!(
                "{}, {}: not run, there passed",
                gone.name,
                gone.provider.name()
            ),
            "a.b: failed",
        ] {
            assert!(found.contains(part), "{part} in {found}");
        }
        assert_eq!(found.lines().count(), 5, "{found}");
    }

    // Seen to fail when the number of counters, of which each CPU has its own, is compared.
    #[test]
    fn several_reports_are_in_one_table() {
        let named = |name: &str, report| Named {
            name: name.to_owned(),
            report,
        };
        let shown = several(&[named("a", reference::amd()), named("b", reference::intel())]);
        let line = shown
            .lines()
            .find(|line| line.contains("cpuid_insn") && line.contains("all"));
        let line = line.expect("both have it with all counters");
        assert_eq!(
            line.split_whitespace().filter(|word| *word != "~").count(),
            2 + 3 + 3
        );
        assert!(shown.contains("Report 1 other than report 2"));
    }
}
