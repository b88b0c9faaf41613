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
/// Some counter runs.
static RUNNING: CpuCell<bool> = CpuCell::new(false);

/// What an instruction does, one bit each.
pub mod did {
    /// It branches.
    pub const BRANCH: u8 = 1 << 0;
    /// It reads memory.
    pub const LOAD: u8 = 1 << 1;
    /// It writes memory.
    pub const STORE: u8 = 1 << 2;
    /// It flushes a cache line.
    pub const FLUSH: u8 = 1 << 3;
    /// An interrupt comes after it.
    pub const INTERRUPT: u8 = 1 << 4;
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
static WANTED: CpuCell<u8> = CpuCell::new(0);

/// The instruction that executes.
struct Current {
    /// It may retire.
    armed: CpuCell<bool>,
    class: CpuCell<Class>,
    rip: CpuCell<u64>,
    did: CpuCell<u8>,
    branch: CpuCell<Branch>,
}

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 13] = [
    &GATHERED,
    &RETIRED[0],
    &RETIRED[1],
    &RETIRED[2],
    &RETIRED[3],
    &BUDGET,
    &RUNNING,
    &WANTED,
    &CURRENT.armed,
    &CURRENT.class,
    &CURRENT.rip,
    &CURRENT.did,
    &CURRENT.branch,
];

static CURRENT: Current = Current {
    armed: CpuCell::new(false),
    class: CpuCell::new(Class::HostKernel),
    rip: CpuCell::new(0),
    did: CpuCell::new(0),
    branch: CpuCell::new(Branch::near(Source::Jumps)),
};

/// Adopts what `pmu` counts, and how long it can do without a fold.
pub fn follow(pmu: Option<&Pmu<Intel>>) {
    RUNNING.set(false);
    let Some(pmu) = pmu else { return };
    let mut sources = pmu.map().derived_from();
    for n in 0..pmu.counters().len() {
        if let Some(counting) = pmu.map().counting(n) {
            RUNNING.set(true);
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
fn bits_of(source: Source) -> u8 {
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
    let class = CURRENT.class.get();
    let gathered = GATHERED.at(source, class);
    gathered.set(gathered.get() + 1);
    gathered.get() >= BUDGET.at(source, class).get()
}

/// Counts the current instruction, which retires; true when a fold is due.
#[inline(always)]
fn gather() -> bool {
    CURRENT.armed.set(false);
    let class = CURRENT.class.get();
    flow::retired(CURRENT.rip.get(), class);
    let retired = &RETIRED[class as usize];
    retired.set(retired.get() + 1);
    if !RUNNING.get() {
        return false;
    }
    // Intel's counters do not tell guest from host.
    CURRENT.class.set(Class::new(false, class.is_user()));
    let due = add(Source::Instructions);
    let did = CURRENT.did.get() & WANTED.get();
    if did == 0 {
        return due;
    }
    due | gather_more(did)
}

/// Counts what the current instruction did besides.
fn gather_more(did: u8) -> bool {
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
    CURRENT.class.get().is_user()
}

/// An instruction begins.
#[inline(always)]
pub fn begin() {
    let user = layout::CPL.get::<u8>() != 0;
    let guest = layout::IN_VMX_GUEST.get::<u8>() != 0;
    CURRENT.armed.set(true);
    CURRENT.class.set(Class::new(guest, user));
    CURRENT.rip.set(layout::PREV_RIP.get());
    CURRENT.did.set(0);
}

/// The current instruction did this.
#[inline(always)]
pub fn note(what: u8) {
    CURRENT.did.set(CURRENT.did.get() | what);
}

/// The current instruction retires: it has done its work; true when a fold is due. A REP
/// instruction that was interrupted has not: it begins again where it stands.
#[inline(always)]
pub fn retire() -> bool {
    if !CURRENT.armed.get() {
        return false;
    }
    if layout::RIP.get::<u64>() == CURRENT.rip.get() && CURRENT.did.get() & did::BRANCH == 0 {
        CURRENT.armed.set(false);
        return false;
    }
    gather()
}

/// The current instruction will retire; counts it now, before it changes what is
/// counted. The caller folds.
pub fn retire_early() {
    if CURRENT.armed.get() {
        gather();
    }
}

/// The CPU takes an interrupt before the next instruction; true when a fold is due.
pub fn interrupted() -> bool {
    RUNNING.get() && WANTED.get() & did::INTERRUPT != 0 && add(Source::Interrupts)
}

/// The current instruction will not retire.
pub fn drop_current() {
    CURRENT.armed.set(false);
}
