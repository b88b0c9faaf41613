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
/// `IA32_VMX_MISC`.
const MISC: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_MISC) };

// SAFETY: As above.
/// `IA32_VMX_PROCBASED_CTLS`.
const PROCBASED_CTLS: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_PROCBASED_CTLS) };

// SAFETY: As above.
/// `IA32_VMX_PROCBASED_CTLS2`, which is there if the secondary controls are.
const PROCBASED_CTLS2: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_VMX_PROCBASED_CTLS2) };

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

fn is_there() -> bool {
    cpu::Vendor::of_host() == cpu::Vendor::Intel && cpu::has_virtualization()
}

/// Whether this control may be 1: bits 63:32 tell.
fn allows(msr: Msr<ReadOnly>, control: u32) -> bool {
    msr.read() >> 32 & u64::from(control) != 0
}

/// The control of a feature, whose number is 32 times that of a word, and the bit in it.
const fn feature(number: u32) -> u32 {
    1 << (number % 32)
}

/// Whether these controls of VM entry and VM exit may be 1.
fn can_enter_and_exit(entry: u32, exit: u32) -> bool {
    // Bit 55: the TRUE capability MSRs exist and are to be used.
    let (entry_ctls, exit_ctls) = if BASIC.read() & (1 << 55) != 0 {
        (TRUE_ENTRY_CTLS, TRUE_EXIT_CTLS)
    } else {
        (ENTRY_CTLS, EXIT_CTLS)
    };

    allows(exit_ctls, exit) && allows(entry_ctls, entry)
}

/// Whether VM entry and VM exit can load `IA32_PERF_GLOBAL_CTRL`.
pub fn can_load_perf_global_ctrl() -> bool {
    is_there()
        && can_enter_and_exit(
            bindings::VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL,
            bindings::VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL,
        )
}

/// What VMX can do with Intel PT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorTrace {
    /// PT can be used in VMX operation.
    pub in_vmx_operation: bool,
    /// The output of a guest goes to guest-physical addresses.
    pub guest_addresses: bool,
    /// VM entry loads `IA32_RTIT_CTL`, and VM exit clears it.
    pub control: bool,
}

impl ProcessorTrace {
    /// What the host's can do.
    pub fn of_host() -> Self {
        if !is_there() {
            return Self::default();
        }

        let secondary = allows(PROCBASED_CTLS, feature(bindings::VMX_FEATURE_SEC_CONTROLS));

        Self {
            // Bit 14 (SDM volume 3, "Miscellaneous Data").
            in_vmx_operation: MISC.read() & (1 << 14) != 0,
            guest_addresses: secondary
                && allows(PROCBASED_CTLS2, feature(bindings::VMX_FEATURE_PT_USE_GPA)),
            control: can_enter_and_exit(
                bindings::VM_ENTRY_LOAD_IA32_RTIT_CTL,
                bindings::VM_EXIT_CLEAR_IA32_RTIT_CTL,
            ),
        }
    }
}
