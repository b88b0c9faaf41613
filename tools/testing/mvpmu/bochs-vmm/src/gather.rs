// SPDX-License-Identifier: GPL-2.0

//! What instructions have done since the last fold, and how much of it may gather.

use std::cell::Cell;

use pmu_model::intel::Intel;
use pmu_model::Class;
use pmu_model::Deltas;
use pmu_model::Pmu;
use pmu_model::RegisterMap;
use pmu_model::Source;

use crate::flow;
use crate::layout;
use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;
use crate::per_cpu::MAX_CPUS;
use crate::watch;

type Numbers = [[Cell<u64>; Class::COUNT]; Source::COUNT];

/// A number for each source in each class; of each CPU.
struct Table {
    now: Numbers,
    others: [Numbers; MAX_CPUS],
}

// SAFETY: As for `SingleThread`: one thread.
unsafe impl Sync for Table {}

impl Table {
    const fn new() -> Self {
        const fn none() -> Numbers {
            [const { [const { Cell::new(0) }; Class::COUNT] }; Source::COUNT]
        }
        Table {
            now: none(),
            others: [const { none() }; MAX_CPUS],
        }
    }

    fn at(&self, source: Source, class: Class) -> &Cell<u64> {
        &self.now[source as usize][class as usize]
    }
}

impl PerCpu for Table {
    fn exchange(&self, from: usize, to: usize) {
        let copy = |to: &Numbers, from: &Numbers| {
            for (to, from) in to.iter().flatten().zip(from.iter().flatten()) {
                to.set(from.get());
            }
        };
        copy(&self.others[from], &self.now);
        copy(&self.now, &self.others[to]);
    }
}

/// What gathered since the last fold.
static GATHERED: Table = Table::new();
/// Instructions that retired in each class, whether a counter counted them or not.
static RETIRED: [CpuCell<u64>; Class::COUNT] = [const { CpuCell::new(0) }; Class::COUNT];
/// How much may gather.
static BUDGET: Table = Table::new();

/// What an instruction does, one bit each.
pub mod did {
    /// It branches.
    pub const BRANCH: u32 = 1 << 0;
    /// It reads memory.
    pub const LOAD: u32 = 1 << 1;
    /// It writes memory.
    pub const STORE: u32 = 1 << 2;
    /// It flushes a cache line.
    pub const FLUSH: u32 = 1 << 3;
    /// An interrupt comes after it.
    pub const INTERRUPT: u32 = 1 << 4;
}

/// What an instruction is besides, in the same word.
mod is {
    /// At CPL > 0.
    pub const USER: u32 = 1 << 8;
    /// A guest's.
    pub const GUEST: u32 = 1 << 9;
    /// It may retire.
    pub const ARMED: u32 = 1 << 10;
}

/// The class of such an instruction.
fn class_of(what: u32) -> Class {
    Class::new(what & is::GUEST != 0, what & is::USER != 0)
}

/// The class in which it counts: Intel's counters do not tell guest from host.
fn counted_class_of(what: u32) -> Class {
    class_of(what & !is::GUEST)
}

/// What a branch is besides.
#[derive(Clone, Copy)]
pub struct Branch {
    source: Source,
    indirect: bool,
}

impl Branch {
    /// A branch whose target is known, or on the stack.
    pub const fn near(source: Source) -> Branch {
        Branch {
            source,
            indirect: false,
        }
    }

    /// A branch to what a register or memory holds.
    pub const fn indirect(source: Source) -> Branch {
        Branch {
            source,
            indirect: true,
        }
    }
}

/// The current instruction branches.
#[inline(always)]
pub fn branches(branch: Branch) {
    note(did::BRANCH);
    CURRENT.branch.set(branch);
}

/// What some counter counts besides instructions.
static WANTED: CpuCell<u32> = CpuCell::new(0);

/// The instruction that executes.
struct Current {
    /// What it is and what it did.
    what: CpuCell<u32>,
    rip: CpuCell<u64>,
    branch: CpuCell<Branch>,
}

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 10] = [
    &GATHERED,
    &RETIRED[0],
    &RETIRED[1],
    &RETIRED[2],
    &RETIRED[3],
    &BUDGET,
    &WANTED,
    &CURRENT.what,
    &CURRENT.rip,
    &CURRENT.branch,
];

static CURRENT: Current = Current {
    what: CpuCell::new(0),
    rip: CpuCell::new(0),
    branch: CpuCell::new(Branch::near(Source::Jumps)),
};

/// Adopts what `pmu` counts, and how long it can do without a fold.
pub fn follow(pmu: Option<&Pmu<Intel>>) {
    watch::set(watch::by::COUNTER, false);
    let Some(pmu) = pmu else { return };
    let mut sources = pmu.map().derived_from();
    for n in 0..pmu.counters().len() {
        if let Some(counting) = pmu.map().counting(n) {
            watch::set(watch::by::COUNTER, true);
            sources = sources.union(counting.event.sources);
        }
    }
    let wanted = Source::ALL
        .into_iter()
        .filter(|source| sources.contains(*source))
        .fold(0, |wanted, source| wanted | bits_of(source));
    WANTED.set(wanted);
    let budget = pmu.budget();
    for source in Source::ALL {
        for class in Class::ALL {
            BUDGET.at(source, class).set(budget.get(source, class));
        }
    }
}

/// What an instruction may do that makes an event of this source.
fn bits_of(source: Source) -> u32 {
    match source {
        Source::Instructions => 0,
        Source::Interrupts => did::INTERRUPT,
        Source::Loads | Source::Stores | Source::LoadStores => did::LOAD | did::STORE,
        Source::Flushes => did::FLUSH,
        Source::Branches
        | Source::Taken
        | Source::NotTaken
        | Source::Jumps
        | Source::Calls
        | Source::Returns
        | Source::FarBranches
        | Source::Indirect => did::BRANCH,
    }
}

/// The instructions that have retired in each class.
pub fn retired() -> [u64; Class::COUNT] {
    std::array::from_fn(|class| RETIRED[class].get())
}

/// Takes what gathered.
pub fn take() -> Deltas {
    let mut deltas = Deltas::default();
    for source in Source::ALL {
        for class in Class::ALL {
            deltas.add(source, class, GATHERED.at(source, class).take());
        }
    }
    deltas
}

/// One event of the current instruction; true when a fold is due.
#[inline(always)]
fn add(source: Source) -> bool {
    let class = counted_class_of(CURRENT.what.get());
    let gathered = GATHERED.at(source, class);
    gathered.set(gathered.get() + 1);
    gathered.get() >= BUDGET.at(source, class).get()
}

/// Counts the current instruction, which retires and is this; true when a fold is due.
#[inline(always)]
fn gather(what: u32) -> bool {
    CURRENT.what.set(what & !is::ARMED);
    let class = class_of(what);
    let retired = &RETIRED[class as usize];
    retired.set(retired.get() + 1);
    let watched = watch::get();
    if watched & watch::by::FLOW != 0 {
        flow::retired(CURRENT.rip.get(), class);
    }
    if watched & watch::by::COUNTER == 0 {
        return false;
    }
    let due = add(Source::Instructions);
    let did = what & WANTED.get();
    if did == 0 {
        return due;
    }
    due | gather_more(did)
}

/// Counts what the current instruction did besides.
fn gather_more(did: u32) -> bool {
    let mut due = false;
    if did & did::BRANCH != 0 {
        due |= add(Source::Branches);
        let kind = CURRENT.branch.get();
        due |= add(kind.source);
        if kind.indirect {
            due |= add(Source::Indirect);
        }
    }
    match (did & did::LOAD != 0, did & did::STORE != 0) {
        (false, false) => {}
        (true, false) => due |= add(Source::Loads),
        (false, true) => due |= add(Source::Stores),
        (true, true) => due |= add(Source::LoadStores),
    }
    if did & did::FLUSH != 0 {
        due |= add(Source::Flushes);
    }
    due
}

/// Whether the current instruction is executed at CPL > 0.
pub fn is_user() -> bool {
    CURRENT.what.get() & is::USER != 0
}

/// The address of the last instruction that has begun.
pub fn last_rip() -> u64 {
    CURRENT.rip.get()
}

/// What comes next does not follow from the last instruction.
pub fn forget_rip() {
    CURRENT.rip.set(0);
}

/// An instruction begins.
#[inline(always)]
pub fn begin() {
    let user = layout::CPL.get::<u8>() != 0;
    let guest = layout::IN_VMX_GUEST.get::<u8>() != 0;
    let bit = |is: bool, bit: u32| u32::from(is) * bit;
    let what = is::ARMED | bit(user, is::USER) | bit(guest, is::GUEST);
    CURRENT.what.set(what);
    CURRENT.rip.set(layout::PREV_RIP.get());
}

/// The current instruction did this.
#[inline(always)]
pub fn note(did: u32) {
    CURRENT.what.set(CURRENT.what.get() | did);
}

/// The current instruction retires: it has done its work; true when a fold is due. A REP
/// instruction that was interrupted has not: it begins again where it stands.
#[inline(always)]
pub fn retire() -> bool {
    let what = CURRENT.what.get();
    if what & is::ARMED == 0 {
        return false;
    }
    if layout::RIP.get::<u64>() == CURRENT.rip.get() && what & did::BRANCH == 0 {
        drop_current();
        return false;
    }
    gather(what)
}

/// The current instruction will retire; counts it now, before it changes what is
/// counted. The caller folds.
pub fn retire_early() {
    let what = CURRENT.what.get();
    if what & is::ARMED != 0 {
        gather(what);
    }
}

/// The CPU takes an interrupt before the next instruction; true when a fold is due.
pub fn interrupted() -> bool {
    let counts = watch::get() & watch::by::COUNTER != 0;
    counts && WANTED.get() & did::INTERRUPT != 0 && add(Source::Interrupts)
}

/// The current instruction will not retire.
pub fn drop_current() {
    CURRENT.what.set(CURRENT.what.get() & !is::ARMED);
}
