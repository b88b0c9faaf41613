// SPDX-License-Identifier: GPL-2.0

//! Linux on the machine.
//!
//! These need the Bochs core and a kernel with CONFIG_MPPARSE, CONFIG_X86_X2APIC
//! and CONFIG_SERIAL_8250_CONSOLE:
//! `MVPMU_BOCHS=FILE MVPMU_KERNEL=vmlinux cargo test --release -- --include-ignored`.

use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

struct Boot {
    status: i32,
    console: String,
    stats: String,
}

/// Boots without a root file system: Linux panics when it looks for one, and
/// resets the machine.
fn boot(name: &str, options: &[&str]) -> Boot {
    let variable = |name| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let stats = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.stats"));
    let output = Command::new(env!("CARGO_BIN_EXE_bochs-vmm"))
        .arg("--bochs")
        .arg(variable("MVPMU_BOCHS"))
        .arg("--kernel")
        .arg(variable("MVPMU_KERNEL"))
        .args([
            "--append",
            "console=ttyS0 panic=-1",
            "--mem",
            "256",
            "--stats",
        ])
        .arg(&stats)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Boot {
        status: output.status.code().expect("no signal ended the machine"),
        console: String::from_utf8_lossy(&output.stdout).into_owned(),
        stats: std::fs::read_to_string(&stats).unwrap(),
    }
}

#[test]
#[ignore = "needs the Bochs core and a kernel"]
fn two_boots_have_the_same_console_and_the_same_number_of_instructions() {
    let (first, second) = (boot("first", &[]), boot("second", &[]));
    assert!(first.console.contains("Kernel panic - not syncing"));
    assert_eq!(first.console, second.console);
    assert_eq!(first.stats, second.stats);
    assert_eq!((first.status, second.status), (3, 3));
}

// Has to fail when an entry of the MultiProcessor table, or a start-up IPI, is missing.
#[test]
#[ignore = "needs the Bochs core and a kernel"]
fn linux_starts_all_cpus_and_does_so_again() {
    for (cpus, said) in [
        ("2", "smp: Brought up 1 node, 2 CPUs"),
        ("4", "smp: Brought up 1 node, 4 CPUs"),
    ] {
        let run = |name: &str| boot(&format!("{name}-{cpus}"), &["--cpus", cpus]);
        let (first, second) = (run("cpus"), run("cpus-again"));
        assert!(first.console.contains(said), "{}", first.console);
        assert_eq!(first.console, second.console);
        assert_eq!(first.stats, second.stats);
    }
}

#[test]
#[ignore = "needs the Bochs core and a kernel"]
fn linux_finds_the_pmu_that_is_there() {
    for (options, said) in [
        (
            &[][..],
            "Architectural LBR, 32-deep LBR, full-width counters, Intel PMU driver",
        ),
        (
            &["--pmu", "on,no-full-width", "--lbr", "off"],
            "Sapphire Rapids events, AnyThread deprecated, Intel PMU",
        ),
        (&["--cpu", "icelake"], "Icelake events"),
        (
            &["--cpu", "skylake"],
            "Skylake events, 32-deep LBR, full-width counters",
        ),
        (&["--pmu", "off"], "no PMU driver, software events only"),
    ] {
        let console = boot(&options.join("-"), options).console;
        assert!(console.contains(said), "{options:?}: {console}");
    }
}
