// SPDX-License-Identifier: GPL-2.0

//! Results of tests, and how to read them from the Test Anything Protocol as
//! kselftest and KUnit write it: Documentation/dev-tools/ktap.rst.

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held.
    Passed,
    /// It did not, and what is known about it.
    Failed(String),
    /// It could not be run here, and why.
    Skipped(String),
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The property.
    pub name: String,
    /// Whether it holds.
    pub verdict: Verdict,
}

impl Case {
    /// A test that held.
    pub fn passed(name: impl Into<String>) -> Self {
        Case {
            name: name.into(),
            verdict: Verdict::Passed,
        }
    }

    /// A test that failed.
    pub fn failed(name: impl Into<String>, why: impl Into<String>) -> Self {
        Case {
            name: name.into(),
            verdict: Verdict::Failed(why.into()),
        }
    }

    /// A test that was not run.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Case {
            name: name.into(),
            verdict: Verdict::Skipped(why.into()),
        }
    }

    /// `passed` decides.
    pub fn new(name: impl Into<String>, passed: bool, why: impl FnOnce() -> String) -> Self {
        if passed {
            Case::passed(name)
        } else {
            Case::failed(name, why())
        }
    }
}

/// What fails when a program said nothing of its tests.
pub const NO_PLAN: &str = "there is a plan";

/// The names of those that have failed.
pub fn failures(cases: &[Case]) -> Vec<&str> {
    let failed = |case: &&Case| matches!(case.verdict, Verdict::Failed(_));
    let failed = cases.iter().filter(failed);
    failed.map(|case| case.name.as_str()).collect()
}

/// Whether there are results in `text`.
pub fn is_tap(text: &str) -> bool {
    let begins = |line: &str| {
        ["1..", "ok ", "not ok ", "TAP version"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    text.lines().any(|line| begins(line.trim_start()))
}

/// Reads the results in `text`. Of nested tests the innermost count, and the
/// result of the suite if they do not explain it. Every plan must be kept, and
/// there must be one.
pub fn parse(text: &str) -> Vec<Case> {
    let mut parser = Parser::default();
    for line in text.lines() {
        parser.line(line);
    }
    parser.end()
}

/// One level of nested tests.
#[derive(Default)]
struct Level {
    indent: usize,
    planned: Option<usize>,
    seen: usize,
    /// Whether one of its tests, or of those nested in it, has failed.
    failed: bool,
}

#[derive(Default)]
struct Parser {
    cases: Vec<Case>,
    levels: Vec<Level>,
    /// Diagnostics since the last result.
    notes: Vec<String>,
    /// If the result that comes next sums up nested ones: whether one of these
    /// has failed.
    nested: Option<bool>,
    planned: bool,
}

impl Parser {
    fn line(&mut self, line: &str) {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        if let Some(plan) = body.strip_prefix("1..") {
            self.plan(indent, plan);
        } else if let Some(rest) = body.strip_prefix("ok ") {
            self.result(indent, true, rest);
        } else if let Some(rest) = body.strip_prefix("not ok ") {
            self.result(indent, false, rest);
        } else if !body.is_empty() && !body.starts_with("TAP version") {
            let note = body.strip_prefix('#').unwrap_or(body).trim_start();
            self.notes.push(note.to_owned());
        }
    }

    fn plan(&mut self, indent: usize, plan: &str) {
        self.planned = true;
        let (count, directive) = plan.split_once('#').unwrap_or((plan, ""));
        let count = count.trim().parse().ok();
        let level = self.level(indent);
        if count.is_none() || level.planned.is_some() {
            level.failed = true;
            let why = format!("1..{plan}");
            self.cases
                .push(Case::failed("there is one plan, a number", why));
        } else if count == Some(0) {
            // A test that does not run.
            let name = "it has tests";
            let reason = directive.trim_start().strip_prefix("SKIP");
            level.failed |= reason.is_none();
            self.cases.push(match reason {
                Some(reason) => Case::skipped(name, reason.trim()),
                None => Case::failed(name, "none are planned"),
            });
        }
        self.level(indent).planned = count;
    }

    fn level(&mut self, indent: usize) -> &mut Level {
        while self.levels.last().is_some_and(|last| last.indent > indent) {
            self.close();
        }
        if self.levels.last().is_none_or(|last| last.indent < indent) {
            self.levels.push(Level {
                indent,
                ..Level::default()
            });
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn close(&mut self) {
        let Some(mut level) = self.levels.pop() else {
            return;
        };
        if let Some(planned) = level.planned {
            if planned != level.seen {
                level.failed = true;
                let why = format!("{planned} planned, {} run", level.seen);
                self.cases.push(Case::failed("the plan is kept", why));
            }
        }
        // Several levels may end at once.
        self.nested = Some(self.nested.unwrap_or(false) || level.failed);
    }

    fn result(&mut self, indent: usize, ok: bool, rest: &str) {
        let nested = self.levels.last().is_some_and(|last| last.indent > indent);
        self.level(indent).seen += 1;
        let nested = self.nested.take().filter(|_| nested);
        let notes = std::mem::take(&mut self.notes);
        if !ok || nested == Some(true) {
            self.level(indent).failed = true;
        }
        if nested.is_some_and(|failed| ok || failed) {
            // The tests it sums up have been counted.
            return;
        }
        // "3 - name # SKIP reason" or "3 name"
        let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let name = name.trim_start().trim_start_matches('-').trim();
        let (name, directive) = name.split_once(" # ").unwrap_or((name, ""));
        let verdict = match directive.strip_prefix("SKIP") {
            // Who fails has not skipped anything.
            _ if !ok => Verdict::Failed(notes.join("\n")),
            Some(reason) => Verdict::Skipped(reason.trim().to_owned()),
            None => Verdict::Passed,
        };
        self.cases.push(Case {
            name: name.to_owned(),
            verdict,
        });
    }

    fn end(mut self) -> Vec<Case> {
        while !self.levels.is_empty() {
            self.close();
        }
        if !self.planned {
            let why = self.notes.join("\n");
            self.cases.push(Case::failed(NO_PLAN, why));
        }
        self.cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cases: &[Case]) -> Vec<&str> {
        cases.iter().map(|case| case.name.as_str()).collect()
    }

    // Seen to fail when the number is left in the name.
    #[test]
    fn results_are_read_with_their_diagnostics() {
        let cases = parse(
            "TAP version 13\n1..3\n# RUN a\nok 1 a\n# b.c:1: 2 != 3\nnot ok 2 - b\n\
             ok 3 c # SKIP no such CPU\n",
        );
        assert_eq!(names(&cases), ["a", "b", "c"]);
        assert_eq!(cases[0].verdict, Verdict::Passed);
        assert_eq!(cases[1].verdict, Verdict::Failed("b.c:1: 2 != 3".into()));
        assert_eq!(cases[2].verdict, Verdict::Skipped("no such CPU".into()));
    }

    // Seen to fail when plans are not compared with results.
    #[test]
    fn a_run_that_stops_early_has_failed() {
        for text in ["1..2\nok 1 a\n", "", "Segmentation fault\n", "ok 1 a\n"] {
            let failed = |case: &Case| matches!(case.verdict, Verdict::Failed(_));
            assert!(parse(text).iter().any(failed), "{text:?}");
        }
    }

    // Seen to fail when the summary of a suite counts as a test.
    #[test]
    fn of_nested_tests_the_innermost_count() {
        let cases = parse(
            "KTAP version 1\n1..1\n    KTAP version 1\n    1..2\n    ok 1 a\n    ok 2 b\n\
             ok 1 suite\n",
        );
        assert_eq!(names(&cases), ["a", "b"]);
    }

    // Seen to fail when the result of a suite is dropped whatever its tests say.
    #[test]
    fn a_suite_that_fails_by_itself_has_failed() {
        for text in [
            "1..1\n    1..1\n    ok 1 a\nnot ok 1 suite\n",
            "1..1\n    1..1\n        1..1\n        ok 1 a\n    ok 1 inner\nnot ok 1 suite\n",
        ] {
            let cases = parse(text);
            assert_eq!(names(&cases), ["a", "suite"], "{text:?}");
            assert!(matches!(cases[1].verdict, Verdict::Failed(_)), "{text:?}");
        }
        // Here a test explains it.
        let cases = parse("1..1\n    1..2\n    ok 1 a\n    not ok 2 b\nnot ok 1 suite\n");
        assert_eq!(names(&cases), ["a", "b"]);
        // And the failure of one suite is not that of the next.
        let suite = "    1..1\n    ok 1 b\nnot ok 2 second\n";
        let cases = parse(&format!(
            "1..2\n    1..1\n    not ok 1 a\nnot ok 1 first\n{suite}"
        ));
        assert_eq!(names(&cases), ["a", "b", "second"]);
    }

    // Seen to fail when the directive is looked at first.
    #[test]
    fn a_failure_is_not_a_skip() {
        let cases = parse("1..2\nnot ok 1 a # SKIP no such CPU\nok 2 b # SKIP no such CPU\n");
        assert!(matches!(cases[0].verdict, Verdict::Failed(_)));
        assert!(matches!(cases[1].verdict, Verdict::Skipped(_)));
    }

    // Seen to fail when a plan that is no number counts as one that is kept.
    #[test]
    fn a_plan_is_a_number_and_there_is_one() {
        for text in [
            "1..\nok 1 a\n",
            "1..x\nok 1 a\n",
            "1..1x\nok 1 a\n",
            "1..1\nok 1 a\n1..1\n",
            "1..1\n    1..y\n    ok 1 a\nok 1 suite\n",
        ] {
            let failed = |case: &Case| matches!(case.verdict, Verdict::Failed(_));
            assert_eq!(
                parse(text).iter().filter(|case| failed(case)).count(),
                1,
                "{text:?}"
            );
        }
    }

    // Seen to fail when an empty plan gives no case.
    #[test]
    fn a_test_without_tests_has_not_passed() {
        let cases = parse("TAP version 13\n1..0 # SKIP no PMU\n");
        assert_eq!(cases, [Case::skipped("it has tests", "no PMU")]);
        let cases = parse("TAP version 13\n1..0\n");
        assert_eq!(cases, [Case::failed("it has tests", "none are planned")]);
    }

    // Seen to fail when the level of a suite is forgotten after its first test.
    #[test]
    fn a_broken_plan_of_a_nested_suite_is_found() {
        let cases = parse("1..1\n    1..3\n    ok 1 a\n    ok 2 b\nok 1 suite\n");
        assert_eq!(names(&cases), ["a", "b", "the plan is kept"]);
    }
}
