// SPDX-License-Identifier: GPL-2.0

//! The context switch: the guest's PMU state from memory into hardware and back.

use crate::{
    registers::{
        Accesses,
        Hardware,
        RegisterFile, //
    },
    vendor::Vendor, //
};
use core::{
    marker::PhantomData,
    mem, //
};
use kernel::{
    interrupt::LocalInterruptDisabled,
    kvm::mediated_pmu::{
        GuestPmu,
        MsrAccess,
        Pmc, //
    },
    perf::guest::{
        GuestLvtpc,
        LentPmu, //
    },
    x86::{
        pmu::{
            Counter,
            CounterSet,
            Register,
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
    Hardware(Parked<V>),
}

/// A state in hardware.
pub(crate) struct Parked<V> {
    lent: LentPmu,
    pub(crate) resident: Resident<V>,
    /// The operations of the load.
    accesses: Accesses,
}

/// What a put was like.
pub(crate) struct Done {
    /// The operations of the load and the put.
    pub(crate) accesses: Accesses,
    /// The time since the load, in ticks of the TSC.
    pub(crate) ticks: u64,
    /// Whether a counter was enabled.
    pub(crate) selected: bool,
    /// Whether the branch stack was in hardware.
    pub(crate) branches: bool,
    /// If `PERF_GLOBAL_CTRL` had to be read: whether it was the same as before.
    pub(crate) same: Option<bool>,
}

/// What a put leaves for perf to clear or overwrite.
pub(crate) struct Left {
    /// The counters that are not zero.
    pub(crate) counters: CounterSet,
    /// The counters whose selectors may not be, or all fixed ones if their control is not.
    pub(crate) selectors: CounterSet,
    /// The branch stack is the guest's.
    pub(crate) branches: bool,
    /// If `PERF_GLOBAL_CTRL` had to be read: whether it was the same as before.
    pub(crate) same: Option<bool>,
}

/// What is in hardware of a vCPU.
pub(crate) struct Resident<V> {
    /// As the PMIs are routed.
    lvtpc: GuestLvtpc,
    /// The counters that may hold something of the guest; all others are zero.
    counters: CounterSet,
    /// The counters whose selectors may hold something of the guest; all others are zero.
    selected: CounterSet,
    /// The event selectors.
    selectors: [u64; GuestPmu::MAX_GP_COUNTERS],
    /// `FIXED_CTR_CTRL`.
    fixed_ctr_ctrl: u64,
    /// The branch stack may be the guest's.
    branches: bool,
    /// `PERF_GLOBAL_CTRL` as loaded, if the guest's writes have not passed through since.
    global_ctrl: Option<u64>,
    /// The status of overflows has been changed in memory, where it is newer than in hardware.
    status_changed: bool,
    /// The TSC of the CPU at the load.
    since: u64,
    _vendor: PhantomData<V>,
}

impl<V: Vendor> State<V> {
    /// Takes the PMU from perf and loads the guest's state. The operations, which [`Done`] has, too.
    #[inline(always)]
    pub(crate) fn load(
        &mut self,
        pmu: &mut GuestPmu<'_>,
        lvtpc: GuestLvtpc,
        irq: &LocalInterruptDisabled,
    ) -> Accesses {
        // Perf stops the PMU as a whole. Selectors and counters must not change while it counts,
        // else they would overflow on the way.
        let Some((lent, dirty)) = LentPmu::load(lvtpc, V::counters(), irq) else {
            return Accesses::default();
        };
        let mut accesses = Accesses::default();

        *self = Self::Hardware(Parked {
            lent,
            resident: Resident::new(lvtpc),
            accesses,
        });
        if let Some((resident, mut hardware)) = self.in_hardware(&mut accesses, irq) {
            resident.load(&mut hardware, pmu, dirty);
        }
        if let Self::Hardware(parked) = self {
            parked.accesses = accesses;
        }
        accesses
    }

    /// What is in hardware, and its registers. They count in `accesses`.
    #[inline(always)]
    pub(crate) fn in_hardware<'a>(
        &'a mut self,
        accesses: &'a mut Accesses,
        irq: &'a LocalInterruptDisabled,
    ) -> Option<(&'a mut Resident<V>, Hardware<'a>)> {
        match self {
            Self::Memory => None,
            Self::Hardware(Parked { lent, resident, .. }) => {
                Some((resident, Hardware::new(lent.registers(irq)?, accesses)))
            }
        }
    }

    /// Gives the PMU back to perf. If the guest's `PERF_GLOBAL_CTRL` had to be read: whether it was
    /// the same as before.
    #[inline(always)]
    pub(crate) fn put(
        &mut self,
        pmu: &mut GuestPmu<'_>,
        irq: &LocalInterruptDisabled,
    ) -> Option<Done> {
        let Self::Hardware(Parked {
            lent,
            resident,
            accesses,
        }) = self
        else {
            return None;
        };
        let mut accesses = *accesses;
        let ticks = tsc::read().wrapping_sub(resident.since);
        let mut hardware = Hardware::new(lent.registers(irq)?, &mut accesses);
        let left = resident.put(&mut hardware, pmu);

        if let Self::Hardware(Parked { lent, .. }) = mem::take(self) {
            lent.put(left.counters, left.selectors, left.branches, irq);
        }
        Some(Done {
            accesses,
            ticks,
            selected: !left.selectors.is_empty(),
            branches: left.branches,
            same: left.same,
        })
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
            branches: false,
            global_ctrl: None,
            status_changed: false,
            since: tsc::read(),
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
        let none = CounterSet::EMPTY;
        let (mut loaded, selected) =
            self.load_counters(regs, pmu.gp_counters(CounterSet::ALL), none);

        if V::FIXED_COUNTERS.is_some() {
            let metrics = Self::metrics_to_load(regs, pmu);
            // Also if it is zero: the metrics have to be written after it.
            let slots = metrics.map_or(none, |_| CounterSet::SLOTS);
            let fixed = pmu.fixed_counters(CounterSet::ALL);

            loaded = loaded.union(self.load_counters(regs, fixed, slots).0);
            if let Some(metrics) = metrics {
                V::load_metrics(regs, metrics);
            }
            // Also if it is zero: what perf had there is stopped, but not cleared.
            self.fixed_ctr_ctrl = pmu.fixed_ctr_ctrl_hw();
            V::select_fixed(regs, self.fixed_ctr_ctrl);
        }
        V::clear_counters(regs, dirty.without(loaded));
        self.selected = selected;
        self.counters = pmu.passthrough().counters().union(loaded).union(selected);
        self.load_branches(regs, pmu);
        V::load_status(regs, pmu);
        V::load_global_ctrl(regs, pmu.global_ctrl());
        self.global_ctrl = Self::loaded_global_ctrl(pmu);
    }

    /// Has the guest's branch stack in hardware if it is to be there: here, or VM entry loads it. KVM may
    /// have brought it to memory since the last time.
    #[inline(always)]
    fn load_branches<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        if !pmu.passthrough().has_branches() {
            return;
        }
        self.branches = true;
        if V::RECORDS_STAY {
            if let Some(lbrs) = pmu.lbrs() {
                regs.load_lbrs(lbrs);
            }
        }
    }

    /// What `PERF_GLOBAL_CTRL` in hardware stays until the next load, if it does.
    #[inline(always)]
    fn loaded_global_ctrl(pmu: &GuestPmu<'_>) -> Option<u64> {
        (!pmu.passthrough().has_global_ctrl()).then(|| pmu.global_ctrl())
    }

    /// The guest's `PERF_METRICS`, unless it is zero, and zero in hardware: a guest that has the
    /// register reads it without an exit, and perf does not say what its events left there.
    #[inline(always)]
    fn metrics_to_load<R: RegisterFile>(regs: &mut R, pmu: &GuestPmu<'_>) -> Option<u64> {
        let in_hardware = regs.read_metrics(pmu.metrics()?);
        let metrics = pmu.perf_metrics();

        if in_hardware | metrics == 0 {
            return None;
        }
        Some(metrics)
    }

    /// Loads the counters that are not zero or in `also`, and the selectors that enable something; in
    /// hardware none does. The set of the counters that were loaded, and that of those whose selectors
    /// were.
    #[inline(always)]
    fn load_counters<'a, R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmcs: impl Iterator<Item = Pmc<'a>>,
        also: CounterSet,
    ) -> (CounterSet, CounterSet) {
        let mut loaded = CounterSet::EMPTY;
        let mut selected = CounterSet::EMPTY;

        for pmc in pmcs {
            let counter = pmc.hw_counter();
            let Some(to) = V::registers(counter) else {
                continue;
            };
            let value = pmc.counter();

            if value != 0 || also.intersects(CounterSet::of(counter)) {
                regs.write(to.counter, value);
                loaded = loaded.union(CounterSet::of(counter));
            }
            if let (Some(to), selector @ 1..) = (to.selector, Self::selector(&pmc)) {
                self.write_selector(regs, counter, to, selector);
                selected = selected.union(CounterSet::of(counter));
            }
        }
        (loaded, selected)
    }

    /// Brings the selectors, the global control and the status in hardware to what they are in memory.
    #[inline(always)]
    pub(crate) fn reload<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) {
        for pmc in pmu.reselected() {
            let counter = pmc.hw_counter();
            let selector = Self::selector(&pmc);

            if self.selectors.get(counter.index() as usize) == Some(&selector) {
                continue;
            }
            if let Some(to) = V::SELECTORS.get(counter.index()) {
                self.write_selector(regs, counter, to, selector);
                self.selected = match selector {
                    0 => self.selected.without(CounterSet::of(counter)),
                    _ => self.selected.union(CounterSet::of(counter)),
                };
                self.counters = self.counters.union(CounterSet::of(counter));
            }
        }

        let wanted = pmu.fixed_ctr_ctrl_hw();

        if wanted != self.fixed_ctr_ctrl {
            V::select_fixed(regs, wanted);
            self.fixed_ctr_ctrl = wanted;
        }
        self.counters = self.counters.union(pmu.passthrough().counters());
        self.load_branches(regs, pmu);
        self.settle_status(regs, pmu);
        if self
            .global_ctrl
            .is_some_and(|there| there != pmu.global_ctrl())
        {
            V::load_global_ctrl(regs, pmu.global_ctrl());
        }
        self.global_ctrl = Self::loaded_global_ctrl(pmu);
    }

    /// KVM handles an access to `msr`, which is not current in memory: makes it so. False if all of the
    /// state has to be there.
    pub(crate) fn sync<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        msr: u32,
        access: MsrAccess,
    ) -> bool {
        let is_status = V::is_status(msr);

        if is_status {
            if !self.status_changed {
                V::sync_status(regs, pmu);
            }
            self.status_changed |= access == MsrAccess::Write;
        }
        is_status
    }

    /// Brings the status in hardware to what it is in memory.
    #[inline(always)]
    fn settle_status<R: RegisterFile>(&mut self, regs: &mut R, pmu: &GuestPmu<'_>) {
        if mem::take(&mut self.status_changed) {
            V::load_status(regs, pmu);
        }
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
        to: Register,
        selector: u64,
    ) {
        if let Some(in_hardware) = self.selectors.get_mut(counter.index() as usize) {
            regs.write(to, selector);
            *in_hardware = selector;
        }
    }

    /// Stops the counters and saves the guest's registers. What perf does not know of is cleared
    /// here; the rest is for [`LentPmu::put`].
    ///
    /// What stayed would count for the host under the guest's selectors, or could be read by any task
    /// that has RDPMC.
    #[inline(always)]
    pub(crate) fn put<R: RegisterFile>(&mut self, regs: &mut R, pmu: &mut GuestPmu<'_>) -> Left {
        let mut left = Left {
            counters: CounterSet::EMPTY,
            selectors: self.selected,
            branches: self.branches,
            same: V::put_global_ctrl(regs, pmu),
        };
        // The thread may leave the CPU before a change has got to hardware.
        let status = if mem::take(&mut self.status_changed) {
            regs.read(V::STATUS.read)
        } else {
            V::sync_status(regs, pmu)
        };

        if status != 0 {
            regs.write(V::STATUS.clear, status);
        }
        Self::save_counters(regs, pmu.gp_counters(self.counters), &mut left);
        if V::FIXED_COUNTERS.is_some() {
            Self::save_counters(regs, pmu.fixed_counters(self.counters), &mut left);
            if self.fixed_ctr_ctrl != 0 {
                left.selectors = left.selectors.union(CounterSet::ALL_FIXED);
            }
            if self.counters.intersects(CounterSet::SLOTS) {
                Self::put_metrics(regs, pmu, &mut left);
            }
        }
        left
    }

    /// Saves the guest's `PERF_METRICS`, if it has that. Perf does not clear it.
    #[inline(always)]
    fn put_metrics<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>, left: &mut Left) {
        let Some(metrics) = pmu.metrics() else {
            return;
        };
        let metrics = regs.read_metrics(metrics);

        pmu.set_perf_metrics(metrics);
        if metrics != 0 {
            V::clear_metrics(regs);
            left.counters = left.counters.without(CounterSet::SLOTS);
        }
    }

    /// Saves counters; what they hold is `left`.
    #[inline(always)]
    fn save_counters<'a, R: RegisterFile>(
        regs: &mut R,
        pmcs: impl Iterator<Item = Pmc<'a>>,
        left: &mut Left,
    ) {
        for mut pmc in pmcs {
            let counter = pmc.hw_counter();
            let value = regs.read_counter(counter);

            pmc.set_counter(value);
            if value != 0 {
                left.counters = left.counters.union(CounterSet::of(counter));
            }
        }
    }

    /// Adds one to each of `counters`, which stand still. Those that overflow.
    #[inline(always)]
    pub(crate) fn increment<R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        counters: CounterSet,
    ) -> CounterSet {
        let (gp, fixed) = pmu.counter_masks();
        let mut overflowed = self.increment_all(regs, pmu.gp_counters(counters), gp);

        if V::FIXED_COUNTERS.is_some() {
            overflowed =
                overflowed.union(self.increment_all(regs, pmu.fixed_counters(counters), fixed));
        }
        if !overflowed.is_empty() {
            // A change that gets there later would take them back.
            self.settle_status(regs, pmu);
            regs.write(V::STATUS.set, overflowed.bits());
        }
        overflowed
    }

    /// Adds one to counters that have the bits in `mask`.
    #[inline(always)]
    fn increment_all<'a, R: RegisterFile>(
        &mut self,
        regs: &mut R,
        pmcs: impl Iterator<Item = Pmc<'a>>,
        mask: u64,
    ) -> CounterSet {
        let mut overflowed = CounterSet::EMPTY;

        for pmc in pmcs {
            let counter = pmc.hw_counter();
            let Some(registers) = V::registers(counter) else {
                continue;
            };
            let value = regs.read_counter(counter).wrapping_add(1) & mask;

            regs.write(registers.counter, value);
            self.counters = self.counters.union(CounterSet::of(counter));
            if value == 0 {
                overflowed = overflowed.union(CounterSet::of(counter));
            }
        }
        overflowed
    }
}

impl<V> Parked<V> {
    /// Routes the PMIs as the guest's LVTPC says, if that has changed or is `unknown`.
    #[inline(always)]
    pub(crate) fn route_pmi(
        &mut self,
        lvtpc: GuestLvtpc,
        unknown: bool,
        irq: &LocalInterruptDisabled,
    ) {
        if lvtpc != self.resident.lvtpc || unknown {
            self.lent.route_pmi(lvtpc, irq);
            self.resident.lvtpc = lvtpc;
        }
    }
}
