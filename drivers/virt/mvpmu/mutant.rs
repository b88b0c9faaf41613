// SPDX-License-Identifier: GPL-2.0

//! Deliberate bugs, one at a time, for the tests of the tests: each has to be caught.
//!
//! Only with `CONFIG_MVPMU_MUTANTS`; else [`Mutant::on`] is a constant that is false.

use kernel::{
    kvm::mediated_pmu::Pmc,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    x86::pmu::{
        Counter,
        CounterSet, //
    },
};

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(CONFIG_MVPMU_MUTANTS), allow(dead_code))]
pub(crate) enum Mutant {
    /// There is none.
    None,
    /// A put does not clear the event selectors.
    SelectorLeft,
    /// A put does not clear the general purpose counters.
    CounterLeft,
    /// A put does not clear the fixed counters.
    FixedCounterLeft,
    /// A put does not clear the control of the fixed counters.
    FixedControlLeft,
    /// A put does not clear the status.
    StatusLeft,
    /// A put clears one general purpose counter too few.
    OneTooFew,
    /// A put clears a counter before it reads it.
    ClearedBeforeRead,
    /// The counters run outside the guest too.
    HostCounts,
    /// A load takes the counters that another vCPU was left with.
    WrongVcpu,
    /// The PMIs of the host go to the guest's vector.
    LvtpcLeft,
    /// The state stays in hardware when the vCPU's thread returns to userspace.
    UserspacePutSkipped,
    /// The state stays in hardware when the vCPU's thread leaves the CPU.
    PreemptionPutSkipped,
    /// What the host has counted stays where the guest reads.
    DirtyCountersLeft,
    /// The state stays in hardware though events of the host wait for it.
    HostWaits,
    /// A selector that changes while the state is in hardware does not get there.
    SelectionLost,
    /// An emulated instruction does not move the counter in hardware.
    IncrementLost,
    /// If perf is about to program a counter, a put clears none.
    AllClaimed,
    /// An emulated instruction is counted by the global control of long ago.
    GlobalCtrlStale,
}

impl Mutant {
    /// Whether this is the bug that the module was loaded with.
    #[inline(always)]
    pub(crate) fn on(self) -> bool {
        #[cfg(CONFIG_MVPMU_MUTANTS)]
        {
            crate::module_parameters::mutant.value() == self
        }
        #[cfg(not(CONFIG_MVPMU_MUTANTS))]
        {
            false
        }
    }
}

/// The counter's value as a load writes it.
#[inline(always)]
pub(crate) fn loaded(pmc: &Pmc<'_>) -> u64 {
    if Mutant::WrongVcpu.on() && is_first(pmc) {
        return LAST.load(Relaxed);
    }
    pmc.counter()
}

/// A put has saved the counter's value.
#[inline(always)]
pub(crate) fn saved(pmc: &Pmc<'_>) {
    if Mutant::WrongVcpu.on() && is_first(pmc) {
        LAST.store(pmc.counter(), Relaxed);
    }
}

fn is_first(pmc: &Pmc<'_>) -> bool {
    !pmc.hw_counter().is_fixed() && pmc.hw_counter().index() == 0
}

/// What the first counter held at the last put, of whatever vCPU.
static LAST: Atomic<u64> = Atomic::new(0);

/// Whether a put does not clear this one of the counters in use.
#[inline(always)]
pub(crate) fn keeps(counter: Counter, in_use: CounterSet) -> bool {
    if counter.is_fixed() {
        return Mutant::FixedCounterLeft.on();
    }

    let beyond = CounterSet::gp(counter.index() + 1).bits().wrapping_neg() as u32;
    let is_last = in_use.bits() as u32 & beyond == 0;

    Mutant::CounterLeft.on() || (Mutant::OneTooFew.on() && is_last)
}

/// The counters that a put takes for claimed by perf.
#[inline(always)]
pub(crate) fn claimed(claimed: CounterSet) -> CounterSet {
    if Mutant::AllClaimed.on() && !claimed.is_empty() {
        return CounterSet::ALL;
    }
    claimed
}

/// The bits that are lost from a selector.
#[inline(always)]
pub(crate) fn removed(guest_only: u64) -> u64 {
    if Mutant::HostCounts.on() {
        guest_only
    } else {
        0
    }
}

#[cfg(CONFIG_MVPMU_MUTANTS)]
mod parameter {
    use super::Mutant;
    use kernel::{
        fmt,
        module_param::ModuleParam,
        prelude::*,
        str::BStr, //
    };

    /// All of them, with their names.
    const NAMES: [(Mutant, &str); 19] = [
        (Mutant::None, "none"),
        (Mutant::SelectorLeft, "selector-left"),
        (Mutant::CounterLeft, "counter-left"),
        (Mutant::FixedCounterLeft, "fixed-counter-left"),
        (Mutant::FixedControlLeft, "fixed-control-left"),
        (Mutant::StatusLeft, "status-left"),
        (Mutant::OneTooFew, "one-too-few"),
        (Mutant::ClearedBeforeRead, "cleared-before-read"),
        (Mutant::HostCounts, "host-counts"),
        (Mutant::WrongVcpu, "wrong-vcpu"),
        (Mutant::LvtpcLeft, "lvtpc-left"),
        (Mutant::UserspacePutSkipped, "userspace-put-skipped"),
        (Mutant::PreemptionPutSkipped, "preemption-put-skipped"),
        (Mutant::DirtyCountersLeft, "dirty-counters-left"),
        (Mutant::HostWaits, "host-waits"),
        (Mutant::SelectionLost, "selection-lost"),
        (Mutant::IncrementLost, "increment-lost"),
        (Mutant::AllClaimed, "all-claimed"),
        (Mutant::GlobalCtrlStale, "global-ctrl-stale"),
    ];

    impl ModuleParam for Mutant {
        fn try_from_param_arg(arg: &BStr) -> Result<Self> {
            NAMES
                .iter()
                .find(|(_, name)| name.as_bytes() == &**arg)
                .map(|(mutant, _)| *mutant)
                .ok_or(EINVAL)
        }

        fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let name = NAMES.iter().find(|(mutant, _)| mutant == self);

            f.write_str(name.map_or("", |(_, name)| name))
        }
    }
}
