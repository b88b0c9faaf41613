// SPDX-License-Identifier: GPL-2.0

//! The commands that README.md, CONTRIBUTING.md, the manuals and the kernel's pages show, and which test
//! runs each of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::page;
use crate::suite;
use crate::suite::Length;
use crate::suite::Names;
use crate::tap;
use crate::tap::Case;
use crate::tap::Verdict;

/// What runs a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// make, as it is shown, in a fresh checkout.
    Checkout,
    /// The same, but it takes too long for others than `make test-long`.
    CheckoutLong,
    /// The job `shown`, as it is shown, in L1.
    Host,
    /// These tests themselves: CI calls them.
    Itself,
    /// A group of tests does the same work, with what is said here.
    Group(&'static str, &'static str),
    /// It selects groups of tests, which there have to be.
    Selection,
    /// Nothing: it is no command, for this reason.
    NoCommand(&'static str),
}

use By::Checkout;
use By::CheckoutLong;
use By::Group;
use By::Host;
use By::Itself;
use By::NoCommand;
use By::Selection;

const AS_SHOWN: &str = "as it is shown";

/// In the order in which they are run.
const TABLE: [(&str, By); 62] = [
    ("make help", Checkout),
    ("make tools", Checkout),
    ("make demo", Checkout),
    ("make demo MACHINE=intel", CheckoutLong),
    ("make demo CPU=icelake", CheckoutLong),
    ("make demo PMU=off", Checkout),
    ("make shell", Checkout),
    ("make apply KDIR=../linux", Checkout),
    ("make shell KERNEL_IMAGE=../linux", Checkout),
    (
        "make shell KERNEL_IMAGE=../bzImage COMMAND='uname -a' MACHINE=intel",
        Checkout,
    ),
    (
        "make shell KERNEL_IMAGE=../bzImage INITRD=../initrd.img",
        Checkout,
    ),
    ("make patches", Checkout),
    ("make image", Checkout),
    (
        "mkdir -p /media/stick/EFI/BOOT /media/stick/mvpmu",
        Group("amd image", "in the image of a stick"),
    ),
    (
        "cp build/image/mvpmu.efi /media/stick/EFI/BOOT/BOOTX64.EFI",
        Group("amd image", "in the image of a stick"),
    ),
    (
        "mvpmu-report /media/stick/mvpmu/report-1.json",
        Group("amd image", "with a report from there"),
    ),
    (
        "mvpmu-report report-1.json",
        Group("amd image", "with a report from a stick"),
    ),
    (
        "mvpmu-report zen5/report-1.json zen4/report-1.json",
        Group("cargo test", "with reports that are recorded"),
    ),
    (
        "make listing MACHINE=intel SCENARIO=io HOST=event",
        CheckoutLong,
    ),
    ("make listing SCENARIO=sampling-10", CheckoutLong),
    ("make bench", CheckoutLong),
    ("load-kvm", Host),
    ("insmod /modules/mvpmu.ko enable_passthrough_pmu=1", Host),
    ("cat /sys/kernel/debug/mvpmu/capability", Host),
    ("cat /sys/kernel/debug/mvpmu/stats", Host),
    ("rmmod mvpmu", Host),
    ("insmod mvpmu.ko enable_passthrough_pmu=1", Host),
    ("dmesg | grep -e mvpmu -e PMU", Host),
    ("dmesg | grep 'Performance Events'", Host),
    ("mvpmu-top --once --totals --sort contend", Host),
    (
        "mvpmu-top --openmetrics --output /var/lib/node_exporter/mvpmu.prom",
        Host,
    ),
    (
        "mvpmu-check && modprobe mvpmu enable_passthrough_pmu=1",
        Host,
    ),
    (
        "perf trace -e 'mvpmu:*'",
        Group("amd perf and tracepoints", "while a guest counts"),
    ),
    (
        "perf record -b",
        Group("amd branches of perf", "of a program that is a loop"),
    ),
    (
        "perf record --call-graph lbr",
        Group("intel branches of perf", "of a program that calls"),
    ),
    (
        "perf record -e intel_pt//u",
        Group("intel traces of perf", "without time stamps"),
    ),
    ("make test", Itself),
    ("make test-long", Selection),
    ("make test GROUP=sources", Selection),
    ("make test GROUP='amd KUnit'", Selection),
    ("make test GROUP='VM exits'", Selection),
    ("make test-long GROUP='every KVM selftest'", Selection),
    ("make test-long GROUP='amd linux guests mvpmu'", Selection),
    ("make test GROUP='traces of perf'", Selection),
    ("make test GROUP=pt=host_guest", Selection),
    ("make test GROUP='10^5'", Selection),
    ("make test-long GROUP='mutants of Linux'", Selection),
    ("make test GROUP='samples with branch stacks'", Selection),
    ("make test-long GROUP='with the watchdog'", Selection),
    ("make deb", Group("deb packages", "CONFIG=small")),
    (
        "make deb CONFIG=cloud",
        Group("deb packages", "CONFIG=small"),
    ),
    ("apt install", Group("deb packages", "with file names")),
    ("make unapply", Group("apply", "on trees of its own")),
    ("make menuconfig", Group("options", AS_SHOWN)),
    (
        "make fuzz",
        Group("amd differential mvpmu", "fewer programs"),
    ),
    (
        "make calls",
        Group("amd random calls mvpmu", "fewer programs"),
    ),
    (
        "make sweep",
        Group("intel sweep, increment", "in fewer places"),
    ),
    (
        "make listing",
        Group("amd VM exits", "the same scenarios, not by function"),
    ),
    (
        "scripts/mutants.sh drivers/virt/mvpmu DIRECTORY",
        Group("amd mutants", "by the build of the kernel"),
    ),
    (
        "perf cannot lend this PMU to guests",
        NoCommand("a line of the log"),
    ),
    ("perf -e cycles:H", NoCommand("a part of one")),
    ("modprobe mvpmu enable_passthrough_pmu=1", Host),
];

/// What checkout-test.sh leaves.
const RESULTS: &str = "build/shown/checkout.tap";

/// The commands for a fresh checkout.
pub fn in_checkout(length: Length) -> Vec<&'static str> {
    let wanted = |by: By| by == Checkout || length == Length::Long && by == CheckoutLong;
    let commands = TABLE.iter().filter(|(_, by)| wanted(*by));
    commands.map(|(command, _)| *command).collect()
}

/// The commands for L1.
pub fn on_host() -> Vec<&'static str> {
    let commands = TABLE.iter().filter(|(_, by)| *by == Host);
    commands.map(|(command, _)| *command).collect()
}

/// Each command that is shown, with a page that shows it.
fn shown() -> Result<BTreeMap<String, PathBuf>> {
    let mut shown = BTreeMap::new();
    let mut pages: Vec<_> = [
        "README.md",
        "CONTRIBUTING.md",
        "tools/testing/mvpmu/README.md",
    ]
    .map(PathBuf::from)
    .to_vec();
    for directory in ["Documentation/virt/kvm/x86", "tools/kvm/mvpmu/man"] {
        for entry in fs::read_dir(directory).context(directory)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|ending| ending == "rst" || ending == "1")
            {
                pages.push(path);
            }
        }
    }
    for path in pages {
        let text = page::without_recipes(&path)?;
        for command in page::commands(&path, &text) {
            shown.insert(command, path.clone());
        }
    }
    Ok(shown)
}

/// Whether GROUP= in a command, or its absence, selects groups of tests of those that `make test`, or
/// `make test-long`, has.
fn selects(command: &str, groups: &Names) -> bool {
    let text = command.split_once("GROUP=").map_or("", |(_, text)| text);
    let text = text.trim_matches('\'');
    let of_command = match command.starts_with("make test-long") {
        true => &groups.long,
        false => &groups.usual,
    };
    of_command
        .iter()
        .any(|group| suite::means(text, group, &groups.long))
}

/// What is wrong with a row of the table, if anything.
fn problem(command: &str, by: By, groups: &Names, results: &[Case]) -> Option<String> {
    match by {
        Checkout => match results.iter().find(|case| case.name == command) {
            None => Some(format!("{RESULTS} does not have it: make test writes it")),
            Some(case) => match &case.verdict {
                Verdict::Passed => None,
                Verdict::Failed(why) | Verdict::Skipped(why) => Some(why.clone()),
            },
        },
        // Not in each run; what it did is shown in any case.
        CheckoutLong => None,
        Group(name, _) if groups.long.iter().any(|group| group == name) => None,
        Group(name, _) => Some(format!("there is no group '{name}'")),
        Selection if selects(command, groups) => None,
        Selection => Some("there is no such group".to_owned()),
        Host | Itself | NoCommand(_) => None,
    }
}

/// How a command is run, for people.
fn how(command: &str, by: By) -> String {
    match by {
        Checkout => format!("{command}: in a fresh checkout"),
        CheckoutLong => format!("{command}: in a fresh checkout, by make test-long"),
        Host => format!("{command}: in the groups 'shown commands' of the machines"),
        Itself => format!("{command}: by CI"),
        Selection => format!("{command}: there are such groups"),
        Group(name, how) => format!("{command}: by '{name}', {how}"),
        NoCommand(what) => format!("{command}: {what}"),
    }
}

/// Each command that is shown is run by a test, and each row of the table is of one that is shown.
fn judge(
    table: &[(&str, By)],
    shown: &BTreeMap<String, PathBuf>,
    groups: &Names,
    results: &[Case],
) -> Vec<Case> {
    let mut cases = Vec::new();
    for (command, page) in shown {
        if !table.iter().any(|(known, _)| known == command) {
            let page = page.display();
            let why = format!("{page} shows it, and no test runs it: see runner/src/shown.rs");
            cases.push(Case::failed(command, why));
        }
    }
    for &(command, by) in table {
        let why = match shown.contains_key(command) {
            true => problem(command, by, groups, results),
            false => Some("no page shows it".to_owned()),
        };
        cases.push(Case::new(how(command, by), why.is_none(), || {
            why.unwrap_or_default()
        }));
    }
    // What no row waits for: of commands that take long, and of the checkout itself.
    let waits = |case: &&Case| {
        let mut rows = table.iter().filter(|(_, by)| *by == Checkout);
        rows.any(|(command, _)| *command == case.name)
    };
    cases.extend(results.iter().filter(|case| !waits(case)).cloned());
    cases
}

/// The table against the documentation, the groups of tests and what make has left.
pub fn test(_: &Path) -> Result<Vec<Case>> {
    let results = fs::read_to_string(RESULTS).unwrap_or_default();
    let groups = Names::new()?;
    Ok(judge(&TABLE, &shown()?, &groups, &tap::parse(&results)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [(&str, By); 4] = [
        ("make a", Checkout),
        ("make b", Group("amd b", "")),
        ("make test GROUP='b c'", Selection),
        ("c", Host),
    ];

    fn failures(shown: &[&str], groups: &[&str], results: &[Case]) -> Vec<String> {
        let shown = shown
            .iter()
            .map(|&command| (command.to_owned(), PathBuf::new()));
        let usual: Vec<_> = groups.iter().map(|&group| group.to_owned()).collect();
        let long = usual.clone();
        let groups = Names { usual, long };
        let cases = judge(&TABLE, &shown.collect(), &groups, results);
        tap::failures(&cases)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    const SHOWN: [&str; 4] = ["c", "make a", "make b", "make test GROUP='b c'"];
    const GROUPS: [&str; 2] = ["amd b", "intel b c"];

    // Has to fail when a command that nobody knows, or a row that nobody needs, is let through.
    #[test]
    fn the_table_has_what_is_shown_and_nothing_else() {
        let ran = [Case::passed("make a")];
        assert!(failures(&SHOWN, &GROUPS, &ran).is_empty());
        let more = [&SHOWN[..], &["make d"]].concat();
        assert_eq!(failures(&more, &GROUPS, &ran), ["make d"]);
        assert_eq!(failures(&SHOWN[1..], &GROUPS, &ran), [how("c", Host)]);
    }

    // Has to fail when part of a group's name is enough for a row, or needed for a selection.
    #[test]
    fn groups_have_to_be_there() {
        let ran = [Case::passed("make a")];
        let b = how("make b", TABLE[1].1);
        assert_eq!(failures(&SHOWN, &["amd b 2", "b c"], &ran), [b]);
        let selection = how(SHOWN[3], Selection);
        assert_eq!(failures(&SHOWN, &["amd b"], &ran), [selection]);
    }

    // Has to fail when make test is believed to have the groups of make test-long.
    #[test]
    fn a_selection_is_of_the_command_that_has_the_group() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let groups = Names {
            usual: names(&["amd b"]),
            long: names(&["amd b", "amd c"]),
        };
        assert!(selects("make test-long GROUP=c", &groups));
        assert!(!selects("make test GROUP=c", &groups));
        assert!(selects("make test GROUP='amd b'", &groups));
    }

    // Has to fail when a result that is missing, or one that nobody waits for, is no matter.
    #[test]
    fn what_make_has_left_counts() {
        let a = how("make a", Checkout);
        assert_eq!(failures(&SHOWN, &GROUPS, &[]), std::slice::from_ref(&a));
        let failed = |name: &str| Case::failed(name, "x");
        assert_eq!(failures(&SHOWN, &GROUPS, &[failed("make a")]), [a]);
        let results = [Case::passed("make a"), failed("make bench")];
        assert_eq!(failures(&SHOWN, &GROUPS, &results), ["make bench"]);
    }
}
