// SPDX-License-Identifier: GPL-2.0

//! The context switch: the guest's PMU state from memory into hardware and back.

use crate::{
    mutant::{
        self,
        Mutant, //
    },
    registers::{
        Hardware,
        RegisterFile, //
    },
    vendor::Vendor, //
};
use core::marker::PhantomData;
use kernel::{
    interrupt::LocalInterruptDisabled,
    kvm::mediated_pmu::{
        GuestPmu,
        Increment, //
    },
    perf::guest::{
        GuestContext,
        GuestLvtpc,
        RoutedContext, //
    },
    x86::{
        pmu::{
            Counter,
            CounterSet,
            EVENTSEL_ENABLE, //
        },
        tsc, //
    },
};

/// Where the PMU state of a vCPU is.
#[derive(Default)]
pub(crate) enum State<V> {
    /// In memory; the hardware is the host's.
    #[default]
    Memory,
    /// In the hardware of the CPU on which the vCPU's thread runs. Outside the guest its counters
    /// stand still.
    Hardware(Resident<V>),
}

/// What is in hardware of a vCPU.
pub(crate) struct Resident<V> {
    /// As the PMIs are routed.
    lvtpc: GuestLvtpc,
    /// The counters that may hold something of the guest; all others are zero.
    counters: CounterSet,
    /// The counters whose event selectors are not zero.
    selected: CounterSet,
    /// The event selectors.
    selectors: [u64; GuestPmu::MAX_GP_COUNTERS],
    /// `FIXED_CTR_CTRL`.
    fixed_ctr_ctrl: u64,
    /// The TSC of the CPU at the load.
    since: u64,
    /// The operations of the load.
    pub(crate) accessed: Hardware,
    _vendor: PhantomData<V>,
}

impl<V: Vendor> State<V> {
    /// Takes the PMU from perf and loads the guest's state.
    #[inline(always)]
    pub(crate) fn load<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        lvtpc: GuestLvtpc,
        irq: &LocalInterruptDisabled,
    ) {
        // Perf stops the PMU as a whole. Selectors and counters must not change while it counts,
        // else they would overflow on the way.
        let context = GuestContext::load(irq).route_pmi(lvtpc);
        let dirty = context.take_dirty_counters();

        *self = Self::Hardware(Resident::new(lvtpc));
        if let Self::Hardware(resident) = self {
            resident.load(regs, pmu, dirty);
        }
        context.keep();
    }

    /// Saves the guest's state, if it is in hardware, clears it there and gives the PMU back to
    /// perf. False if it was not.
    #[inline(always)]
    pub(crate) fn put<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        irq: &LocalInterruptDisabled,
    ) -> bool {
        let Self::Hardware(resident) = self else {
            return false;
        };
        let context = RoutedContext::resume(irq);

        if Mutant::LvtpcLeft.on() {
            resident.put(regs, pmu, CounterSet::EMPTY);
            context.keep();
        } else {
            let context = context.return_to_host();

            resident.put(regs, pmu, mutant::claimed(context.claimed()));
            drop(context);
        }
        *self = Self::Memory;
        true
    }

    /// Adds one to a counter in hardware, which stands still.
    #[inline(always)]
    pub(crate) fn increment<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        index: u32,
    ) -> Increment {
        match self {
            Self::Memory => Increment::InMemory,
            Self::Hardware(resident) => resident.increment(regs, pmu, index),
        }
    }

    /// Makes the guest's `PERF_GLOBAL_CTRL` in memory current. True if it had to be read and was
    /// the same.
    #[inline(always)]
    pub(crate) fn sync_global_ctrl<R: RegisterFile>(
        &self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
    ) -> bool {
        let Self::Hardware(_) = self else {
            return false;
        };

        if Mutant::GlobalCtrlStale.on() {
            return false;
        }

        let Some(control) = V::global_ctrl(regs) else {
            return false;
        };
        let same = control == pmu.global_ctrl();

        pmu.set_global_ctrl(control);
        same
    }
}

impl<V: Vendor> Resident<V> {
    /// Nothing, in a PMU that is disabled as a whole.
    #[inline(always)]
    pub(crate) fn new(lvtpc: GuestLvtpc) -> Self {
        Self {
            lvtpc,
            counters: CounterSet::EMPTY,
            selected: CounterSet::EMPTY,
            selectors: [0; GuestPmu::MAX_GP_COUNTERS],
            fixed_ctr_ctrl: 0,
            since: tsc::read(),
            accessed: Hardware::default(),
            _vendor: PhantomData,
        }
    }

    /// Loads the guest's registers into a PMU whose counters are stopped. Of its counters those in
    /// `dirty` hold anything, the others zero.
    #[inline(always)]
    pub(crate) fn load<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        dirty: CounterSet,
    ) {
        let nonzero = pmu.nonzero();

        for pmc in pmu.counters(nonzero) {
            if let Some(ctr) = V::counter(pmc.hw_counter()) {
                regs.write(ctr, mutant::loaded(&pmc));
            }
        }
        if !Mutant::DirtyCountersLeft.on() {
            V::clear_counters(regs, dirty.without(nonzero));
        }
        self.counters = pmu.passthrough().counters().union(nonzero);
        self.select(regs, pmu);
        if self.fixed_ctr_ctrl == 0 {
            // What perf had there is stopped, but not cleared.
            V::select_fixed(regs, 0);
        }
        V::load_global(regs, pmu);
    }

    /// Brings the selectors in hardware to what they are in memory.
    #[inline(always)]
    pub(crate) fn select<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        // The guest reads selectors from memory: one that enables nothing may stay away.
        let enabled = pmu.selectors().enabled();
        let gp = enabled.without(CounterSet::ALL_FIXED);

        for pmc in pmu.counters(gp.union(self.selected)) {
            let counter = pmc.hw_counter();
            let Some(in_hardware) = self.selectors.get_mut(counter.index() as usize) else {
                continue;
            };
            let wanted = match pmc.eventsel_hw() {
                selector if selector & EVENTSEL_ENABLE != 0 => {
                    selector & !mutant::removed(V::GUEST_ONLY)
                }
                _ => 0,
            };

            if wanted == *in_hardware {
                continue;
            }
            if let Some(sel) = V::SELECTORS.get(counter.index()) {
                regs.write(sel, wanted);
                *in_hardware = wanted;
            }
        }
        self.selected = gp;

        let wanted = pmu.fixed_ctr_ctrl_hw();

        if wanted != self.fixed_ctr_ctrl {
            V::select_fixed(regs, wanted);
            self.fixed_ctr_ctrl = wanted;
        }
        self.counters = self.counters.union(enabled);
    }

    /// Stops the counters, saves the guest's registers and clears those that hold anything of it,
    /// but for the counters in `claimed`, which perf is about to program.
    ///
    /// What stayed would count for the host under the guest's selectors, or could be read by any task
    /// that has RDPMC.
    #[inline(always)]
    pub(crate) fn put<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        claimed: CounterSet,
    ) {
        V::put_global(regs, pmu);
        if self.fixed_ctr_ctrl != 0
            && !claimed.intersects(CounterSet::ALL_FIXED)
            && !Mutant::FixedControlLeft.on()
        {
            V::select_fixed(regs, 0);
        }

        for mut pmc in pmu.counters(self.counters) {
            let counter = pmc.hw_counter();

            if Mutant::ClearedBeforeRead.on() {
                Self::clear(regs, counter);
            }

            let value = regs.read_counter(counter);

            pmc.set_counter(value);
            mutant::saved(&pmc);
            if claimed.intersects(CounterSet::of(counter)) {
                continue;
            }
            if value != 0 && !mutant::keeps(counter, self.counters) {
                Self::clear(regs, counter);
            }
            if self.selected.intersects(CounterSet::of(counter)) && !Mutant::SelectorLeft.on() {
                if let Some(sel) = V::SELECTORS.get(counter.index()) {
                    regs.write(sel, 0);
                }
            }
        }
    }

    /// Clears a counter.
    #[inline(always)]
    fn clear<R: RegisterFile>(regs: &mut R, counter: Counter) {
        if let Some(ctr) = V::counter(counter) {
            regs.write(ctr, 0);
        }
    }

    /// The time since the load, in ticks of the TSC.
    #[inline(always)]
    pub(crate) fn ticks(&self) -> u64 {
        tsc::read().wrapping_sub(self.since)
    }

    /// Whether a counter is enabled.
    #[inline(always)]
    pub(crate) fn is_selected(&self) -> bool {
        !self.selected.is_empty() || self.fixed_ctr_ctrl != 0
    }

    /// Adds one to a counter, which stands still.
    #[inline(always)]
    pub(crate) fn increment<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        index: u32,
    ) -> Increment {
        let Some((counter, width)) = pmu.counter(index) else {
            return Increment::InMemory;
        };
        let Some(ctr) = V::counter(counter) else {
            return Increment::InMemory;
        };
        if Mutant::IncrementLost.on() {
            return Increment::Counted;
        }

        let value = regs.read_counter(counter).wrapping_add(1) & width;

        regs.write(ctr, value);
        self.counters = self.counters.union(CounterSet::of(counter));
        if value != 0 {
            return Increment::Counted;
        }
        V::set_overflow(regs, CounterSet::of(counter));
        Increment::Overflowed
    }

    /// Whether the PMIs are routed so.
    #[inline(always)]
    pub(crate) fn is_routed(&self, lvtpc: GuestLvtpc) -> bool {
        self.lvtpc == lvtpc
    }

    /// Routes the PMIs as the guest's LVTPC says, if that has changed or is `unknown`.
    #[inline(always)]
    pub(crate) fn route_pmi(
        &mut self,
        lvtpc: GuestLvtpc,
        unknown: bool,
        irq: &LocalInterruptDisabled,
    ) {
        if lvtpc != self.lvtpc || unknown {
            let context = RoutedContext::resume(irq);

            context.route_pmi(lvtpc);
            context.keep();
            self.lvtpc = lvtpc;
        }
    }
}
