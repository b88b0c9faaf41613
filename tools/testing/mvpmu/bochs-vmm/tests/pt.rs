// SPDX-License-Identifier: GPL-2.0

//! Intel PT as a program on the machine sees it, in host and guest.
//!
//! The comment above a test names a change to the machine that makes the test fail. These need the Bochs
//! core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

guests! { "guest/vmx_setup.s", "guest/pt.s":
    guest_pt_cpuid guest_pt_vmx guest_pt_control guest_pt_controls
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
