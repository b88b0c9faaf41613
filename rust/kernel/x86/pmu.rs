// SPDX-License-Identifier: GPL-2.0

//! Registers of the core performance monitoring unit (PMU), and what perf knows of it.
//!
//! C headers: [`arch/x86/include/asm/msr-index.h`](srctree/arch/x86/include/asm/msr-index.h),
//! [`arch/x86/include/asm/perf_event.h`](srctree/arch/x86/include/asm/perf_event.h)

use core::arch::asm;

/// Enable bit of an event selector, AMD's and Intel's.
pub const EVENTSEL_ENABLE: u64 = 1 << 22;

/// The registers of AMD's PerfMonV2 (APM volume 2, 13.2 "Performance Monitoring Counters").
pub mod amd {
    use crate::x86::msr::{
        Msr,
        MsrArray,
        ReadOnly,
        WriteOnly, //
    };

    /// Core counters there can be.
    const COUNTERS: u32 = bindings::AMD64_NUM_COUNTERS_CORE;

    // SAFETY: The registers of the core PMU only count and raise PMIs; none makes the CPU write
    // memory. That holds for all definitions of this module.
    /// `PERF_CTLn`, the event selectors.
    pub const PERF_CTL: MsrArray =
        unsafe { MsrArray::new(bindings::MSR_F15H_PERF_CTL, 2, COUNTERS) };

    // SAFETY: As above.
    /// `PERF_CTRn`, the counters, 48 bits.
    pub const PERF_CTR: MsrArray =
        unsafe { MsrArray::new(bindings::MSR_F15H_PERF_CTR, 2, COUNTERS) };

    // SAFETY: As above.
    /// `PerfCntrGlobalStatus`: bit n, counter n overflowed.
    pub const GLOBAL_STATUS: Msr<ReadOnly> =
        unsafe { Msr::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS) };

    // SAFETY: As above.
    /// `PerfCntrGlobalCtl`: bit n enables counter n.
    pub const GLOBAL_CTL: Msr = unsafe { Msr::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_CTL) };

    // SAFETY: As above.
    /// `PerfCntrGlobalStatusClr`: ones clear bits of the status.
    pub const GLOBAL_STATUS_CLR: Msr<WriteOnly> =
        unsafe { Msr::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR) };

    // SAFETY: As above.
    /// `PerfCntrGlobalStatusSet`: ones set bits of the status.
    pub const GLOBAL_STATUS_SET: Msr<WriteOnly> =
        unsafe { Msr::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_SET) };
}

/// Reads general purpose counter `i` (RDPMC).
///
/// Returns [`None`] if the PMU, as perf set it up, has no such counter.
#[inline(always)]
pub fn rdpmc(counter: GpCounter) -> u64 {
    let (low, high): (u32, u32);

    // SAFETY: By its invariant the counter exists, so that RDPMC doesn't fault in the kernel; it
    // has no effect but its result.
    unsafe {
        asm!(
            "rdpmc",
            in("ecx") counter.0,
            out("eax") low,
            out("edx") high,
            options(nostack, nomem, preserves_flags),
        )
    };
    u64::from(low) | u64::from(high) << 32
}

/// The number of a general purpose counter that the CPU has.
///
/// # Invariants
///
/// The CPU has the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpCounter(u32);

impl GpCounter {
    /// Claims that the CPU has general purpose counter `i`.
    ///
    /// # Safety
    ///
    /// It must have it.
    #[inline(always)]
    pub const unsafe fn new(i: u32) -> Self {
        // INVARIANT: By the safety requirement.
        Self(i)
    }

    /// The counter's number, from 0.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// What perf found in the host's PMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Version: of Intel's architectural PMU, or of AMD's PerfMon. 0: there is no PMU.
    pub version: u32,
    /// General purpose counters.
    pub gp_counters: u32,
    /// Fixed counters.
    pub fixed_counters: u32,
    /// Width of a general purpose counter in bits.
    pub gp_width: u32,
    /// Whether perf can lend this PMU to guests.
    pub mediated: bool,
}

impl Capability {
    /// Asks perf.
    ///
    /// On CPUs with mixed core types the answer is empty: perf doesn't describe their PMUs.
    pub fn of_host() -> Self {
        if super::cpu::is_hybrid() {
            return Self::default();
        }

        let mut cap = bindings::x86_pmu_capability::default();

        // SAFETY: `cap` is valid for writes.
        unsafe { bindings::perf_get_x86_pmu_capability(&mut cap) };
        Self {
            version: cap.version.try_into().unwrap_or(0),
            gp_counters: cap.num_counters_gp.try_into().unwrap_or(0),
            fixed_counters: cap.num_counters_fixed.try_into().unwrap_or(0),
            gp_width: cap.bit_width_gp.try_into().unwrap_or(0),
            mediated: cap.mediated() != 0,
        }
    }
}
