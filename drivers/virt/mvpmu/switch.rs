// SPDX-License-Identifier: GPL-2.0

//! The context switch: the guest's PMU state from memory into hardware and back.

use crate::{
    mutant::{
        self,
        Mutant, //
    },
    registers::RegisterFile,
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
    x86::pmu::{
        CounterSet,
        EVENTSEL_ENABLE, //
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
    /// The event selectors.
    selectors: [u64; GuestPmu::MAX_GP_COUNTERS],
    /// `FIXED_CTR_CTRL`.
    fixed_ctr_ctrl: u64,
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

        *self = Self::Hardware(Resident::load(regs, pmu, lvtpc, dirty));
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

        resident.put(regs, pmu);
        *self = Self::Memory;
        if Mutant::LvtpcLeft.on() {
            context.keep();
        } else {
            drop(context);
        }
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

    /// Makes the guest's `PERF_GLOBAL_CTRL` in memory current.
    #[inline(always)]
    pub(crate) fn sync_global_ctrl<R: RegisterFile>(&self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        if let Self::Hardware(_) = self {
            V::save_global_ctrl(regs, pmu);
        }
    }
}

impl<V: Vendor> Resident<V> {
    /// Loads the guest's registers into a PMU whose counters are stopped. Of its counters those in
    /// `dirty` hold anything, the others zero.
    #[inline(always)]
    pub(crate) fn load<R: RegisterFile>(
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        lvtpc: GuestLvtpc,
        dirty: CounterSet,
    ) -> Self {
        let mut this = Self {
            lvtpc,
            counters: pmu.passthrough(),
            selectors: [0; GuestPmu::MAX_GP_COUNTERS],
            fixed_ctr_ctrl: 0,
            _vendor: PhantomData,
        };

        let mut written = CounterSet::EMPTY;

        for pmc in pmu.gp_counters().filter(|pmc| pmc.counter() != 0) {
            if let Some(ctr) = V::COUNTERS.get(pmc.hw_counter().index()) {
                regs.write(ctr, mutant::loaded(&pmc));
                written = written.union(CounterSet::of(pmc.hw_counter()));
            }
        }
        if let Some(fixed) = V::FIXED_COUNTERS {
            for pmc in pmu.fixed_counters().filter(|pmc| pmc.counter() != 0) {
                if let Some(ctr) = fixed.get(pmc.hw_counter().index()) {
                    regs.write(ctr, pmc.counter());
                    written = written.union(CounterSet::of(pmc.hw_counter()));
                }
            }
        }
        this.counters = this.counters.union(written);
        if !dirty.is_empty() && !Mutant::DirtyCountersLeft.on() {
            V::clear_counters(regs, dirty.without(written));
        }
        this.select(regs, pmu);
        if this.fixed_ctr_ctrl == 0 {
            // What perf had there is stopped, but not cleared.
            V::select_fixed(regs, 0);
        }
        V::load_global(regs, pmu);
        this
    }

    /// Brings the selectors in hardware to what they are in memory.
    #[inline(always)]
    pub(crate) fn select<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        for (pmc, in_hardware) in pmu.gp_counters().zip(&mut self.selectors) {
            let counter = pmc.hw_counter();
            // The guest reads selectors from memory: one that enables nothing may stay away.
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
                self.counters = self.counters.union(CounterSet::of(counter));
            }
        }

        let wanted = pmu.fixed_ctr_ctrl_hw();

        if wanted != self.fixed_ctr_ctrl {
            V::select_fixed(regs, wanted);
            self.fixed_ctr_ctrl = wanted;
            self.counters = self.counters.union(pmu.selectors().enabled());
        }
    }

    /// Stops the counters, saves the guest's registers and clears those that hold anything of it.
    ///
    /// What stayed would count for the host under the guest's selectors, or could be read by any task
    /// that has RDPMC.
    #[inline(always)]
    pub(crate) fn put<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        V::put_global(regs, pmu);
        if self.fixed_ctr_ctrl != 0 && !Mutant::FixedControlLeft.on() {
            V::select_fixed(regs, 0);
        }

        for (mut pmc, selector) in pmu.gp_counters().zip(&self.selectors) {
            let counter = pmc.hw_counter();

            if !self.counters.intersects(CounterSet::of(counter)) {
                continue;
            }

            if Mutant::ClearedBeforeRead.on() {
                if let Some(ctr) = V::COUNTERS.get(counter.index()) {
                    regs.write(ctr, 0);
                }
            }

            let value = regs.read_counter(counter);

            pmc.set_counter(value);
            mutant::saved(&pmc);
            if value != 0 && !mutant::keeps(counter, self.counters) {
                if let Some(ctr) = V::COUNTERS.get(counter.index()) {
                    regs.write(ctr, 0);
                }
            }
            if *selector != 0 && !Mutant::SelectorLeft.on() {
                if let Some(sel) = V::SELECTORS.get(counter.index()) {
                    regs.write(sel, 0);
                }
            }
        }

        if let Some(fixed) = V::FIXED_COUNTERS {
            for mut pmc in pmu.fixed_counters() {
                let counter = pmc.hw_counter();

                if !self.counters.intersects(CounterSet::of(counter)) {
                    continue;
                }

                let value = regs.read_counter(counter);

                pmc.set_counter(value);
                if value != 0 && !Mutant::FixedCounterLeft.on() {
                    if let Some(ctr) = fixed.get(counter.index()) {
                        regs.write(ctr, 0);
                    }
                }
            }
        }
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
        let msrs = if counter.is_fixed() {
            V::FIXED_COUNTERS
        } else {
            Some(V::COUNTERS)
        };
        let Some(ctr) = msrs.and_then(|msrs| msrs.get(counter.index())) else {
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
