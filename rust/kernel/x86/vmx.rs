// SPDX-License-Identifier: GPL-2.0

//! Capabilities of Intel VMX (SDM volume 3, appendix A "VMX Capability Reporting Facility").
//!
//! C header: [`arch/x86/include/asm/vmx.h`](srctree/arch/x86/include/asm/vmx.h)

use super::{
    cpu,
    msr::{
        Msr,
        ReadOnly, //
    },
};

// SAFETY: The capability MSRs are read-only. That holds for all of them here.
/// `IA32_VMX_BASIC`.
const BASIC: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_BASIC) };

// SAFETY: As above.
/// `IA32_VMX_EXIT_CTLS`.
const EXIT_CTLS: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_EXIT_CTLS) };

// SAFETY: As above.
/// `IA32_VMX_ENTRY_CTLS`.
const ENTRY_CTLS: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_ENTRY_CTLS) };

// SAFETY: As above.
/// `IA32_VMX_TRUE_EXIT_CTLS`.
const TRUE_EXIT_CTLS: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_TRUE_EXIT_CTLS) };

// SAFETY: As above.
/// `IA32_VMX_TRUE_ENTRY_CTLS`.
const TRUE_ENTRY_CTLS: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_TRUE_ENTRY_CTLS) };

/// Whether VM entry and VM exit can load `IA32_PERF_GLOBAL_CTRL`.
pub fn can_load_perf_global_ctrl() -> bool {
    if cpu::Vendor::of_host() != cpu::Vendor::Intel || !cpu::has_virtualization() {
        return false;
    }

    // Bit 55: the TRUE capability MSRs exist and are to be used.
    let (exit, entry) = if BASIC.read() & (1 << 55) != 0 {
        (TRUE_EXIT_CTLS, TRUE_ENTRY_CTLS)
    } else {
        (EXIT_CTLS, ENTRY_CTLS)
    };
    // Bits 63:32 tell which controls may be 1.
    let allowed = |msr: Msr<ReadOnly>, control: u32| msr.read() >> 32 & u64::from(control) != 0;

    allowed(exit, bindings::VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL)
        && allowed(entry, bindings::VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL)
}
