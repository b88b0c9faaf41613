// SPDX-License-Identifier: GPL-2.0

//! The context switch: the guest's PMU state from memory into hardware and back.

use crate::{
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
        Pmc, //
    },
    perf::guest::{
        GuestContext,
        GuestLvtpc,
        RoutedContext, //
    },
    x86::{
        msr::Msr,
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

    /// Adds one to a counter in hardware, which stands still; true if it overflows.
    #[inline(always)]
    pub(crate) fn increment<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        index: u32,
    ) -> bool {
        match self {
            Self::Memory => false,
            Self::Hardware(resident) => resident.increment(regs, pmu, index),
        }
    }

    /// Makes the guest's `PERF_GLOBAL_CTRL` in memory current. If that had to be read: whether it
    /// was the same.
    #[inline(always)]
    pub(crate) fn sync_global_ctrl<R: RegisterFile>(
        &self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
    ) -> Option<bool> {
        match self {
            Self::Hardware(_) => V::sync_global_ctrl(regs, pmu),
            Self::Memory => None,
        }
    }
}

impl<V: Vendor> Resident<V> {
    /// Nothing, in a PMU that is disabled as a whole.
    #[inline(always)]
    pub(crate) fn new(lvtpc: GuestLvtpc) -> Self {
        Self {
            lvtpc,
            counters: CounterSet::EMPTY,
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
        let mut loaded = self.load_counters(regs, pmu.gp_counters(CounterSet::ALL));

        if V::FIXED_COUNTERS.is_some() {
            loaded = loaded.union(self.load_counters(regs, pmu.fixed_counters(CounterSet::ALL)));
            // Also if it is zero: what perf had there is stopped, but not cleared.
            self.fixed_ctr_ctrl = pmu.fixed_ctr_ctrl_hw();
            V::select_fixed(regs, self.fixed_ctr_ctrl);
        }
        V::clear_counters(regs, dirty.without(loaded));
        self.counters = self
            .counters
            .union(pmu.passthrough().counters())
            .union(loaded);
        V::load_global(regs, pmu);
    }

    /// Loads the counters that are not zero, and the selectors that enable something; in hardware
    /// none does. The set of the counters that are not zero.
    #[inline(always)]
    fn load_counters<'a, R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmcs: impl Iterator<Item = Pmc<'a>>,
    ) -> CounterSet {
        let mut loaded = CounterSet::EMPTY;

        for pmc in pmcs {
            let counter = pmc.hw_counter();
            let Some(to) = V::registers(counter) else {
                continue;
            };
            let value = pmc.counter();

            if value != 0 {
                regs.write(to.counter, value);
                loaded = loaded.union(CounterSet::of(counter));
            }
            if let (Some(to), selector @ 1..) = (to.selector, Self::selector(&pmc)) {
                self.write_selector(regs, counter, to, selector);
            }
        }
        loaded
    }

    /// Brings the selectors in hardware to what they are in memory.
    #[inline(always)]
    pub(crate) fn select<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        for pmc in pmu.gp_counters(CounterSet::ALL) {
            let counter = pmc.hw_counter();
            let selector = Self::selector(&pmc);

            if self.selectors.get(counter.index() as usize) == Some(&selector) {
                continue;
            }
            if let Some(to) = V::SELECTORS.get(counter.index()) {
                self.write_selector(regs, counter, to, selector);
            }
        }

        let wanted = pmu.fixed_ctr_ctrl_hw();

        if wanted != self.fixed_ctr_ctrl {
            V::select_fixed(regs, wanted);
            self.fixed_ctr_ctrl = wanted;
        }
        self.counters = self.counters.union(pmu.passthrough().counters());
    }

    /// The selector of a counter as hardware is to get it. The guest reads it from memory: one that
    /// enables nothing may stay away.
    #[inline(always)]
    fn selector(pmc: &Pmc<'_>) -> u64 {
        match pmc.eventsel_hw() {
            selector if selector & EVENTSEL_ENABLE != 0 => selector,
            _ => 0,
        }
    }

    /// Writes the selector of a counter to its register.
    #[inline(always)]
    fn write_selector<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        counter: Counter,
        to: Msr,
        selector: u64,
    ) {
        if let Some(in_hardware) = self.selectors.get_mut(counter.index() as usize) {
            regs.write(to, selector);
            *in_hardware = selector;
            self.counters = self.counters.union(CounterSet::of(counter));
        }
    }

    /// Gives the PMU back to perf. If the guest's `PERF_GLOBAL_CTRL` had to be read: whether it was
    /// the same as before.
    #[inline(always)]
    pub(crate) fn return_to_host<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        irq: &LocalInterruptDisabled,
    ) -> Option<bool> {
        let context = RoutedContext::resume(irq).return_to_host();

        self.put(regs, pmu, context.claimed())
    }

    /// Stops the counters, saves the guest's registers and clears those that hold anything of it,
    /// but for the counters in `claimed`, which perf is about to program. If the guest's
    /// `PERF_GLOBAL_CTRL` had to be read: whether it was the same as before.
    ///
    /// What stayed would count for the host under the guest's selectors, or could be read by any task
    /// that has RDPMC.
    #[inline(always)]
    pub(crate) fn put<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        claimed: CounterSet,
    ) -> Option<bool> {
        let same = V::put_global(regs, pmu, claimed);
        let cleared = self.counters.without(claimed);
        let claimed_too = self.counters.intersection(claimed);

        Self::save_counters(regs, pmu.gp_counters(claimed_too));
        self.put_counters(regs, pmu.gp_counters(cleared));
        if V::FIXED_COUNTERS.is_some() {
            if self.fixed_ctr_ctrl != 0 && !claimed.intersects(CounterSet::ALL_FIXED) {
                V::select_fixed(regs, 0);
            }
            Self::save_counters(regs, pmu.fixed_counters(claimed_too));
            self.put_counters(regs, pmu.fixed_counters(cleared));
        }
        same
    }

    /// Saves counters.
    #[inline(always)]
    fn save_counters<'a, R: RegisterFile>(regs: &mut R, pmcs: impl Iterator<Item = Pmc<'a>>) {
        for mut pmc in pmcs {
            pmc.set_counter(regs.read_counter(pmc.hw_counter()));
        }
    }

    /// Saves counters and clears them, with their selectors.
    #[inline(always)]
    fn put_counters<'a, R: RegisterFile>(&self, regs: &mut R, pmcs: impl Iterator<Item = Pmc<'a>>) {
        for mut pmc in pmcs {
            let counter = pmc.hw_counter();
            let Some(from) = V::registers(counter) else {
                continue;
            };

            let value = regs.read_counter(counter);

            pmc.set_counter(value);
            if value != 0 {
                regs.write(from.counter, 0);
            }

            let Some(selector) = from.selector else {
                continue;
            };
            let selected = self.selectors.get(counter.index() as usize);

            if selected != Some(&0) {
                regs.write(selector, 0);
            }
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
        self.fixed_ctr_ctrl
            | self
                .selectors
                .iter()
                .fold(0, |any, selector| any | selector)
            != 0
    }

    /// Adds one to a counter, which stands still; true if it overflows.
    #[inline(always)]
    pub(crate) fn increment<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        index: u32,
    ) -> bool {
        let Some((counter, width)) = pmu.counter(index) else {
            return false;
        };
        let Some(registers) = V::registers(counter) else {
            return false;
        };

        let value = regs.read_counter(counter).wrapping_add(1) & width;

        regs.write(registers.counter, value);
        self.counters = self.counters.union(CounterSet::of(counter));
        if value != 0 {
            return false;
        }
        V::set_overflow(regs, CounterSet::of(counter));
        true
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
