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

    /// `passed` decides.
    pub fn new(name: impl Into<String>, passed: bool, why: impl FnOnce() -> String) -> Self {
        if passed {
            Case::passed(name)
        } else {
            Case::failed(name, why())
        }
    }
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

/// Reads the results in `text`. Of nested tests the innermost count. Every
/// plan must be kept, and there must be one.
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
}

#[derive(Default)]
struct Parser {
    cases: Vec<Case>,
    levels: Vec<Level>,
    /// Diagnostics since the last result.
    notes: Vec<String>,
    /// Whether the result that comes next sums up nested ones.
    summary: bool,
    planned: bool,
}

impl Parser {
    fn line(&mut self, line: &str) {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        if let Some(plan) = body.strip_prefix("1..") {
            let count = plan.split_whitespace().next().and_then(|n| n.parse().ok());
            self.planned = true;
            self.level(indent).planned = count;
        } else if let Some(rest) = body.strip_prefix("ok ") {
            self.result(indent, true, rest);
        } else if let Some(rest) = body.strip_prefix("not ok ") {
            self.result(indent, false, rest);
        } else if !body.is_empty() && !body.starts_with("TAP version") {
            let note = body.strip_prefix('#').unwrap_or(body).trim_start();
            self.notes.push(note.to_owned());
        }
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
        let Some(level) = self.levels.pop() else {
            return;
        };
        self.summary = true;
        if let Some(planned) = level.planned {
            if planned != level.seen {
                let why = format!("{planned} planned, {} run", level.seen);
                self.cases.push(Case::failed("the plan is kept", why));
            }
        }
    }

    fn result(&mut self, indent: usize, ok: bool, rest: &str) {
        let nested = self.levels.last().is_some_and(|last| last.indent > indent);
        self.level(indent).seen += 1;
        let summary = std::mem::take(&mut self.summary) && nested;
        let notes = std::mem::take(&mut self.notes);
        if summary {
            // The tests it sums up have been counted.
            return;
        }
        // "3 - name # SKIP reason" or "3 name"
        let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let name = name.trim_start().trim_start_matches('-').trim();
        let (name, directive) = name.split_once(" # ").unwrap_or((name, ""));
        let verdict = match directive.strip_prefix("SKIP") {
            Some(reason) => Verdict::Skipped(reason.trim().to_owned()),
            None if ok => Verdict::Passed,
            None => Verdict::Failed(notes.join("\n")),
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
            self.cases.push(Case::failed("there is a plan", why));
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

    // Seen to fail when the level of a suite is forgotten after its first test.
    #[test]
    fn a_broken_plan_of_a_nested_suite_is_found() {
        let cases = parse("1..1\n    1..3\n    ok 1 a\n    ok 2 b\nok 1 suite\n");
        assert_eq!(names(&cases), ["a", "b", "the plan is kept"]);
    }
}
