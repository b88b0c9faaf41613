// SPDX-License-Identifier: GPL-2.0

//! What samples with branch stacks cost in a Linux guest, beside what they cost in L1 without KVM.
//!
//! Of both it is what the whole work takes more than without perf, by the number of samples, which are
//! so many that ticks of the timer do not matter. The rate does not matter either: each sample costs the
//! same. In the guest there are VM exits beside: those of the PMI, its delivery, selectors that KVM has to
//! look at; and on Intel CPUs each PMI reads IA32_DEBUGCTL, which exits, too.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

use super::run_job;
use super::said::said;
use super::sampled;
use super::Test;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::tap::Case;
use crate::tap::Verdict;

/// What is done in both, in this order; of these, with samples.
const TESTS: [&str; 4] = ["without", SINGLE, BRANCHES, "again"];
const SINGLE: &str = "single";
const BRANCHES: &str = "branches";

/// The word for the job, and in L1 without KVM the provider.
const WORD: &str = "branches";
const NO_PROVIDER: &str = "none";

/// What a sample costs in instructions, with and without a branch stack.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Cost {
    machine: String,
    test: String,
    /// In L1 without KVM.
    l1: f64,
    /// In a guest: its own, and the host's.
    guest: f64,
    host: f64,
    /// VM exits and operations on PMU registers in the host.
    vm_exits: f64,
    operations: f64,
}

/// How much more it is for each of the samples.
fn each(with: u64, without: u64, samples: u64) -> f64 {
    let each = (with as f64 - without as f64) / samples as f64;
    (each * 100.0).round() / 100.0
}

/// The instructions of a sample in L1, from what the program has said.
fn in_l1(text: &str) -> Result<Vec<f64>> {
    let tests = said(text, &TESTS)?;
    let instructions = |n: usize| tests[n].instructions.context("no instructions");
    let without = instructions(0)?;
    [1, 2]
        .into_iter()
        .map(|n| {
            let executed = instructions(n)?;
            tests[n].check(Some(executed))?;
            Ok(each(executed, without, tests[n].samples()))
        })
        .collect()
}

fn costs(machine: Machine, l1: &[f64], tests: &[Test]) -> Vec<Cost> {
    let without = &tests[0];
    let with = l1.iter().zip(&tests[1..]);
    with.map(|(&l1, test)| {
        let of = |value: fn(&Test) -> u64| each(value(test), value(without), test.said.samples());
        Cost {
            machine: machine.name().to_owned(),
            test: test.said.name.clone(),
            l1,
            guest: of(Test::guest),
            host: of(Test::host),
            vm_exits: of(|test| test.to.vm_exits - test.from.vm_exits),
            operations: of(|test| test.to.host.since(test.from.host).all()),
        }
    })
    .collect()
}

/// Boots twice: in the first L1 there is no KVM.
pub fn measure(boot: &Boot, directory: &Path, echo: bool) -> Result<Vec<Cost>> {
    let place = directory.join("l1");
    let outcome = run_job(boot, &[NO_PROVIDER, WORD], (&place, echo))?;
    let l1 = in_l1(&outcome.read("guest")?).with_context(|| place.display().to_string())?;
    let place = directory.join("guest");
    let tests = sampled(boot, &["mvpmu", WORD], &TESTS, (&place, echo))?;
    Ok(costs(boot.machine, &l1, &tests))
}

/// By each sample: the guest's switches of tasks write IA32_DEBUGCTL, which KVM intercepts; they are fewer
/// than every second sample.
const BY_THE_WAY: f64 = 0.5;

/// What a sample may cost, of `perf record` and `perf record -b`.
pub fn judge(machine: Machine, costs: &[Cost]) -> Vec<Case> {
    let of = |test| {
        let mut costs = costs.iter();
        costs.find(|cost| cost.machine == machine.name() && cost.test == test)
    };
    let (single, branches) = (of(SINGLE), of(BRANCHES));
    let case = |name: &str, holds: fn(&Cost, &Cost) -> bool| {
        let holds = single.zip(branches).is_some_and(|(a, b)| holds(a, b));
        Case::new(name.to_owned(), holds, || {
            format!("{single:?}, {branches:?}")
        })
    };
    vec![
        case(
            "a sample costs a guest 1.1 of what it costs without KVM, and VM exits",
            |single, _| single.guest <= 1.1 * single.l1,
        ),
        case("with its branch stack, too", |_, branches| {
            branches.guest <= 1.1 * branches.l1
        }),
        // On Intel CPUs the PMI reads IA32_DEBUGCTL.
        case(
            "for the branch stack it has no VM exit more on AMD CPUs, one on Intel's",
            |single, branches| {
                let one = f64::from(u8::from(single.machine == Machine::Intel.name()));
                branches.vm_exits - single.vm_exits <= one + BY_THE_WAY
            },
        ),
        case(
            "and the host touches no register more",
            |single, branches| branches.operations - single.operations <= BY_THE_WAY,
        ),
    ]
}

/// What of it does not hold, after saying so.
pub fn broken(machine: Machine, costs: &[Cost]) -> Vec<String> {
    let cases = judge(machine, costs).into_iter();
    let failed = cases.filter_map(|case| match case.verdict {
        Verdict::Failed(why) => Some((case.name, why)),
        _ => None,
    });
    failed
        .map(|(rule, why)| {
            println!("{}: not kept: {rule}\n{why}", machine.name());
            rule
        })
        .collect()
}

/// Measures on the machine, and tests that.
pub fn test(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    Ok(judge(boot.machine, &measure(boot, directory, false)?))
}

/// The table for README.md.
pub fn markdown(costs: &[Cost]) -> String {
    let mut text = String::new();
    for machine in [Machine::Amd, Machine::Intel] {
        let title = match machine {
            Machine::Amd => "AMD",
            Machine::Intel => "Intel",
        };
        for (test, what) in [(SINGLE, "without"), (BRANCHES, "with its branch stack")] {
            let mut costs = costs.iter();
            let of = |cost: &&Cost| cost.machine == machine.name() && cost.test == test;
            if let Some(Cost {
                l1, guest, host, ..
            }) = costs.find(of)
            {
                text.push_str(&format!(
                    "| {title} machine, {what} | {l1:.0} | {guest:.0} | {host:.0} |\n"
                ));
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nInstructions of a sample, in L1 without KVM, and in a guest with mvpmu:\n\n\
         | sample | without KVM | guest | its host |\n| --- | --- | --- | --- |\n{text}"
    )
}

/// Writes the costs to a file.
pub fn write(costs: &[Cost], path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(costs)? + "\n";
    fs::write(path, json).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const L1: &str = "\
sampling: test without sum 7 nanoseconds 50
sampling: instructions without 1000
sampling: test single sum 7 nanoseconds 60
sampling: instructions single 1020
sampling: event single count 1020 period 510 enabled 60 running 60 samples 2 lost 0 throttled 0
sampling: test branches sum 7 nanoseconds 70
sampling: instructions branches 1100
sampling: branches branches 64
sampling: event branches count 1100 period 550 enabled 70 running 70 samples 2 lost 0 throttled 0
sampling: test again sum 7 nanoseconds 50
sampling: instructions again 1000
sampling: end
";

    // Has to fail when a sample is compared with another one, or one without branches passes.
    #[test]
    fn a_sample_costs_what_is_more_than_without() {
        assert_eq!(in_l1(L1).unwrap(), [10.0, 50.0]);
        for (from, to) in [
            ("branches branches 64", "branches branches 2"),
            ("instructions without 1000\n", "instructions again 1000\n"),
            (
                "samples 2 lost 0 throttled 0\nsampling: test branches",
                "samples 3 lost 0 throttled 0\nsampling: test branches",
            ),
            ("instructions single 1020", "instructions single 2020"),
            ("sampling: end", ""),
        ] {
            let text = L1.replacen(from, to, 1);
            assert_ne!(text, L1);
            assert!(in_l1(&text).is_err(), "{to}");
        }
    }

    fn cost(test: &str, (guest, vm_exits, operations): (f64, f64, f64)) -> Cost {
        Cost {
            machine: "amd".to_owned(),
            test: test.to_owned(),
            l1: 100.0,
            guest,
            host: 1000.0,
            vm_exits,
            operations,
        }
    }

    // Has to fail when a rule looks at the other row or value, or holds without rows.
    #[test]
    fn each_rule_can_be_broken() {
        let passed = |machine, single, branches| {
            let costs = [cost(SINGLE, single), cost(BRANCHES, branches)];
            let cases = judge(machine, &costs).into_iter();
            let passed = cases.map(|case| case.verdict == Verdict::Passed);
            passed.collect::<Vec<_>>()
        };
        let good = (110.0, 2.0, 3.0);
        assert_eq!(passed(Machine::Amd, good, good), [true; 4]);
        assert_eq!(passed(Machine::Intel, good, good), [false; 4]);
        for (single, branches, broken) in [
            ((111.0, 2.0, 3.0), good, 0),
            (good, (111.0, 2.0, 3.0), 1),
            (good, (110.0, 2.6, 3.0), 2),
            (good, (110.0, 2.0, 3.6), 3),
        ] {
            let expected: Vec<_> = (0..4).map(|rule| rule != broken).collect();
            assert_eq!(passed(Machine::Amd, single, branches), expected);
        }
    }
}
