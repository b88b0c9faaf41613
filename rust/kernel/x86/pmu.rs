// SPDX-License-Identifier: GPL-2.0

//! Registers of the core performance monitoring unit (PMU), and what perf knows of it.
//!
//! C headers: [`arch/x86/include/asm/msr-index.h`](srctree/arch/x86/include/asm/msr-index.h),
//! [`arch/x86/include/asm/perf_event.h`](srctree/arch/x86/include/asm/perf_event.h)

use super::msr::{
    Msr,
    MsrArray,
    ReadWrite,
    Readable,
    Writable, //
};
use crate::interrupt::LocalInterruptDisabled;
use core::{
    arch::asm,
    marker::PhantomData, //
};

pub mod amd;
mod counter;
pub mod intel;
pub use counter::{
    Counter,
    CounterSet,
    PerfMetrics, //
};

/// A register of the PMU. Only [`Registers`] reads and writes it.
///
/// # Invariants
///
/// Neither reads nor writes of any value, as far as `A` allows them, violate memory safety while
/// the debug store is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<A = ReadWrite>(Msr<A>);

impl<A> Register<A> {
    /// Names a register of the core PMU.
    ///
    /// # Safety
    ///
    /// As the type invariant says.
    const unsafe fn new(index: u32) -> Self {
        // SAFETY: It is not accessed but by `Registers`, while the debug store is off; then that is
        // harmless by the safety requirement.
        Self(unsafe { Msr::new(index) })
    }

    /// The number of its MSR.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0.index()
    }
}

/// Registers of the PMU at a fixed distance, e.g. one per counter.
///
/// # Invariants
///
/// The members satisfy the invariants of [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterArray<A = ReadWrite>(MsrArray<A>);

impl<A> RegisterArray<A> {
    /// Names `len` registers from `base`, `stride` apart.
    ///
    /// # Safety
    ///
    /// Each of them must satisfy the requirements of [`Register::new`].
    const unsafe fn new(base: u32, stride: u32, len: u32) -> Self {
        // SAFETY: As for `Register`.
        Self(unsafe { MsrArray::new(base, stride, len) })
    }

    /// The number of registers.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.0.len()
    }

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the number of one of their MSRs.
    #[inline(always)]
    pub const fn contains(self, msr: u32) -> bool {
        self.0.contains(msr)
    }

    /// The register of number `i`, if there is one.
    #[inline(always)]
    pub const fn get(self, i: u32) -> Option<Register<A>> {
        match self.0.get(i) {
            Some(msr) => Some(Register(msr)),
            None => None,
        }
    }
}

/// The PMU's registers on the local CPU, while it is lent to a guest.
///
/// # Invariants
///
/// For the life of `'a` interrupts are disabled and perf has lent this CPU's PMU to a guest. So the
/// debug store is off: perf has none of its events on the PMU, and clears `PEBS_ENABLE` when a CPU
/// starts and when it disables the PMU.
pub struct Registers<'a>(PhantomData<&'a LocalInterruptDisabled>);

impl<'a> Registers<'a> {
    /// Claims that the PMU is lent.
    ///
    /// # Safety
    ///
    /// As the type invariant says.
    #[inline(always)]
    pub(crate) unsafe fn new(_irq: &'a LocalInterruptDisabled) -> Self {
        // INVARIANT: By the safety requirement.
        Self(PhantomData)
    }

    /// Reads a register (RDMSR).
    #[inline(always)]
    pub fn read<A: Readable>(&self, register: Register<A>) -> u64 {
        register.0.read()
    }

    /// Writes a register (WRMSR).
    #[inline(always)]
    pub fn write<A: Writable>(&mut self, register: Register<A>, value: u64) {
        register.0.write(value);
    }

    /// Reads a counter (RDPMC).
    #[inline(always)]
    pub fn read_counter(&self, counter: Counter) -> u64 {
        // SAFETY: By its invariant the counter exists.
        unsafe { rdpmc(counter.rdpmc_index()) }
    }

    /// Reads `PERF_METRICS` (RDPMC).
    #[inline(always)]
    pub fn read_metrics(&self, _metrics: PerfMetrics) -> u64 {
        // SAFETY: By its invariant the register exists.
        unsafe { rdpmc(bindings::INTEL_PMC_FIXED_RDPMC_METRICS) }
    }
}

/// Enable bit of an event selector, AMD's and Intel's.
pub const EVENTSEL_ENABLE: u64 = 1 << 22;

/// RDPMC.
///
/// # Safety
///
/// The CPU must have what `index` names.
#[inline(always)]
unsafe fn rdpmc(index: u32) -> u64 {
    let (low, high): (u64, u64);

    // SAFETY: By the safety requirement RDPMC doesn't fault in the kernel; it has no effect but its
    // result.
    unsafe {
        asm!(
            "rdpmc",
            in("ecx") index,
            // The instruction clears the upper halves.
            out("rax") low,
            out("rdx") high,
            options(nostack, nomem, preserves_flags),
        )
    };
    low | high << 32
}

/// What perf found in the host's PMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Version: of Intel's architectural PMU, or of AMD's PerfMon, where 1 is any PMU before
    /// PerfMonV2 as in KVM. 0: there is no PMU, or it is none of these.
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

        let gp_counters = cap.num_counters_gp.try_into().unwrap_or(0);
        let mut version = cap.version.try_into().unwrap_or(0);

        // Perf numbers AMD's PMUs from PerfMonV2 on.
        if super::cpu::Vendor::of_host() == super::cpu::Vendor::Amd && gp_counters != 0 {
            version = version.max(1);
        }
        Self {
            version,
            gp_counters,
            fixed_counters: cap.num_counters_fixed.try_into().unwrap_or(0),
            gp_width: cap.bit_width_gp.try_into().unwrap_or(0),
            mediated: cap.mediated() != 0,
        }
    }
}
