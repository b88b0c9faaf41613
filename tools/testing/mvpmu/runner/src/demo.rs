// SPDX-License-Identifier: GPL-2.0

//! `make demo`: loads the module, lets a guest program and a Linux guest
//! count, and reports what each counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde_json::json;
use serde_json::Map;
use serde_json::Value;

use crate::boot;
use crate::boot::Outcome;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::machine::Pmu;

const LIMIT: Duration = Duration::from_secs(300);

/// Runs the demo; its files and report.json go to `directory`.
pub fn run(boot: &Boot, directory: &Path, echo: bool) -> Result<Value> {
    let job = Job {
        linux_guest: true,
        ..Job::new("demo")
    };
    let outcome = boot::run(boot, &job, &directory.join("run"), LIMIT, echo)?;
    let report = report(boot, &outcome);
    let path = directory.join("report.json");
    fs::write(&path, format!("{report:#}\n")).with_context(|| path.display().to_string())?;
    Ok(report)
}

fn report(boot: &Boot, outcome: &Outcome) -> Value {
    let text = |name| outcome.read(name).unwrap_or_default();
    let facts = values(&text("facts"));
    let libkvm = values(&text("libkvm"));
    let console = text("linux_guest");
    let linux = counts(&console);
    let loaded = facts.get("module_loaded") == Some(&json!("yes"));
    let debugfs = tree(&outcome.out.join("debugfs"));
    let machine = match facts.get("vendor").and_then(Value::as_str) {
        Some("AuthenticAMD") => json!(Machine::Amd),
        Some("GenuineIntel") => json!(Machine::Intel),
        _ => Value::Null,
    };

    let number = |key: &str| libkvm.get(key).cloned().unwrap_or(Value::Null);
    let pair = |counted: &str, expected: Value, count: Value| {
        let mut object = Map::new();
        object.insert("expected".to_owned(), expected);
        object.insert(counted.to_owned(), count);
        object
    };
    let libkvm_pair = |what: &str, counted| {
        pair(
            counted,
            number(&format!("{what}_expected")),
            number(&format!("{what}_counted")),
        )
    };
    let linux_pair = |what| {
        let (expected, counted) = linux.get(what).copied().unzip();
        pair("counted", expected.into(), counted.into())
    };

    let mut guest = libkvm_pair("instructions", "counted");
    guest.insert("branches".into(), libkvm_pair("branches", "counted").into());
    let mut linux_guest = linux_pair("instructions");
    linux_guest.insert("branches".into(), linux_pair("branches").into());

    json!({
        "machine": machine,
        "cpu": boot.cpu.name,
        "pmu": boot.pmu,
        "cpus": facts.get("cpus"),
        "asked": {"machine": boot.machine, "cpus": boot.cpus},
        "provider": if debugfs["capability"]["enabled"] == "yes" { "mvpmu" } else { "none" },
        "kernel": text("kernel").trim(),
        "module_loaded": loaded,
        "log": text("log").lines().collect::<Vec<_>>(),
        "libkvm": guest,
        "linux_guest": linux_guest,
        "pmi": libkvm_pair("pmis", "delivered"),
        "exits_on_pmu_reads": number("exits_on_pmu_reads_counted"),
        "debugfs": debugfs,
        "seconds": outcome.time.as_secs(),
        "problem": outcome.problem(),
    })
}

/// Lines "key: value".
fn values(text: &str) -> Map<String, Value> {
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| {
            let value = match value.trim().parse::<u64>() {
                Ok(number) => number.into(),
                Err(_) => value.trim().into(),
            };
            (key.trim().to_owned(), value)
        })
        .collect()
}

/// Lines "count: instructions expected 2 counted 2".
fn counts(console: &str) -> BTreeMap<&str, (u64, u64)> {
    console
        .lines()
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [.., "count:", what, "expected", expected, "counted", counted] = words[..] else {
                return None;
            };
            Some((what, (expected.parse().ok()?, counted.parse().ok()?)))
        })
        .collect()
}

/// A directory with files of lines "key: value".
fn tree(directory: &Path) -> Value {
    let mut object = Map::new();
    let mut entries: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let value = match fs::read_to_string(&path) {
            Ok(text) => values(&text).into(),
            Err(_) => tree(&path),
        };
        object.insert(entry.file_name().to_string_lossy().into_owned(), value);
    }
    object.into()
}

/// What is wrong with a report, in words.
pub fn problems(report: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(problem) = report["problem"].as_str() {
        problems.push(problem.to_owned());
    }
    for what in ["machine", "cpus"] {
        let (asked, found) = (&report["asked"][what], &report[what]);
        if asked != found {
            problems.push(format!("{what}: {found} instead of {asked}"));
        }
    }
    if report["pmu"] != json!(Pmu::On) {
        // The module has to refuse, and say why.
        if report["module_loaded"] != false {
            problems.push("the module was loaded without a PMU that it supports".to_owned());
        }
        if report["log"].as_array().is_none_or(Vec::is_empty) {
            problems.push("the log does not say why the module was refused".to_owned());
        }
        return problems;
    }
    if report["module_loaded"] != true || report["provider"] != "mvpmu" {
        problems.push(format!("the module was not loaded: {}", report["log"]));
        return problems;
    }
    for (what, counted) in [
        ("/libkvm", "counted"),
        ("/libkvm/branches", "counted"),
        ("/linux_guest", "counted"),
        ("/linux_guest/branches", "counted"),
        ("/pmi", "delivered"),
    ] {
        let pair = report.pointer(what).unwrap_or(&Value::Null);
        if !pair["expected"].is_u64() || pair["expected"] != pair[counted] {
            let (expected, counted) = (&pair["expected"], &pair[counted]);
            problems.push(format!("{what}: {expected} expected, {counted} counted"));
        }
    }
    if report["exits_on_pmu_reads"] != 0 {
        let exits = &report["exits_on_pmu_reads"];
        problems.push(format!("reading the PMU caused {exits} VM exits"));
    }
    for file in ["capability", "stats"] {
        if report["debugfs"][file]
            .as_object()
            .is_none_or(Map::is_empty)
        {
            problems.push(format!("debugfs has no {file}"));
        }
    }
    if !counts_in_debugfs(&report["debugfs"]) {
        problems
            .push("debugfs does not say that the Linux guest's state was in hardware".to_owned());
    }
    problems
}

/// Whether the vCPU of a virtual machine, whose directory is PID-NUMBER, had its state in hardware.
fn counts_in_debugfs(debugfs: &Value) -> bool {
    debugfs.as_object().is_some_and(|files| {
        files.iter().any(|(name, vm)| {
            name.contains('-') && vm["vcpu0"]["loads"].as_u64().is_some_and(|loads| loads > 0)
        })
    })
}

/// The report for a person.
pub fn print(report: &Value) {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let field = |path: &str| report.pointer(path).map_or("-".to_owned(), word);
    let row = |what: &str, expected: &str, counted: &str| {
        let (expected, counted) = (field(expected), field(counted));
        let verdict = if expected == counted && expected != "-" {
            "equal"
        } else {
            "DIFFERENT"
        };
        println!("  {what:34} {expected:>9} {counted:>9}  {verdict}");
    };

    println!();
    println!(
        "machine {} ({} CPUs, PMU {}), {}",
        field("/machine"),
        field("/cpus"),
        field("/pmu"),
        field("/kernel")
    );
    for line in report["log"].as_array().into_iter().flatten() {
        println!("{}", word(line));
    }
    if report["module_loaded"] == true {
        println!("\n  {:34} {:>9} {:>9}", "", "expected", "counted");
        let libkvm = "/libkvm/expected";
        row("guest program: instructions", libkvm, "/libkvm/counted");
        row(
            "guest program: branches",
            "/libkvm/branches/expected",
            "/libkvm/branches/counted",
        );
        let linux = "/linux_guest/expected";
        row("Linux guest: instructions", linux, "/linux_guest/counted");
        row(
            "Linux guest: branches",
            "/linux_guest/branches/expected",
            "/linux_guest/branches/counted",
        );
        row(
            "overflow interrupts (PMIs)",
            "/pmi/expected",
            "/pmi/delivered",
        );
        println!(
            "  {:34} {:>19}",
            "VM exits on reads of the PMU",
            field("/exits_on_pmu_reads")
        );
    }
    if let Some(files) = report["debugfs"].as_object() {
        println!(
            "\n/sys/kernel/debug/mvpmu (of the virtual machine: when Linux in it had counted)"
        );
        for (name, value) in files {
            print_tree(name, value);
        }
    }
    println!();
}

fn print_tree(path: &str, value: &Value) {
    let Some(object) = value.as_object() else {
        return;
    };
    let leaf = object.values().all(|value| !value.is_object());
    if leaf {
        let line: Vec<_> = object
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => format!("{key}: {text}"),
                other => format!("{key}: {other}"),
            })
            .collect();
        println!("  {path}: {}", line.join(", "));
    } else {
        for (name, value) in object {
            print_tree(&format!("{path}/{name}"), value);
        }
    }
}

/// Whether the demo showed what it should, for the exit status.
pub fn succeeded(report: &Value) -> bool {
    let problems = problems(report);
    for problem in &problems {
        eprintln!("mvpmu: {problem}");
    }
    problems.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        json!({
            "machine": "amd", "cpus": 2, "asked": {"machine": "amd", "cpus": 2},
            "pmu": "on", "module_loaded": true, "provider": "mvpmu", "problem": null, "log": ["x"],
            "libkvm": {"expected": 3, "counted": 3, "branches": {"expected": 1, "counted": 1}},
            "linux_guest": {"expected": 3, "counted": 3, "branches": {"expected": 1, "counted": 1}},
            "pmi": {"expected": 2, "delivered": 2}, "exits_on_pmu_reads": 0,
            "debugfs": {
                "capability": {"vendor": "x"}, "stats": {"vms": 0}, "68-2": {"vcpu0": {"loads": 1}},
            },
        })
    }

    // Seen to fail when a pair is left out of the table.
    #[test]
    fn every_number_that_is_not_as_expected_is_a_problem() {
        assert_eq!(problems(&good()), Vec::<String>::new());
        for (path, wrong) in [
            ("/libkvm/counted", json!(4)),
            ("/libkvm/branches/counted", json!(4)),
            ("/linux_guest/counted", json!(2)),
            ("/linux_guest/branches/counted", Value::Null),
            ("/linux_guest/branches/expected", Value::Null),
            ("/pmi/delivered", json!(1)),
            ("/exits_on_pmu_reads", json!(1)),
            ("/exits_on_pmu_reads", Value::Null),
            ("/machine", json!("intel")),
            ("/cpus", Value::Null),
            ("/module_loaded", json!(false)),
            ("/provider", json!("none")),
            ("/debugfs/68-2/vcpu0/loads", json!(0)),
            ("/debugfs/stats", json!({})),
            ("/problem", json!("no end")),
        ] {
            let mut report = good();
            *report.pointer_mut(path).unwrap() = wrong;
            assert_eq!(problems(&report).len(), 1, "{path}");
        }
    }

    // Seen to fail when missing numbers are equal.
    #[test]
    fn an_empty_report_is_a_problem() {
        let empty = json!({"pmu": "on", "module_loaded": true, "provider": "mvpmu"});
        assert!(problems(&empty).len() >= 6);
    }

    // Seen to fail when the words are searched at fixed places.
    #[test]
    fn counts_are_found_behind_the_kernel_s_time() {
        let console = "[    1.0] x\r\n[  2.1] count: branches expected 5 counted 4\r\n";
        assert_eq!(counts(console)["branches"], (5, 4));
    }
}
