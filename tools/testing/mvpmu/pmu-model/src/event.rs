// SPDX-License-Identifier: GPL-2.0
//! What there is to count, and amounts of it.

use crate::Class;
use crate::ClassSet;

/// Something a machine can count while it executes.
///
/// A machine that lacks one simply never adds to it. A vendor's event that is not measured but
/// derived from one of these (cycles, for instance, are instructions) is an [`Event`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Instructions retired.
    Instructions = 0,
    /// Branch instructions retired: jumps, calls, returns, interrupts and system calls.
    Branches = 1,
    /// Memory reads of instructions that do not write the same place.
    Loads = 2,
    /// Memory writes of instructions that do not read the same place.
    Stores = 3,
    /// Memory accesses that read and write the same place.
    LoadStores = 4,
    /// Interrupts that the CPU takes from its local APIC, maskable or not. They belong to the class
    /// of the instruction before. What a hypervisor injects is none, nor is one that makes a guest
    /// exit, in the guest.
    Interrupts = 5,
    /// Cache lines flushed by instruction.
    Flushes = 6,
    /// Conditional branches that were taken. This, and what follows, are branches, too.
    Taken = 7,
    /// Conditional branches that were not taken.
    NotTaken = 8,
    /// Near jumps.
    Jumps = 9,
    /// Near calls.
    Calls = 10,
    /// Near returns.
    Returns = 11,
    /// Far branches: far jumps, calls and returns, interrupts by instruction, system calls.
    FarBranches = 12,
    /// Near jumps and calls whose target is not in the instruction.
    Indirect = 13,
}

impl Source {
    /// How many there are.
    pub const COUNT: usize = 14;
    /// Each of them, in the order of their numbers.
    pub const ALL: [Source; Source::COUNT] = [
        Source::Instructions,
        Source::Branches,
        Source::Loads,
        Source::Stores,
        Source::LoadStores,
        Source::Interrupts,
        Source::Flushes,
        Source::Taken,
        Source::NotTaken,
        Source::Jumps,
        Source::Calls,
        Source::Returns,
        Source::FarBranches,
        Source::Indirect,
    ];
}

/// A set of sources, which are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSet(u16);

impl SourceSet {
    /// No source.
    pub const NONE: SourceSet = SourceSet(0);

    /// The set of one source.
    pub const fn of(source: Source) -> SourceSet {
        SourceSet(1 << source as u16)
    }

    /// This set and one source more.
    #[must_use]
    pub const fn with(self, source: Source) -> SourceSet {
        SourceSet(self.0 | 1 << source as u16)
    }

    /// Sources that are in either.
    #[must_use]
    pub const fn union(self, other: SourceSet) -> SourceSet {
        SourceSet(self.0 | other.0)
    }

    /// Whether `source` is in it.
    pub const fn contains(self, source: Source) -> bool {
        self.0 >> source as u8 & 1 != 0
    }

    /// The number of sources in it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The branches among [`Source`]s that a branch predictor gets wrong which takes each conditional
    /// branch for taken, knows no target of an indirect jump or call, and every one of a return.
    ///
    /// That is modelled, not real: what is mispredicted then is what the program executes, the same
    /// in each run, on each machine and in a guest, whoever runs in between.
    pub const MISPREDICTED: SourceSet = SourceSet::of(Source::NotTaken).with(Source::Indirect);

    /// Whether there is no source in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a counter is programmed to count: the sum of some sources, times a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The sources whose events are added up.
    pub sources: SourceSet,
    /// How far one of them moves the counter (slots, for instance, are several per instruction).
    pub weight: u32,
}

impl Event {
    /// An event that is just one source.
    pub const fn of(source: Source) -> Event {
        Event {
            sources: SourceSet::of(source),
            weight: 1,
        }
    }
}

/// A number for each source in each class.
type Table = [[u64; Class::COUNT]; Source::COUNT];

/// Events gathered since the last fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deltas(Table);

impl Deltas {
    /// `events` more of `source` happened in `class`.
    pub fn add(&mut self, source: Source, class: Class, events: u64) {
        self.0[source as usize][class as usize] += events;
    }

    /// How far a counter of `event` in `classes` moves.
    pub fn total(&self, event: Event, classes: ClassSet) -> u64 {
        let mut sum = 0;
        for source in Source::ALL {
            for class in Class::ALL {
                if event.sources.contains(source) && classes.contains(class) {
                    sum += self.0[source as usize][class as usize];
                }
            }
        }
        sum * u64::from(event.weight)
    }
}

/// How many events of each source in each class may gather before the next fold must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(Table);

impl Budget {
    /// Never: no counter can wrap.
    pub const UNLIMITED: u64 = u64::MAX;

    /// The number for one source in one class, [`Budget::UNLIMITED`] or at least 1. As long as
    /// every accumulator is *below* its number no PMI is due; with one accumulator involved, the
    /// PMI is due exactly when it reaches it.
    pub fn get(&self, source: Source, class: Class) -> u64 {
        self.0[source as usize][class as usize]
    }

    /// A counter of `event` in `classes` is `left` events before its wrap.
    pub(crate) fn limit(&mut self, event: Event, classes: ClassSet, left: u64) {
        let parts = u64::from(event.sources.len() * classes.len());
        let weight = u64::from(event.weight);
        if parts == 0 || weight == 0 {
            return;
        }
        // If each part stays below its equal share, the sum stays below the whole.
        let share = (left.div_ceil(weight) / parts).max(1);
        for source in Source::ALL {
            for class in Class::ALL {
                if event.sources.contains(source) && classes.contains(class) {
                    let slot = &mut self.0[source as usize][class as usize];
                    *slot = share.min(*slot);
                }
            }
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Budget([[Budget::UNLIMITED; Class::COUNT]; Source::COUNT])
    }
}
