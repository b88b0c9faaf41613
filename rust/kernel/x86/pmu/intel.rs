// SPDX-License-Identifier: GPL-2.0

//! The registers of Intel's architectural PMU (SDM volume 3, "Architectural Performance Monitoring").

use super::{
    Register,
    RegisterArray, //
};
use crate::x86::msr::{
    Msr,
    ReadOnly,
    WriteOnly, //
};

/// General purpose counters that the MSR numbers leave room for.
const GP_COUNTERS: u32 = 8;
/// Fixed counters there can be in `FIXED_CTR_CTRL`, at four bits each.
const FIXED_COUNTERS: u32 = 16;

// SAFETY: The registers here only count and raise PMIs. What makes the CPU write memory when a
// counter overflows is PEBS_ENABLE, which is none of them, and 0 while the debug store is off.
// That holds for all definitions of this module.
/// `IA32_PERFEVTSELx`, the event selectors.
pub const PERFEVTSEL: RegisterArray =
    unsafe { RegisterArray::new(bindings::MSR_P6_EVNTSEL0, 1, GP_COUNTERS) };

// SAFETY: As above.
/// `IA32_A_PMCx`, the general purpose counters, written at full width. They exist if
/// `IA32_PERF_CAPABILITIES` says so, see [`has_full_width_writes`].
pub const PMC: RegisterArray =
    unsafe { RegisterArray::new(bindings::MSR_IA32_PMC0, 1, GP_COUNTERS) };

// SAFETY: As above.
/// `IA32_FIXED_CTRx`, the fixed counters.
pub const FIXED_CTR: RegisterArray =
    unsafe { RegisterArray::new(bindings::MSR_CORE_PERF_FIXED_CTR0, 1, FIXED_COUNTERS) };

/// The fixed counter of slots, of which [`PERF_METRICS`] has the shares.
pub const SLOTS: u32 = bindings::INTEL_PMC_IDX_FIXED_SLOTS - bindings::INTEL_PMC_IDX_FIXED;

// SAFETY: As above.
/// `PERF_METRICS`: what became of the slots, a byte for each metric. It has to be written after
/// the counter of slots (Linux, arch/x86/events/intel/core.c). It exists if
/// `IA32_PERF_CAPABILITIES` says so, see [`has_perf_metrics`].
pub const PERF_METRICS: Register = unsafe { Register::new(bindings::MSR_PERF_METRICS) };

// SAFETY: As above.
/// `IA32_FIXED_CTR_CTRL`: four bits for each fixed counter, as a selector's.
pub const FIXED_CTR_CTRL: Register =
    unsafe { Register::new(bindings::MSR_CORE_PERF_FIXED_CTR_CTRL) };

// SAFETY: As above.
/// `IA32_PERF_GLOBAL_CTRL`: bit n enables counter n, bit 32 + n fixed counter n.
pub const GLOBAL_CTRL: Register = unsafe { Register::new(bindings::MSR_CORE_PERF_GLOBAL_CTRL) };

// SAFETY: As above.
/// `IA32_PERF_GLOBAL_STATUS`: the overflows, in the order of `GLOBAL_CTRL`.
pub const GLOBAL_STATUS: Register<ReadOnly> =
    unsafe { Register::new(bindings::MSR_CORE_PERF_GLOBAL_STATUS) };

// SAFETY: As above.
/// `IA32_PERF_GLOBAL_STATUS_RESET`: ones clear bits of the status.
pub const GLOBAL_STATUS_RESET: Register<WriteOnly> =
    unsafe { Register::new(bindings::MSR_CORE_PERF_GLOBAL_OVF_CTRL) };

// SAFETY: As above.
/// `IA32_PERF_GLOBAL_STATUS_SET`: ones set bits of the status. From version 4 on.
pub const GLOBAL_STATUS_SET: Register<WriteOnly> =
    unsafe { Register::new(bindings::MSR_CORE_PERF_GLOBAL_STATUS_SET) };

// SAFETY: It is read-only.
/// `IA32_PERF_CAPABILITIES`. It exists if CPUID.01H:ECX.PDCM[15] says so.
const PERF_CAPABILITIES: Msr<ReadOnly> = unsafe { Msr::new(bindings::MSR_IA32_PERF_CAPABILITIES) };

/// Whether `IA32_PERF_CAPABILITIES` has this bit.
fn is_capable(bit: u32) -> bool {
    let has_capabilities = core::arch::x86_64::__cpuid(1).ecx & (1 << 15) != 0;

    has_capabilities && PERF_CAPABILITIES.read() & (1u64 << bit) != 0
}

/// Whether all bits of a counter can be written (`IA32_PERF_CAPABILITIES.FW_WRITE[13]`).
///
/// Else a write takes 32 bits, sign-extended, and most values cannot be restored.
pub fn has_full_width_writes() -> bool {
    is_capable(13)
}

/// Whether there is [`PERF_METRICS`] (`IA32_PERF_CAPABILITIES.PERF_METRICS[15]`).
pub fn has_perf_metrics() -> bool {
    is_capable(bindings::PERF_CAP_METRICS_IDX)
}

/// Whether this is a register of architectural last branch records: their control, their depth, or one of
/// those that guests may have.
///
/// They are for perf and KVM, not for [`Registers`](super::Registers).
pub fn is_lbr(msr: u32) -> bool {
    const ENTRIES: u32 = bindings::PERF_GUEST_LBR_ENTRIES;
    const FIRST: [u32; 3] = [
        bindings::MSR_ARCH_LBR_FROM_0,
        bindings::MSR_ARCH_LBR_TO_0,
        bindings::MSR_ARCH_LBR_INFO_0,
    ];

    [bindings::MSR_ARCH_LBR_CTL, bindings::MSR_ARCH_LBR_DEPTH].contains(&msr)
        || FIRST
            .iter()
            .any(|first| (*first..*first + ENTRIES).contains(&msr))
}

/// Whether the CPU has Processor Trace (SDM volume 2, CPUID.07H.0:EBX bit 25).
pub fn has_pt() -> bool {
    core::arch::x86_64::__cpuid(7).ebx & (1 << 25) != 0
}

/// Whether perf's driver uses Processor Trace, which it does not if firmware had it on.
pub fn is_pt_used_by_perf() -> bool {
    #[cfg(CONFIG_CPU_SUP_INTEL)]
    // SAFETY: It looks at what the driver has found out when the kernel started.
    let output =
        unsafe { bindings::intel_pt_validate_hw_cap(bindings::pt_capabilities_PT_CAP_topa_output) };
    #[cfg(not(CONFIG_CPU_SUP_INTEL))]
    let output = 0;

    output != 0
}
