// SPDX-License-Identifier: GPL-2.0
//! The vendor-neutral PMU of one logical CPU.

use crate::options::PowerOn;
use crate::options::Random;
use crate::oracle::Entry;
use crate::oracle::Operation;
use crate::oracle::Oracle;
use crate::oracle::TRACING;
use crate::Access;
use crate::Budget;
use crate::ClassSet;
use crate::Counters;
use crate::CycleRule;
use crate::Deltas;
use crate::Event;
use crate::Fault;
use crate::Owner;
use crate::Source;
use crate::SourceSet;
use crate::Stats;
use crate::Watched;
use crate::MAX_COUNTERS;

/// How the CPU came back to its initial state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Power-up or RESET.
    Reset,
    /// INIT.
    Init,
}

/// What a running counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// The event.
    pub event: Event,
    /// The kinds of execution it counts in.
    pub classes: ClassSet,
    /// Whether its wrap asks for a PMI.
    pub pmi: bool,
}

/// A vendor's registers.
///
/// Holds every register but the counters themselves, which [`Pmu`] owns.
pub trait RegisterMap {
    /// A register that exists in this PMU.
    type Register: Copy + std::fmt::Debug;

    /// Width of the counters in bits.
    const COUNTER_WIDTH: u32;

    /// Number of counters, general purpose and fixed, and of what else holds counts.
    fn counters(&self) -> usize;

    /// The number of a register that holds counts, but is none; the last one.
    fn derived(&self) -> Option<usize> {
        None
    }

    /// The register with this MSR number, if this PMU has it.
    fn register(&self, msr: u32) -> Option<Self::Register>;

    /// RDMSR.
    fn read(&self, register: Self::Register, counters: &Counters) -> Result<u64, Fault>;

    /// WRMSR.
    fn write(
        &mut self,
        register: Self::Register,
        value: u64,
        counters: &mut Counters,
    ) -> Result<(), Fault>;

    /// RDPMC with `index` in ECX.
    fn rdpmc(&self, index: u32, counters: &Counters) -> Result<u64, Fault>;

    /// What counter `n` counts with the registers as they are; `None` when it stands still.
    fn counting(&self, n: usize) -> Option<Counting>;

    /// The condition counter `n` puts on each cycle, if it has one.
    fn cycle_rule(&self, _n: usize) -> Option<CycleRule> {
        None
    }

    /// What moves the register of number [`derived`](RegisterMap::derived), as it is.
    fn derived_from(&self) -> SourceSet {
        SourceSet::NONE
    }

    /// This happened: moves that register. Whether it did.
    fn derive(&mut self, _events: &Deltas, _counters: &mut Counters) -> bool {
        false
    }

    /// This happened: for what counts beside the counters.
    fn happened(&mut self, _events: &Deltas) {}

    /// Counter `n` wrapped: set its status bit, and whatever else the vendor does then.
    fn wrapped(&mut self, n: usize);

    /// A PMI is due: what the vendor does besides asking for the interrupt.
    fn pmi(&mut self) {}

    /// Back to the initial state.
    fn reset(&mut self, reset: Reset, counters: &mut Counters);

    /// Fills all registers with what they can hold; some counters shall run.
    fn scramble(&mut self, random: &mut Random, counters: &mut Counters);
}

/// What counts cycles: one cycle is one instruction.
const CYCLES: Event = Event::of(Source::Instructions);

/// What a fold led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Overflow {
    /// The counters that wrapped, one bit each.
    pub counters: u64,
    /// A PMI is due: one, however many counters wrapped.
    pub pmi: bool,
}

/// The PMU of one logical CPU.
#[derive(Clone, Debug)]
pub struct Pmu<M: RegisterMap> {
    map: M,
    counters: Counters,
    /// Whether the condition of each counter held in the last cycle.
    asserted: [bool; MAX_COUNTERS],
    stats: Stats,
    oracle: Option<Box<Oracle<M::Register>>>,
    /// What is in the registers after RESET, if not what the manuals say.
    random: Option<Random>,
}

impl<M: Watched> Pmu<M> {
    /// A PMU as it is after RESET.
    pub fn new(mut map: M) -> Pmu<M> {
        let mut counters = Counters::new(map.counters(), M::COUNTER_WIDTH, map.derived());
        map.reset(Reset::Reset, &mut counters);
        Pmu {
            map,
            counters,
            asserted: [false; MAX_COUNTERS],
            stats: Stats::default(),
            oracle: None,
            random: None,
        }
    }

    /// Has the registers of CPU `cpu` hold this when it is powered on, which is now, and after
    /// each RESET.
    pub fn power_on(&mut self, with: PowerOn, cpu: u32) {
        self.random = with.random(cpu);
        self.scramble();
    }

    fn scramble(&mut self) {
        if let Some(random) = &mut self.random {
            self.map.scramble(random, &mut self.counters);
        }
    }

    /// The vendor's registers.
    pub fn map(&self) -> &M {
        &self.map
    }

    /// The vendor's registers, to change what they depend on. [Fold](Pmu::fold) first.
    pub fn map_mut(&mut self) -> &mut M {
        &mut self.map
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The operations counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The operations counted so far, with what the oracle has seen.
    pub fn stats_with_oracle(&self) -> Stats {
        Stats {
            oracle: self.oracle.as_ref().map(|oracle| *oracle.counts()),
            ..self.stats
        }
    }

    /// The operations counted so far, to count what only the machine sees.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Has an oracle watch from now on.
    pub fn watch(&mut self, oracle: Oracle<M::Register>) {
        self.oracle = Some(Box::new(oracle));
    }

    /// The oracle, if one watches.
    pub fn oracle(&self) -> Option<&Oracle<M::Register>> {
        self.oracle.as_deref()
    }

    /// The oracle, if one watches.
    pub fn oracle_mut(&mut self) -> Option<&mut Oracle<M::Register>> {
        self.oracle.as_deref_mut()
    }

    /// The registers, the counters, and the oracle if one watches.
    pub(crate) fn parts(&mut self) -> (&mut M, &Counters, Option<&mut Oracle<M::Register>>) {
        (&mut self.map, &self.counters, self.oracle.as_deref_mut())
    }

    /// VM entry, for the oracle. [Fold](Pmu::fold) first.
    pub fn enter(&mut self, entry: Entry) {
        if let Some(oracle) = &mut self.oracle {
            oracle.enter(&self.map, &self.counters, entry);
        }
    }

    /// VM exit, for the oracle. [Fold](Pmu::fold) first.
    pub fn exit(&mut self) {
        if let Some(oracle) = &mut self.oracle {
            oracle.exit(&self.map, &self.counters);
        }
    }

    /// The guest has left with WRMSR of this register, for the host to do it: for the oracle.
    pub fn asks(&mut self, guest: u64, register: M::Register, value: u64) {
        if let Some(oracle) = &mut self.oracle {
            oracle.asks(&self.map, &self.counters, guest, register, value);
        }
    }

    /// The LVTPC was written: for the oracle.
    pub fn lvtpc(&mut self, value: u32, owner: Owner) {
        if let Some(oracle) = &mut self.oracle {
            oracle.lvtpc(&self.map, &self.counters, value, owner);
        }
    }

    /// What a trace of branches depends on was written: for the oracle.
    pub fn trace_changed(&mut self) {
        if let Some(oracle) = &mut self.oracle {
            oracle.check_trace(&self.map, &self.counters, TRACING);
        }
    }

    /// A PMI is due that no counter asks for, but a trace of branches.
    pub fn trace_pmi(&mut self) {
        self.map.pmi();
        if let Some(oracle) = &mut self.oracle {
            let when = "a trace of the host's branches asks for a PMI in the guest's vector";
            oracle.check_trace(&self.map, &self.counters, when);
        }
    }

    /// Host mode goes to CPL > 0, for the oracle.
    pub fn user(&mut self) {
        if let Some(oracle) = &mut self.oracle {
            oracle.user(&self.map, &self.counters);
        }
    }

    /// The host's kernel loads its stack pointer from memory, for the oracle.
    pub fn switch(&mut self, from: u64, to: u64) {
        if let Some(oracle) = &mut self.oracle {
            oracle.switch(&self.map, &self.counters, from, to);
        }
    }

    /// Whether something of a guest is in the registers, as far as an oracle knows.
    pub fn has_left(&self) -> bool {
        self.oracle
            .as_ref()
            .is_some_and(|oracle| oracle.has_left(&self.map, &self.counters))
    }

    /// The register with this MSR number, if this PMU has it.
    pub fn register(&self, msr: u32) -> Option<M::Register> {
        self.map.register(msr)
    }

    /// RDMSR. [Fold](Pmu::fold) first.
    pub fn read(&mut self, register: M::Register, access: Access) -> Result<u64, Fault> {
        let value = self.map.read(register, &self.counters)?;
        self.stats.operations_mut(access.owner).rdmsr += 1;
        if let Some(oracle) = &mut self.oracle {
            let what = Operation::Rdmsr(register, value);
            let read = (self.map.cell(register), what, value);
            oracle.read(&self.map, &self.counters, read, access);
        }
        Ok(value)
    }

    /// WRMSR. [Fold](Pmu::fold) first, take the new [budget](Pmu::budget) afterwards.
    pub fn write(
        &mut self,
        register: M::Register,
        value: u64,
        access: Access,
    ) -> Result<(), Fault> {
        let cell = self.map.cell(register);
        let old = cell.map_or(0, |cell| self.map.value(cell, &self.counters));
        let written = self.map.write(register, value, &mut self.counters);
        let operations = self.stats.operations_mut(access.owner);
        if written.is_err() {
            operations.refused += 1;
            return written;
        }
        operations.wrmsr += 1;
        if let Some(oracle) = &mut self.oracle {
            let write = (cell, register, value);
            oracle.wrote(&self.map, &self.counters, write, old, access.owner);
        }
        Ok(())
    }

    /// Whether [`write`](Pmu::write) would refuse this, which counts as if it had.
    pub fn refuses(&mut self, register: M::Register, value: u64, owner: Owner) -> Option<Fault>
    where
        M: Clone,
    {
        let mut counters = self.counters.clone();
        let fault = self.map.clone().write(register, value, &mut counters).err();
        self.stats.operations_mut(owner).refused += u64::from(fault.is_some());
        fault
    }

    /// RDPMC with `index` in ECX. [Fold](Pmu::fold) first.
    pub fn rdpmc(&mut self, index: u32, access: Access) -> Result<u64, Fault> {
        let value = self.map.rdpmc(index, &self.counters)?;
        self.stats.operations_mut(access.owner).rdpmc += 1;
        if let Some(oracle) = &mut self.oracle {
            let what = Operation::Rdpmc(index, value);
            let read = (self.map.rdpmc_cell(index), what, value);
            oracle.read(&self.map, &self.counters, read, access);
        }
        Ok(value)
    }

    /// Moves the counters on by what happened since the last fold.
    pub fn fold(&mut self, events: &Deltas) -> Overflow {
        let mut overflow = Overflow::default();
        self.map.happened(events);
        let derived = self.map.derive(events, &mut self.counters);
        if let (true, Some(n), Some(oracle)) = (derived, self.map.derived(), &mut self.oracle) {
            oracle.counted(&self.map, &self.counters, n, false, false);
        }
        for n in 0..self.counters.len() {
            let Some(counting) = self.map.counting(n) else {
                self.asserted[n] = false;
                continue;
            };
            let mut happened = events.total(counting.event, counting.classes);
            if let Some(rule) = self.map.cycle_rule(n) {
                let cycles = events.total(CYCLES, counting.classes);
                happened = rule.counts(cycles, happened, &mut self.asserted[n]);
            }
            if happened == 0 {
                continue;
            }
            let wrapped = self.counters.advance(n, happened);
            if wrapped {
                self.map.wrapped(n);
                overflow.counters |= 1 << n;
                overflow.pmi |= counting.pmi;
            }
            if let Some(oracle) = &mut self.oracle {
                let pmi = counting.pmi;
                oracle.counted(&self.map, &self.counters, n, wrapped, pmi);
            }
        }
        if overflow.pmi {
            self.map.pmi();
        }
        overflow
    }

    /// How much may happen before the next fold: until a counter that asks for a PMI may wrap.
    ///
    /// A counter that asks for none needs no limit: whoever looks at it folds first. A counter
    /// with a [`CycleRule`] needs a fold after each cycle.
    pub fn budget(&self) -> Budget {
        let mut budget = Budget::default();
        for n in 0..self.counters.len() {
            let Some(counting) = self.map.counting(n) else {
                continue;
            };
            if self.map.cycle_rule(n).is_some() {
                // Only a fold of one cycle tells what happened in it.
                for class in counting.classes.iter() {
                    budget.limit(CYCLES, class, 1);
                }
            } else if counting.pmi {
                let left = self.counters.until_wrap(n);
                budget.limit(counting.event, counting.classes, left);
            }
        }
        budget
    }

    /// Whether a counter is running that wants a [fold](Pmu::fold) after each cycle.
    pub fn wants_cycles(&self) -> bool {
        (0..self.counters.len())
            .any(|n| self.map.cycle_rule(n).is_some() && self.map.counting(n).is_some())
    }

    /// Whether a counter is running that counts `source`.
    pub fn counts(&self, source: Source) -> bool {
        (0..self.counters.len())
            .filter_map(|n| self.map.counting(n))
            .any(|counting| counting.event.sources.contains(source))
            || self.map.derived_from().contains(source)
    }

    /// RESET or INIT. [Fold](Pmu::fold) first.
    pub fn reset(&mut self, reset: Reset) {
        self.map.reset(reset, &mut self.counters);
        if reset == Reset::Reset {
            self.scramble();
        }
        if let Some(oracle) = &mut self.oracle {
            oracle.reset(reset);
        }
    }
}
