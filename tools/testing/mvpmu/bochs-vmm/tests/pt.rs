// SPDX-License-Identifier: GPL-2.0

//! Intel PT as a program on the machine sees it, in host and guest.
//!
//! The comment above a test names a change to the machine that makes the test fail. These need the Bochs
//! core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

guests! { "guest/vmx_setup.s", "guest/pt.s":
    guest_pt_cpuid guest_pt_vmx guest_pt_control guest_pt_controls guest_pt_kinds
}

/// What a trace shows, as libipt decodes it: the address of each instruction.
fn decoded(guest: &machine::Guest, trace: &[u64]) -> Vec<u64> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let program = std::env::var("MVPMU_PT_FLOW").expect("MVPMU_PT_FLOW names pt-flow");
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("decode-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (file, image) = (dir.join("trace"), dir.join("image"));
    let bytes: Vec<u8> = trace.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(&file, &bytes).unwrap();
    std::fs::write(&image, guest.image()).unwrap();
    let mut decoder = Command::new(program);
    decoder.arg(&file).arg(&image);
    let output = decoder
        .arg(machine::LOAD_ADDRESS.to_string())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{errors}{text}{trace:#018x?}");
    std::fs::remove_dir_all(&dir).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| u64::from_str_radix(line, 16).unwrap())
        .collect()
}

/// The addresses of the instructions, but for the one that ends tracing.
fn executed(outcome: &machine::Outcome) -> Vec<u64> {
    let (_, all) = outcome.flow.split_last().expect("something is executed");
    all.iter().map(|entry| entry[0]).collect()
}

/// IA32_RTIT_CTL.
const TRACE_EN: u64 = 1 << 0;
const USER: u64 = 1 << 3;
const BRANCH_EN: u64 = 1 << 13;

/// Exit reasons, and the VM-instruction error of a VM entry that fails as an instruction.
const HLT: u64 = 12;
const INVALID_GUEST_STATE: u64 = 1 << 31 | 33;
const INVALID_CONTROLS: u64 = 7;

// Break: adjust() leaves a leaf as the core has it, or takes no notice of the option.
#[test]
#[ignore = "needs the Bochs core"]
fn cpuid_announces_it_where_it_is() {
    let there = [1, 1, 0b111, 0b111, 2, 0x003f_0001, 0];
    assert_eq!(guest_pt_cpuid().values(&[]), there);
    assert_eq!(guest_pt_cpuid().values(&["--cpu", "icelake"]), there);
    for without in [["--pt", "off"], ["--cpu", "skylake"], ["--pmu", "off"]] {
        let none = [0, 0, 0, 0, 0, 0, 1];
        assert_eq!(guest_pt_cpuid().values(&without), none, "{without:?}");
    }
}

// Break: has_pt() is true always, or never; or a control is forgotten.
#[test]
#[ignore = "needs the Bochs core"]
fn vmx_has_what_is_about_it_where_it_is() {
    let there = [1 << 14, 1 << 24 | 1 << 19, 3 << 24, 3 << 17, 1];
    assert_eq!(guest_pt_vmx().values(&[]), there);
    assert_eq!(guest_pt_vmx().values(&["--pt", "off"]), [0; 5]);
}

// Break: VM entry loads no IA32_RTIT_CTL or does not check it, VM exit does not save or clear it.
#[test]
#[ignore = "needs the Bochs core"]
fn vm_entry_loads_the_control_and_vm_exit_saves_and_clears_it() {
    let guest = TRACE_EN | USER | BRANCH_EN;
    let first = [0, HLT, guest, 0, USER];
    // Without the controls the register is carried over, and saved nevertheless.
    let carried = [BRANCH_EN, USER, USER];
    let expected = [&first[..], &[INVALID_GUEST_STATE], &carried].concat();
    assert_eq!(guest_pt_control().values(&[]), expected);
}

// Break: can_trace() does not ask for TraceEn, or for one of the controls that have to come together.
#[test]
#[ignore = "needs the Bochs core"]
fn controls_that_do_not_fit_together_fail_the_entry() {
    let failed = [1, INVALID_CONTROLS];
    let entered = [0, HLT];
    let expected = [failed, entered, failed, failed, failed].concat();
    assert_eq!(guest_pt_controls().values(&[]), expected);
}

// Break: a hook tells of a branch as another kind, of none, or where it leads from.
#[test]
#[ignore = "needs the Bochs core"]
fn what_was_executed_is_what_libipt_decodes() {
    let guest = guest_pt_kinds();
    let outcome = guest.run(&[]);
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    assert_eq!(decoded(&guest, &outcome.values), executed(&outcome));
}
