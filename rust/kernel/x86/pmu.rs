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

/// The registers of AMD's PerfMonV2 (APM volume 2, "Performance Monitoring Counters").
pub mod amd {
    use super::{
        Register,
        RegisterArray, //
    };
    use crate::x86::msr::{
        ReadOnly,
        WriteOnly, //
    };

    /// Core counters there can be.
    const COUNTERS: u32 = bindings::AMD64_NUM_COUNTERS_CORE;

    // SAFETY: The registers of the core PMU only count and raise PMIs; AMD's has no debug store. That
    // holds for all definitions of this module.
    /// `PERF_CTLn`, the event selectors.
    pub const PERF_CTL: RegisterArray =
        unsafe { RegisterArray::new(bindings::MSR_F15H_PERF_CTL, 2, COUNTERS) };

    /// The other numbers of the first selectors (`PerfEvtSel0` to 3).
    pub const LEGACY_PERF_CTL: core::ops::Range<u32> =
        bindings::MSR_K7_EVNTSEL0..bindings::MSR_K7_EVNTSEL0 + bindings::AMD64_NUM_COUNTERS;

    // SAFETY: As above.
    /// `PERF_CTRn`, the counters, 48 bits.
    pub const PERF_CTR: RegisterArray =
        unsafe { RegisterArray::new(bindings::MSR_F15H_PERF_CTR, 2, COUNTERS) };

    // SAFETY: As above.
    /// `PerfCntrGlobalStatus`: bit n, counter n overflowed.
    pub const GLOBAL_STATUS: Register<ReadOnly> =
        unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS) };

    // SAFETY: As above.
    /// `PerfCntrGlobalCtl`: bit n enables counter n.
    pub const GLOBAL_CTL: Register =
        unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_CTL) };

    // SAFETY: As above.
    /// `PerfCntrGlobalStatusClr`: ones clear bits of the status.
    pub const GLOBAL_STATUS_CLR: Register<WriteOnly> =
        unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR) };

    // SAFETY: As above.
    /// `PerfCntrGlobalStatusSet`: ones set bits of the status.
    pub const GLOBAL_STATUS_SET: Register<WriteOnly> =
        unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_SET) };
}

/// The registers of Intel's architectural PMU (SDM volume 3, "Architectural Performance Monitoring").
pub mod intel {
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
    const PERF_CAPABILITIES: Msr<ReadOnly> =
        unsafe { Msr::new(bindings::MSR_IA32_PERF_CAPABILITIES) };

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
}

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

/// The register [`intel::PERF_METRICS`], on a CPU that has it.
///
/// # Invariants
///
/// The CPU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfMetrics(());

impl PerfMetrics {
    /// Names the register.
    ///
    /// # Safety
    ///
    /// The CPU must have it.
    #[inline(always)]
    pub const unsafe fn new() -> Self {
        // INVARIANT: By the safety requirement.
        Self(())
    }
}

/// A counter that the CPU has.
///
/// # Invariants
///
/// The CPU has the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    rdpmc_index: u32,
}

impl Counter {
    /// RDPMC's type for fixed counters, in bits 31:16 of ECX (Intel SDM volume 2, RDPMC).
    const FIXED: u32 = bindings::INTEL_PMC_FIXED_RDPMC_BASE;

    /// Names general purpose counter `i`.
    ///
    /// # Safety
    ///
    /// The CPU must have it.
    #[inline(always)]
    pub const unsafe fn gp(i: u32) -> Self {
        // INVARIANT: By the safety requirement.
        Self { rdpmc_index: i }
    }

    /// Names fixed counter `i`.
    ///
    /// # Safety
    ///
    /// The CPU must have it.
    #[inline(always)]
    pub const unsafe fn fixed(i: u32) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            rdpmc_index: Self::FIXED | i,
        }
    }

    /// The number among the counters of its kind, from 0.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.rdpmc_index & !Self::FIXED
    }

    /// Whether it is a fixed counter.
    #[inline(always)]
    pub const fn is_fixed(self) -> bool {
        self.rdpmc_index & Self::FIXED != 0
    }

    /// The number as RDPMC takes it in ECX.
    #[inline(always)]
    pub const fn rdpmc_index(self) -> u32 {
        self.rdpmc_index
    }
}

/// A set of counters: bit n for general purpose counter n, bit 32 + n for fixed counter n, as in
/// `PERF_GLOBAL_CTRL` and in KVM's indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSet(u64);

impl CounterSet {
    /// No counter.
    pub const EMPTY: Self = Self(0);
    /// Every counter there may be.
    pub const ALL: Self = Self(u64::MAX);

    const FIXED: u32 = bindings::INTEL_PMC_IDX_FIXED;

    /// From the bits that C uses.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As the bits that C uses.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of general purpose counter `i`.
    #[inline(always)]
    pub const fn gp(i: u32) -> Self {
        Self(1u64.wrapping_shl(i))
    }

    /// The set of fixed counter `i`.
    #[inline(always)]
    pub const fn fixed(i: u32) -> Self {
        Self::gp(Self::FIXED.wrapping_add(i))
    }

    /// The fixed counter of slots.
    pub const SLOTS: Self = Self::fixed(intel::SLOTS);

    /// All fixed counters.
    pub const ALL_FIXED: Self = Self(u64::MAX << Self::FIXED);

    /// The set of one counter.
    #[inline(always)]
    pub const fn of(counter: Counter) -> Self {
        if counter.is_fixed() {
            Self::fixed(counter.index())
        } else {
            Self::gp(counter.index())
        }
    }

    /// Bit n: general purpose counter n.
    #[inline(always)]
    pub const fn gp_bits(self) -> u32 {
        self.0 as u32
    }

    /// Bit n: fixed counter n.
    #[inline(always)]
    pub const fn fixed_bits(self) -> u32 {
        (self.0 >> Self::FIXED) as u32
    }

    /// Whether there is no counter in it.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the two have a counter in common.
    #[inline(always)]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The counters of either.
    #[inline(always)]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The counters of both.
    #[inline(always)]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The number among the fixed counters of the counter whose bit is `bit`, if it is one.
    #[inline(always)]
    pub const fn fixed_index(bit: u32) -> Option<u32> {
        bit.checked_sub(Self::FIXED)
    }

    /// Takes the first counter out; its bit's number, if there was one.
    #[inline(always)]
    pub fn take_first(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }

        let first = self.0.trailing_zeros();

        self.0 &= self.0.wrapping_sub(1);
        Some(first)
    }

    /// The first `gp` general purpose counters and the first `fixed` fixed ones.
    #[inline(always)]
    pub const fn first(gp: u32, fixed: u32) -> Self {
        const fn ones(n: u32) -> u64 {
            (1u64 << n) - 1
        }

        Self(ones(gp) | ones(fixed) << Self::FIXED)
    }

    /// The counters of this one that are not in `other`.
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
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
