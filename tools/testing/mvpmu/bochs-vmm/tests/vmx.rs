// SPDX-License-Identifier: GPL-2.0

//! VM entry and VM exit, as a hypervisor on the machine sees them.
//!
//! These need the Bochs core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

use serde_json::json;

guests! { "guest/vmx_setup.s", "guest/vmx.s":
    guest_global_ctrl guest_global_ctrl_reserved guest_debugctl guest_counts host_counts
    guest_rdpmc_exits guest_posted_interrupts guest_waiting_interrupt guest_virtual_interrupt
    guest_without_vmx guest_la57 guest_msr_lists guest_halted
}

/// Exit reasons.
const EXTERNAL_INTERRUPT: u64 = 1;
const HLT: u64 = 12;
const RDPMC: u64 = 15;
const INVALID_GUEST_STATE: u64 = 1 << 31 | 33;
/// VM-instruction errors.
const INVALID_HOST_STATE: u64 = 8;
/// A VM entry that failed as an instruction.
const FAILED: u64 = 1;

const GUEST_CTRL: u64 = 1 << 32 | 1;
const HOST_BEFORE: u64 = 0xf0;
const HOST_CTRL: u64 = 0x0f;
const GUEST_WROTE: u64 = 3;

#[test]
#[ignore = "needs the Bochs core"]
fn entry_loads_and_exit_saves_and_loads_perf_global_ctrl() {
    let expected = [0, HLT, GUEST_CTRL, HOST_CTRL, GUEST_WROTE];
    assert_eq!(guest_global_ctrl().values(&[]), expected);
}

#[test]
#[ignore = "needs the Bochs core"]
fn without_the_save_control_the_guests_field_stays() {
    let options = ["--vmx", "no-save-global-ctrl"];
    let expected = [0, HLT, GUEST_CTRL, HOST_CTRL, GUEST_CTRL];
    assert_eq!(guest_global_ctrl().values(&options), expected);
}

#[test]
#[ignore = "needs the Bochs core"]
fn without_the_load_controls_the_register_is_carried_over() {
    let options = ["--vmx", "no-load-global-ctrl,no-save-global-ctrl"];
    let expected = [0, HLT, HOST_BEFORE, GUEST_WROTE, GUEST_CTRL];
    assert_eq!(guest_global_ctrl().values(&options), expected);
}

#[test]
#[ignore = "needs the Bochs core"]
fn reserved_bits_of_perf_global_ctrl_fail_the_entry() {
    let expected = [0, INVALID_GUEST_STATE, FAILED, INVALID_HOST_STATE];
    assert_eq!(guest_global_ctrl_reserved().values(&[]), expected);
}

#[test]
#[ignore = "needs the Bochs core"]
fn debugctl_is_loaded_saved_cleared_and_checked() {
    let expected = |lbr: u64| [1 << 12, 0, 1 << 12 | lbr, INVALID_GUEST_STATE];
    assert_eq!(guest_debugctl().values(&["--cpu", "icelake"]), expected(1));
    // What LBR would enable is not there.
    assert_eq!(guest_debugctl().values(&[]), expected(0));
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_guests_counter_counts_the_guest_to_the_instruction() {
    assert_eq!(guest_counts().values(&[]), [1 + 2000]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_hosts_counter_counts_the_host_and_the_instruction_that_enters() {
    // Up to VMLAUNCH, itself included; after the exit those that stop the counter.
    assert_eq!(host_counts().values(&[]), [9 + 1 + 4]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn msr_lists_do_what_the_controls_do_on_the_hosts_account() {
    let outcome = guest_msr_lists().run(&["--vmx", "no-save-global-ctrl,no-load-global-ctrl"]);
    assert_eq!(outcome.values, [1 + 2000, 1 << 32, 1 + 2000]);
    // Each of the lists, and two WRMSR before and one RDMSR after.
    let host = json!({"rdmsr": 3, "wrmsr": 4, "rdpmc": 0, "lvtpc": 0, "refused": 0});
    assert_eq!(outcome.stats["cpus"][0]["host"], host);
}

#[test]
#[ignore = "needs the Bochs core"]
fn rdpmc_exits_when_asked_to() {
    assert_eq!(guest_rdpmc_exits().values(&[]), [HLT, RDPMC]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn operations_are_counted_for_host_and_guest() {
    let stats = guest_rdpmc_exits().run(&[]).stats;
    let cpu = &stats["cpus"][0];
    let operations = json!({"rdmsr": 1, "wrmsr": 0, "rdpmc": 1, "lvtpc": 0, "refused": 0});
    assert_eq!(cpu["guest"], operations);
    assert_eq!(
        (&cpu["vm_entries"], &cpu["vm_exits"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(stats["exit_reasons"], json!({"12": 1, "15": 1}));
}

#[test]
#[ignore = "needs the Bochs core"]
fn vmx_can_be_left_out() {
    assert_eq!(guest_without_vmx().values(&[]), [1, 0]);
    assert_eq!(guest_without_vmx().values(&["--vmx", "off"]), [0, 1]);
}

// The work-arounds of quirks.rs: each test shows the right behaviour with it, and
// the bug without. When the second half fails, the bug is gone: so is the quirk.

#[test]
#[ignore = "needs the Bochs core"]
fn quirk_pid_alignment() {
    let guest = guest_posted_interrupts();
    assert_eq!(guest.values(&WITH_APICV), [0, HLT]);
    let options = [&WITH_APICV[..], &["--without-quirk", "pid-alignment"]].concat();
    let without = guest.values(&options);
    assert_eq!(without[0], FAILED, "the bug is gone");
}

/// Shows the controls that the quirk `apicv` hides.
const WITH_APICV: [&str; 2] = ["--without-quirk", "apicv"];

#[test]
#[ignore = "needs the Bochs core"]
fn quirk_apicv() {
    let guest = guest_halted();
    // What the controls may be, the exit reason, and interrupts taken by the guest.
    assert_eq!(guest.values(&[]), [0, EXTERNAL_INTERRUPT, 0]);
    let without = guest.values(&WITH_APICV);
    assert_eq!(without, [3, EXTERNAL_INTERRUPT, 0], "the bug is gone");
}

#[test]
#[ignore = "needs the Bochs core"]
fn quirk_la57() {
    /// Exit status of the machine when the core gives up.
    const CORE_PANIC: i32 = 4;
    let guest = guest_la57();
    assert_eq!(guest.values(&[]), [0, INVALID_GUEST_STATE]);
    let without = guest.run(&["--without-quirk", "la57"]);
    assert_eq!(without.status, CORE_PANIC, "the bug is gone");
}

#[test]
#[ignore = "needs the Bochs core"]
fn quirk_event_mask_at_entry() {
    let guest = guest_waiting_interrupt();
    assert_eq!(guest.values(&[]), [0, EXTERNAL_INTERRUPT]);
    let without = guest.values(&["--without-quirk", "event-mask-at-entry"]);
    assert_eq!(without, [0, HLT], "the bug is gone");
}

#[test]
#[ignore = "needs the Bochs core"]
fn quirk_virtual_before_external() {
    let guest = guest_virtual_interrupt();
    // The guest interrupt status: RVI is what is requested, SVI (bits 15:8) what is in service.
    assert_eq!(guest.values(&WITH_APICV), [0, EXTERNAL_INTERRUPT, 0x40]);
    let options = [
        &WITH_APICV[..],
        &["--without-quirk", "virtual-before-external"],
    ]
    .concat();
    let without = guest.values(&options);
    assert_eq!(without, [0, EXTERNAL_INTERRUPT, 0x4000], "the bug is gone");
}
