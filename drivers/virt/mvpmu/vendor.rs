// SPDX-License-Identifier: GPL-2.0

//! What differs between the vendors' PMUs.

use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::pmu::{
        Counter,
        CounterSet,
        Register,
        RegisterArray, //
    }, //
};

mod amd;
mod intel;
pub(crate) use amd::Amd;
pub(crate) use intel::Intel;

/// The registers of a counter.
pub(crate) struct Registers {
    /// The counter itself.
    pub(crate) counter: Register,
    /// Its event selector, if it has one of its own.
    pub(crate) selector: Option<Register>,
}

/// A vendor's PMU.
pub(crate) trait Vendor: Send + Sync + 'static {
    /// The PMU's name.
    const NAME: &'static str;

    /// The oldest version of the PMU that can be switched exactly.
    const MIN_VERSION: u32;

    /// The event selectors of the general purpose counters.
    const SELECTORS: RegisterArray;

    /// The general purpose counters, all of whose bits can be written.
    const COUNTERS: RegisterArray;

    /// The register that enables counters, all at once.
    const GLOBAL_CTRL: Register;

    /// The fixed counters, if there are any.
    const FIXED_COUNTERS: Option<RegisterArray>;

    /// Loads the guest's control and status registers, after its counters and selectors. Where
    /// VM entry does not do it, this starts counting.
    fn load_global<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>);

    /// Saves the guest's global control, makes sure that every counter is stopped, then saves and
    /// clears the status; the first thing of a put. The result is that of
    /// [`Vendor::sync_global_ctrl`].
    fn put_global<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool>;

    /// Makes the guest's global control in memory current. If that had to be read, as VM exit does
    /// not save it: whether it was the same.
    fn sync_global_ctrl<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool>;

    /// Sets the control register of the fixed counters.
    fn select_fixed<R: RegisterFile>(regs: &mut R, control: u64);

    /// Sets the status bits of counters that have overflowed.
    fn set_overflow<R: RegisterFile>(regs: &mut R, counters: CounterSet);

    /// Loads the guest's `PERF_METRICS`, right after the counter of slots.
    #[inline(always)]
    fn load_metrics<R: RegisterFile>(_regs: &mut R, _metrics: u64) {}

    /// Clears `PERF_METRICS` and the counter of slots.
    #[inline(always)]
    fn clear_metrics<R: RegisterFile>(_regs: &mut R) {}

    /// Whether what KVM has of `msr` in memory is current also while the state is in hardware, and a
    /// change of it gets to hardware by the next VM entry: registers that select what is counted.
    fn is_current_in_memory(msr: u32) -> bool;

    /// All counters there may be.
    #[inline(always)]
    fn counters() -> CounterSet {
        CounterSet::first(
            Self::COUNTERS.len(),
            Self::FIXED_COUNTERS.map_or(0, RegisterArray::len),
        )
    }

    /// A counter's registers.
    #[inline(always)]
    fn registers(counter: Counter) -> Option<Registers> {
        let i = counter.index();

        if counter.is_fixed() {
            Some(Registers {
                counter: Self::FIXED_COUNTERS?.get(i)?,
                selector: None,
            })
        } else {
            Some(Registers {
                counter: Self::COUNTERS.get(i)?,
                selector: Self::SELECTORS.get(i),
            })
        }
    }

    /// Clears counters, which stand still.
    #[inline(always)]
    fn clear_counters<R: RegisterFile>(regs: &mut R, mut counters: CounterSet) {
        while let Some(index) = counters.take_first() {
            let msr = match CounterSet::fixed_index(index) {
                Some(i) => Self::FIXED_COUNTERS.and_then(|fixed| fixed.get(i)),
                None => Self::COUNTERS.get(index),
            };

            if let Some(ctr) = msr {
                regs.write(ctr, 0);
            }
        }
    }
}
