// SPDX-License-Identifier: GPL-2.0
//! From the accumulators of translated code to the counters of the PMU.
//!
//! A block adds all of its instructions when it starts. If it is left before its end, what did
//! not retire is taken back here.

use pmu_model::stats::Instructions;
use pmu_model::Budget;
use pmu_model::Class;
use pmu_model::Deltas;
use pmu_model::Source;

use crate::block::Block;
use crate::block::Site;
use crate::board;
use crate::decode::Kind;
use crate::demand;
use crate::pmi;
use crate::quirks;
use crate::quirks::Quirk;
use crate::rep::Rep;
use crate::vcpu::Vcpu;

/// Translated code calls when an accumulator of instructions reaches this. A fold sets the
/// accumulator as far below it as the budget allows.
pub const ALARM: u64 = 1 << 63;

/// Far enough below [`ALARM`] never to reach it between two folds, but not close to a wrap.
const LONG: u64 = 1 << 62;

/// Only instructions raise the alarm, so that a block has only one accumulator to check. So the
/// budget of other sources has to be expressed in instructions: an instruction has at most one
/// branch; for memory accesses a number that few instructions exceed, and then the PMI is late.
const ACCESSES_PER_INSTRUCTION: u64 = 64;

impl Vcpu {
    /// Brings the PMU's counters up to date; true when a PMI was sent because one wrapped.
    pub fn fold(&mut self) -> bool {
        self.follow_user();
        let mut deltas = Deltas::default();
        self.retired = self.instructions();
        let events = self.board().events;
        for source in &Source::ALL {
            for class in Class::ALL {
                let now = events[*source as usize][class as usize];
                let last = self.folded[*source as usize][class as usize];
                deltas.add(*source, class, now.saturating_sub(last));
            }
        }
        self.folded = events;
        if self.pmu.fold(&deltas).pmi {
            self.pmi_delay.raise(self.retired_in_all());
        }
        let due = self.pmi_delay.take(self.retired_in_all());
        self.arm();
        due && pmi::send(self)
    }

    /// Tells the oracle whether host mode has executed at CPL > 0 since the last fold.
    pub fn follow_user(&mut self) {
        let (instructions, user) = (Source::Instructions as usize, Class::HostUser as usize);
        let now = self.board().events[instructions][user];
        let ran = now != self.folded[instructions][user];
        if let (true, Some(oracle)) = (ran, self.pmu.oracle_mut()) {
            oracle.has_run_user();
        }
    }

    /// Instructions of all classes, up to the last fold.
    fn retired_in_all(&self) -> u64 {
        self.retired.into_iter().fold(0, u64::wrapping_add)
    }

    /// The instructions of each class so far, with all of the block that was entered last.
    pub fn instructions(&mut self) -> [u64; Class::COUNT] {
        let instructions = Source::Instructions as usize;
        let now = self.board().events[instructions];
        let last = self.folded[instructions];
        // What was taken back since the last fold may have been folded before.
        std::array::from_fn(|class| {
            let since = now[class].wrapping_sub(last[class]);
            self.retired[class].wrapping_add(since)
        })
    }

    /// The instructions before this one, which is about to be executed.
    pub fn instructions_before(&mut self, site: &Site) -> Instructions {
        let mut retired = self.instructions();
        // The block has added all of its instructions.
        retired[site.block().class as usize] -=
            site.block().counts_from(site.index, Source::Instructions);
        Instructions {
            all: retired.into_iter().fold(0, u64::wrapping_add),
            retired,
        }
    }

    /// Sets the accumulators so that the alarm comes in time. To be called after every change of
    /// the PMU's registers. Everything is folded.
    pub fn arm(&mut self) {
        demand::follow_steps(&self.pmu, &mut self.steps);
        let branches = self.follow_branches();
        if demand::follow(&self.pmu) || branches {
            self.translate_anew();
        }
        let budget = self.pmu.budget();
        // They may be of any class. A fold that comes too early does no harm.
        let until_pmi = (self.pmi_delay.left(self.retired_in_all()))
            .map_or(LONG, |left| left.div_ceil(Class::COUNT as u64).max(1));
        for class in Class::ALL {
            let instructions = instructions_until_alarm(&budget, class).min(until_pmi);
            let start = ALARM - instructions.min(LONG);
            self.board().events[Source::Instructions as usize][class as usize] = start;
            self.folded[Source::Instructions as usize][class as usize] = start;
        }
    }

    /// The instruction at `index` of `block`, and those after it, were added but did not retire.
    pub fn unretire(&mut self, block: &Block, index: usize) {
        for source in Source::ALL {
            let n = block.counts_from(index, source);
            self.add(source, block.class, n.wrapping_neg());
        }
        self.lister.take_back(block, index..);
    }

    /// Undoes [`Vcpu::unretire`]: the block goes on after all.
    pub fn reretire(&mut self, block: &Block, index: usize) {
        for source in Source::ALL {
            self.add(source, block.class, block.counts_from(index, source));
        }
        self.lister.give_back(block, index..);
    }

    /// An instruction that is no branch was added once too often.
    pub fn unretire_one(&mut self, class: Class) {
        self.add(Source::Instructions, class, 1u64.wrapping_neg());
    }

    /// An instruction that is no branch retired beside the block.
    pub fn retire_one(&mut self, class: Class) {
        self.add(Source::Instructions, class, 1);
    }

    fn add(&mut self, source: Source, class: Class, n: u64) {
        let slot = &mut self.board().events[source as usize][class as usize];
        *slot = slot.wrapping_add(n);
    }

    /// The CPU goes on at `pc`: if the last instruction was a conditional branch which would go on
    /// there when it is not taken, it was not.
    pub fn branched_to(&mut self, pc: u64, class: Class) {
        let fall_through = std::mem::take(&mut self.board().fall_through);
        if fall_through == board::fall_through(pc) {
            self.add(Source::Taken, class, 1u64.wrapping_neg());
            self.add(Source::NotTaken, class, 1);
        }
    }

    /// An interrupt was taken before the instruction at `pc`.
    pub fn interrupted_at(&mut self, pc: u64) {
        // SAFETY: It came from translated code of a block that is in the arena.
        let block = unsafe { self.board().block().as_ref() };
        // What VMRUN injects comes before any block of the guest.
        let class = block.map(|block| block.class);
        let class = class.filter(|class| class.is_guest() == self.guest.is_some());
        self.broke_at(pc, false);
        if let Some(class) = class {
            self.add(Source::Interrupts, class, 1);
        }
    }

    /// A string instruction is entered.
    pub fn enter_rep(&mut self, site: &Site) {
        let rep = Rep::at(site.vaddr, &mut self.bus);
        let goes_on = self.rep.as_ref().is_some_and(|last| last.goes_on_as(&rep));
        if goes_on && quirks::active(Quirk::RepPortions) {
            self.unretire_one(site.block().class);
        }
        self.rep = Some(rep);
    }

    /// A fold is due before `block`: if a string instruction would go on there, it has not
    /// retired yet. It is added again when it goes on.
    pub fn suspend_rep(&mut self, block: &Block) {
        let Some(last) = self.rep.take() else {
            return;
        };
        if last.goes_on_as(&Rep::at(block.vaddr, &mut self.bus)) {
            self.unretire_one(block.class);
        }
    }

    /// The flow of instructions broke at `pc`: `begun` says whether that instruction was being
    /// executed (and did not retire), or the break came before it.
    pub fn broke_at(&mut self, pc: u64, begun: bool) {
        let board = self.board();
        let (block, closed) = (board.block(), board.is_closed());
        if !board.has_cpuid() {
            board.leave();
        }
        let resumes = self.rep.take().is_some_and(|rep| rep.is_at(pc));
        // SAFETY: It came from translated code of a block that is in the arena.
        let Some(block) = (unsafe { block.as_ref() }) else {
            return;
        };
        // The break may come before the first block of the other mode (VMRUN, injected events).
        if block.class.is_guest() != self.guest.is_some() {
            return;
        }
        self.branched_to(pc, block.class);
        let Some(index) = block.index_of(pc) else {
            return;
        };
        let kind = block.insns[index].kind;
        let retired = if begun {
            kind == Kind::SoftwareInterrupt
        } else {
            // A string instruction that is interrupted is counted when it is resumed.
            closed && !(resumes && kind == Kind::RepString)
        };
        if !retired {
            self.unretire(block, index);
        }
    }
}

/// How many instructions of `class` may pass before the next fold.
fn instructions_until_alarm(budget: &Budget, class: Class) -> u64 {
    let accesses =
        demand::MEMORY.map(|source| budget.get(source, class) / ACCESSES_PER_INSTRUCTION);
    let others = (Source::ALL.iter()).filter(|source| !demand::MEMORY.contains(source));
    others
        .map(|source| budget.get(*source, class))
        .min()
        .unwrap_or(Budget::UNLIMITED)
        .min(accesses.into_iter().min().unwrap_or(Budget::UNLIMITED))
        .max(1)
}
