// SPDX-License-Identifier: GPL-2.0
//! What is said of a violation.

use crate::cpu::*;

// Break: leave the address or the operations out.
#[test]
fn a_report_says_what_has_happened() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    let rip = 0xffff_ffff_8100_1234;
    cpu.pmu.oracle_mut().unwrap().at(rip, 0);
    cpu.pmu.user();
    let text = cpu
        .violates(Invariant::LeakOut, Cell::Counter(0))
        .to_string();
    for part in [
        "violation of I2 (no leak out): the host goes to user mode",
        "PERF_CTR0 holds 0x96, owner the guest of VMCB/VMCS 0x1000",
        "CPU 0, CPL 0, at 0xffffffff81001234",
        "WRMSR Ctl(0) = 0x100004300c0",
        "VM entry of 0x1000",
        "VM exit of 0x1000",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.starts_with("oracle:")));
}
