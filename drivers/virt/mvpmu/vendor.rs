// SPDX-License-Identifier: GPL-2.0

//! What differs between the vendors' PMUs.

use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::{
        msr::{
            ReadOnly,
            WriteOnly, //
        },
        pmu::{
            Counter,
            CounterSet,
            Register,
            RegisterArray, //
        }, //
    },
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

/// The registers of the overflows. They are read in one, and changed by writing ones to the others.
pub(crate) struct Status {
    pub(crate) read: Register<ReadOnly>,
    pub(crate) clear: Register<WriteOnly>,
    pub(crate) set: Register<WriteOnly>,
}

impl Status {
    /// Whether `msr` is one of them.
    fn contains(&self, msr: u32) -> bool {
        [self.read.index(), self.clear.index(), self.set.index()].contains(&msr)
    }
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

    /// The status of overflows.
    const STATUS: Status;

    /// The fixed counters, if there are any.
    const FIXED_COUNTERS: Option<RegisterArray>;

    /// Whether the branch stack stays in hardware at VM exit. Else VM entry and exit switch it.
    const RECORDS_STAY: bool;

    /// Loads the guest's global control, the last thing of a load. Where VM entry does not do it,
    /// this starts counting.
    #[inline(always)]
    fn load_global_ctrl<R: RegisterFile>(_regs: &mut R, _control: u64) {}

    /// Saves the guest's global control and makes sure that every counter is stopped, the first
    /// thing of a put. The result is that of [`Vendor::sync_global_ctrl`].
    fn put_global_ctrl<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool>;

    /// Makes the guest's global control in memory current. If that had to be read, as VM exit does
    /// not save it: whether it was the same.
    fn sync_global_ctrl<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool>;

    /// Sets the control register of the fixed counters.
    fn select_fixed<R: RegisterFile>(regs: &mut R, control: u64);

    /// Loads the guest's status.
    ///
    /// What is there must go first: the guest reads the register without an exit.
    #[inline(always)]
    fn load_status<R: RegisterFile>(regs: &mut R, pmu: &GuestPmu<'_>) {
        let there = regs.read(Self::STATUS.read);
        let guest = pmu.global_status();

        if there & !guest != 0 {
            regs.write(Self::STATUS.clear, there & !guest);
        }
        if guest & !there != 0 {
            regs.write(Self::STATUS.set, guest & !there);
        }
    }

    /// Makes the guest's status in memory current. Its value.
    #[inline(always)]
    fn sync_status<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> u64 {
        let status = regs.read(Self::STATUS.read);

        pmu.set_global_status(status);
        status
    }

    /// Loads the guest's `PERF_METRICS`, right after the counter of slots.
    #[inline(always)]
    fn load_metrics<R: RegisterFile>(_regs: &mut R, _metrics: u64) {}

    /// Clears `PERF_METRICS` and the counter of slots.
    #[inline(always)]
    fn clear_metrics<R: RegisterFile>(_regs: &mut R) {}

    /// Whether what KVM has of `msr` in memory is current also while the state is in hardware, and a
    /// change of it gets to hardware by the next VM entry: registers that select what is counted.
    fn is_current_in_memory(msr: u32, pmu: &GuestPmu<'_>) -> bool;

    /// Whether `msr` is about the status of overflows.
    fn is_status(msr: u32) -> bool {
        Self::STATUS.contains(msr)
    }

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
