// SPDX-License-Identifier: GPL-2.0

//! What sampling costs: the experiment of the RFC that proposed mediated PMUs.
//!
//! A Linux guest does a fixed piece of work alone, then while perf samples it with 6 events at
//! 1 kHz, then with 10, which is more than there are counters. The overhead is that in instructions
//! of the whole machine, and what of it the host executes. Time is made of instructions, and the
//! events have a fixed period: what differs between runs is when the timer's ticks come.

pub mod branches;
mod said;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use self::said::Event;
use self::said::Said;
use crate::boot;
use crate::boot::Outcome;
use crate::job::Job;
use crate::machine::has_branch_stack;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;

const PROVIDERS: [&str; 3] = ["emulated", "c", "mvpmu"];
const LIMIT: Duration = Duration::from_secs(1800);

/// What the guest does, in this order; the first and the last without perf.
const TESTS: [&str; 4] = ["without", "basic", "multiplex", "again"];

/// Operations on PMU registers in host mode.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Operations {
    rdmsr: u64,
    wrmsr: u64,
    rdpmc: u64,
    lvtpc: u64,
}

impl Operations {
    fn since(self, before: Self) -> Self {
        Operations {
            rdmsr: self.rdmsr - before.rdmsr,
            wrmsr: self.wrmsr - before.wrmsr,
            rdpmc: self.rdpmc - before.rdpmc,
            lvtpc: self.lvtpc - before.lvtpc,
        }
    }

    fn all(self) -> u64 {
        self.rdmsr + self.wrmsr + self.rdpmc + self.lvtpc
    }
}

/// Instructions that have retired.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "[u64; 4]")]
struct Retired {
    host: u64,
    guest: u64,
}

impl From<[u64; 4]> for Retired {
    /// From those of each class: the kernel and the programs of the host, then of the guest.
    fn from(classes: [u64; 4]) -> Self {
        Retired {
            host: classes[0] + classes[1],
            guest: classes[2] + classes[3],
        }
    }
}

/// A place that the guest has marked, with what the machine had counted by then.
#[derive(Debug, Deserialize)]
struct Mark {
    number: usize,
    retired: Retired,
    host: Operations,
    vm_exits: u64,
    pmi: u64,
}

/// The machine's statistics.
#[derive(Deserialize)]
struct Stats {
    marks: Vec<Mark>,
}

/// One test with one provider.
#[derive(Clone, Debug, Serialize)]
struct Row {
    machine: &'static str,
    provider: &'static str,
    test: String,
    /// Instructions more than without perf, as a fraction.
    overhead: f64,
    /// Those of the host more than without perf, also as a fraction of all.
    overhead_host: f64,
    /// How much more a second run without perf takes: what is left to chance.
    noise: f64,
    instructions: u64,
    instructions_without: u64,
    events: usize,
    samples: u64,
    /// The duration by the guest's clock.
    nanoseconds: u64,
    vm_exits: u64,
    pmi: u64,
    host: Operations,
}

/// Runs the experiment on the machines. What ours is to keep to and does not.
pub fn run(cpus: &[Cpu], directory: &Path) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    let mut sum = None;
    for &cpu in cpus {
        let boot = Boot::of_cpu(cpu).with_instruction_clock();
        let machine = boot.machine;
        for provider in PROVIDERS {
            println!("{} sampling {provider}:", boot.name());
            let place = directory.join(format!("sampling-{}-{provider}", machine.name()));
            let tests = sample(&boot, provider, (&place, true))?;
            // The work is the same wherever it is done.
            let sum = *sum.get_or_insert(tests[0].said.sum);
            ensure!(sum == tests[0].said.sum, "{}: other work", place.display());
            rows.extend(self::rows(machine, provider, &tests));
        }
    }
    fs::create_dir_all(directory)?;
    let path = directory.join("sampling.json");
    let json = serde_json::to_string_pretty(&rows)? + "\n";
    fs::write(&path, json).with_context(|| path.display().to_string())?;
    show(&rows);
    println!("{}", path.display());
    let mut failed = broken(&rows);

    let mut costs = Vec::new();
    for &cpu in cpus.iter().filter(|&&cpu| has_branch_stack(cpu)) {
        let boot = Boot::of_cpu(cpu).with_instruction_clock();
        println!("{} sampling with branch stacks:", boot.name());
        let place = directory.join(format!("branches-{}", boot.machine.name()));
        let of_this = branches::measure(&boot, &place, true)?;
        failed.extend(branches::broken(boot.machine, &of_this));
        costs.extend(of_this);
    }
    branches::write(&costs, &directory.join("branches.json"))?;
    Ok(failed)
}

/// What ours may add, as a share of what the C code adds: in all, and in the host.
///
/// On the AMD machine two fifths are the guest's own perf, and of the host's part KVM's exits for its
/// interrupts and selectors are the most. Neither depends on who switches the PMU: of what the C code
/// adds, 0.8 would be left if that cost nothing (make listing MACHINE=amd SCENARIO=sampling-10).
fn shares(machine: &str) -> (f64, f64) {
    match machine {
        "amd" => (0.9, 0.75),
        _ => (0.7, 0.7),
    }
}

/// The rows of ours that cost too much.
fn broken(rows: &[Row]) -> Vec<String> {
    let of = |provider| rows.iter().filter(move |row| row.provider == provider);
    of("mvpmu")
        .filter(|ours| {
            let c = of("c").find(|c| (c.machine, &c.test) == (ours.machine, &ours.test));
            let (all, host) = shares(ours.machine);
            !c.is_some_and(|c| {
                ours.overhead <= all * c.overhead && ours.overhead_host <= host * c.overhead_host
            })
        })
        .map(|ours| {
            let Row { machine, test, .. } = ours;
            let (all, host) = shares(machine);
            format!(
                "{machine} {test}: sampling costs {all} of what it costs with the C code, the host {host}"
            )
        })
        .collect()
}

/// Boots, and lets a guest sample.
pub fn sample(boot: &Boot, provider: &str, place: (&Path, bool)) -> Result<Vec<Test>> {
    sampled(boot, &[provider], &TESTS, place)
}

/// Boots with these arguments of the job; in the guest there have to be these tests.
fn sampled(
    boot: &Boot,
    arguments: &[&str],
    names: &[&str],
    (place, echo): (&Path, bool),
) -> Result<Vec<Test>> {
    let outcome = run_job(boot, arguments, (place, echo))?;
    let stats = fs::read_to_string(place.join("stats"))?;
    tests(&outcome.read("guest")?, &stats, names)
        .and_then(|tests| check(arguments[0], &tests).map(|()| tests))
        .with_context(|| place.display().to_string())
}

fn run_job(boot: &Boot, arguments: &[&str], (place, echo): (&Path, bool)) -> Result<Outcome> {
    let mut job = Job::new("sampling");
    job.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
    job.linux_guest = true;
    let outcome = boot::run(boot, &job, place, LIMIT, echo)?;
    let problem = outcome.violations.clone().or(outcome.problem());
    ensure!(problem.is_none(), "{}", problem.unwrap_or_default());
    Ok(outcome)
}

/// A test, as the guest and the machine have seen it.
#[derive(Debug)]
pub struct Test {
    said: Said,
    from: Mark,
    to: Mark,
}

impl Test {
    fn host(&self) -> u64 {
        self.to.retired.host - self.from.retired.host
    }

    fn guest(&self) -> u64 {
        self.to.retired.guest - self.from.retired.guest
    }

    fn instructions(&self) -> u64 {
        self.host() + self.guest()
    }
}

/// The tests, of these names, from what the guest has said and the machine's statistics.
fn tests(guest: &str, stats: &str, names: &[&str]) -> Result<Vec<Test>> {
    let stats: Stats = serde_json::from_str(stats)?;
    let mut marks = stats.marks.into_iter();
    let mut tests = Vec::new();
    for said in said::said(guest, names)? {
        tests.push(Test {
            said,
            from: marks.next().context("a mark is missing")?,
            to: marks.next().context("a mark is missing")?,
        });
    }
    let numbers = tests
        .iter()
        .flat_map(|test| [test.from.number, test.to.number]);
    ensure!(
        numbers.eq(0..2 * names.len()) && marks.next().is_none(),
        "the marks are not those of the tests"
    );
    Ok(tests)
}

/// Whether the tests have measured what they should. The PMU that perf emulates is not asked to be
/// exact.
fn check(provider: &str, tests: &[Test]) -> Result<()> {
    for test in tests {
        let name = &test.said.name;
        ensure!(
            test.said.sum == tests[0].said.sum,
            "{name}: the work was not the same"
        );
        let exact = provider != "emulated";
        test.said.check(exact.then(|| test.guest()))?;
        // 10 take turns on the counters, others need not.
        let in_turns = |event: &Event| event.running < event.enabled;
        ensure!(
            test.said
                .events
                .iter()
                .all(|event| in_turns(event) == (name == "multiplex")),
            "{name}: the number of events does not match that of counters"
        );
    }
    Ok(())
}

/// A row for each test with perf.
fn rows(machine: Machine, provider: &'static str, tests: &[Test]) -> Vec<Row> {
    let without = tests[0].instructions();
    let more = |with: u64, alone: u64| {
        let more = (with as f64 - alone as f64) / without as f64;
        (more * 1e6).round() / 1e6
    };
    let overhead = |test: &Test| more(test.instructions(), without);
    let noise = tests.last().map_or(0.0, overhead);
    tests
        .iter()
        .filter(|test| !test.said.events.is_empty())
        .map(|test| Row {
            machine: machine.name(),
            provider,
            test: test.said.name.clone(),
            overhead: overhead(test),
            overhead_host: more(test.host(), tests[0].host()),
            noise,
            instructions: test.instructions(),
            instructions_without: without,
            events: test.said.events.len(),
            samples: test.said.samples(),
            nanoseconds: test.said.nanoseconds,
            vm_exits: test.to.vm_exits - test.from.vm_exits,
            pmi: test.to.pmi - test.from.pmi,
            host: test.to.host.since(test.from.host),
        })
        .collect()
}

/// The overhead and the number of samples, a line for each test.
fn show(rows: &[Row]) {
    println!("instructions more by sampling at 1 kHz in a Linux guest (samples)");
    println!(
        "{:24} {:>18} {:>18} {:>18}",
        "", PROVIDERS[0], "C", PROVIDERS[2]
    );
    let mut cells: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for row in rows {
        let text = format!("{:.2} % ({})", 100.0 * row.overhead, row.samples);
        let key = (row.machine, &row.test);
        cells.entry(key).or_default().insert(row.provider, text);
    }
    for ((machine, test), cells) in cells {
        let line: Vec<_> = PROVIDERS
            .iter()
            .map(|provider| format!("{:>18}", cells.get(provider).map_or("", String::as_str)))
            .collect();
        println!("{:24} {}", format!("{machine} {test}"), line.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "\
reboot: something else
sampling: test without sum 7 nanoseconds 50
sampling: test basic sum 7 nanoseconds 60
sampling: event basic count 600 period 300 enabled 60 running 60 samples 2 lost 0 throttled 0
sampling: event basic count 600 period 200 enabled 60 running 60 samples 3 lost 0 throttled 0
sampling: test multiplex sum 7 nanoseconds 70
sampling: event multiplex count 400 period 300 enabled 70 running 40 samples 1 lost 0 throttled 0
sampling: test again sum 7 nanoseconds 50
sampling: end
";

    /// Marks 0, 1, ...; test n takes 500 + 100 n instructions of the guest and 500 + 200 n of the
    /// host, n exits, 2 n PMIs and 3 n RDMSR.
    fn stats() -> String {
        let mut marks = Vec::new();
        let (mut guest, mut host, mut n_sum) = (0, 0, 0);
        for mark in 0..8u64 {
            if mark % 2 == 1 {
                guest += 500 + 100 * (mark / 2);
                host += 500 + 200 * (mark / 2);
                n_sum += mark / 2;
            } else {
                guest += 12345;
                host += 6789;
            }
            marks.push(serde_json::json!({
                "number": mark, "retired": [host, 0, guest - 7, 7], "vm_exits": n_sum, "pmi": 2 * n_sum,
                "host": {"rdmsr": 3 * n_sum, "wrmsr": 0, "rdpmc": 0, "lvtpc": 0},
            }));
        }
        serde_json::json!({"machine": "x", "marks": marks, "cpus": []}).to_string()
    }

    // Has to fail when a row takes the marks of another test, or forgets an event.
    #[test]
    fn a_row_compares_a_test_with_the_one_without_perf() {
        let tests = tests(GUEST, &stats(), &TESTS).unwrap();
        check("c", &tests).unwrap();
        let rows = rows(Machine::Amd, "c", &tests);
        let names: Vec<_> = rows.iter().map(|row| row.test.as_str()).collect();
        assert_eq!(names, ["basic", "multiplex"]);
        assert_eq!((rows[0].overhead, rows[1].overhead), (0.3, 0.6));
        assert_eq!((rows[0].overhead_host, rows[1].overhead_host), (0.2, 0.4));
        assert_eq!(rows[0].noise, 0.9);
        assert_eq!((rows[0].events, rows[0].samples), (2, 5));
        let row = &rows[1];
        assert_eq!((row.vm_exits, row.pmi, row.host.rdmsr), (2, 4, 6));
        assert_eq!((row.instructions, row.instructions_without), (1600, 1000));
        assert_eq!(row.nanoseconds, 70);
    }

    // Has to fail when an experiment that measured nothing passes.
    #[test]
    fn what_was_not_measured_is_an_error() {
        for (from, to) in [
            ("basic sum 7", "basic sum 8"),
            ("samples 3", "samples 0"),
            ("samples 3", "samples 4"),
            ("count 600 period 300", "count 560 period 280"),
            ("samples 3 lost 0", "samples 3 lost 1"),
            (
                "throttled 0\nsampling: test multiplex",
                "throttled 1\nsampling: test multiplex",
            ),
            ("running 40", "running 70"),
            ("running 60 samples 3", "running 59 samples 3"),
        ] {
            let guest = GUEST.replace(from, to);
            assert_ne!(guest, GUEST);
            let tests = tests(&guest, &stats(), &TESTS).unwrap();
            assert!(check("mvpmu", &tests).is_err(), "{to}");
        }
    }

    // Has to fail when ours is compared with itself, or with another test.
    #[test]
    fn ours_is_to_cost_less_than_the_c_code() {
        let tests = tests(GUEST, &stats(), &TESTS).unwrap();
        let with = |provider, times: f64| {
            let mut rows = rows(Machine::Intel, provider, &tests);
            for row in &mut rows {
                row.overhead *= times;
                row.overhead_host *= times;
            }
            rows
        };
        let broken = |basic, multiplex| {
            let (c, mut ours) = (with("c", 1.0), with("mvpmu", basic));
            ours[1] = with("mvpmu", multiplex).remove(1);
            broken(&[c, ours].concat()).len()
        };
        assert_eq!(broken(0.69, 0.69), 0);
        assert_eq!(broken(0.71, 0.69), 1);
        assert_eq!(broken(0.71, 0.71), 2);
        assert_eq!(super::broken(&with("mvpmu", 0.5)).len(), 2);
    }

    // Has to fail when a run that ended early, or marks of somebody else, give rows.
    #[test]
    fn what_is_missing_is_an_error() {
        for (from, to) in [
            ("sampling: end\n", ""),
            ("sampling: test again sum 7 nanoseconds 50\n", ""),
            ("sampling: end", "sampling: sampling: mmap: no memory"),
        ] {
            let guest = GUEST.replace(from, to);
            assert_ne!(guest, GUEST);
            assert!(tests(&guest, &stats(), &TESTS).is_err(), "{to}");
        }
        for (from, to) in [("\"number\":7", "\"number\":8"), ("\"marks\"", "\"mark\"")] {
            let stats = stats().replace(from, to);
            assert!(tests(GUEST, &stats, &TESTS).is_err(), "{to}");
        }
    }
}
