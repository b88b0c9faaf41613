// SPDX-License-Identifier: GPL-2.0

//! Counters, and sets of them.

use super::intel;

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
