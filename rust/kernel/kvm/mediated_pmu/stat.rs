// SPDX-License-Identifier: GPL-2.0

//! Statistics.

use crate::kvm::Vcpu;
use core::cell::UnsafeCell;

/// A number with one writer at a time; anybody may read it at any time.
///
/// On VM entry and exit neither a locked instruction nor a call is worth it, which the operations of
/// [`Atomic`](crate::sync::atomic::Atomic) are. If there are two writers, one's addition may be lost.
#[derive(Default)]
#[repr(transparent)]
pub struct Count(UnsafeCell<u64>);

// SAFETY: All accesses are single volatile ones of a word, as `READ_ONCE()` and `WRITE_ONCE()` are.
unsafe impl Sync for Count {}

impl Count {
    /// The number.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: The pointer is valid and aligned.
        unsafe { self.0.get().read_volatile() }
    }

    /// Sets it.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        // SAFETY: The pointer is valid and aligned.
        unsafe { self.0.get().write_volatile(n) }
    }

    /// Adds to it.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }
}

/// Defines the statistics of KVM that are a provider's.
macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident: $field:ident,)*) => {
        /// KVM's statistics of a vCPU, as far as they are its provider's.
        ///
        /// They are read by file descriptors (`KVM_GET_STATS_FD`) and in KVM's debugfs, where they
        /// can be set to 0, too.
        #[derive(Clone, Copy)]
        pub struct Statistics<'a>(&'a Vcpu);

        impl<'a> Statistics<'a> {
            $(
                $(#[$doc])*
                #[inline(always)]
                pub fn $name(self) -> &'a Count {
                    // SAFETY: The vCPU exists for all of `'a`; `Count` is a `u64`, which KVM reads and
                    // clears as a word.
                    unsafe { &*(&raw const (*self.0 .0.get()).stat.$field).cast() }
                }
            )*
        }
    };
}

statistics! {
    /// Times it began to use the hardware.
    activations: mediated_pmu_activations,
    /// Times it could not.
    refusals: mediated_pmu_refusals,
    /// Whether it waits.
    waiting: mediated_pmu_waiting,
    /// Times its state went into hardware.
    loads: mediated_pmu_loads,
    /// Times it came back.
    puts: mediated_pmu_puts,
    /// VM exits after which it stayed in hardware.
    switches_avoided: mediated_pmu_switches_avoided,
    /// Puts that were no VM exit's.
    releases: mediated_pmu_releases,
    /// PMIs.
    pmis: mediated_pmu_pmis,
    /// Reads of PMU registers by the provider.
    hw_reads: mediated_pmu_hw_reads,
    /// Writes of them by the provider.
    hw_writes: mediated_pmu_hw_writes,
    /// Intercepted reads by the guest.
    guest_reads: mediated_pmu_guest_reads,
    /// Intercepted writes by the guest.
    guest_writes: mediated_pmu_guest_writes,
}

impl Vcpu {
    /// KVM's statistics of it.
    #[inline(always)]
    pub fn statistics(&self) -> Statistics<'_> {
        Statistics(self)
    }
}
