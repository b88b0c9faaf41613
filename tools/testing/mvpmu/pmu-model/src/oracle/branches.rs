// SPDX-License-Identifier: GPL-2.0
//! The stack of last branches: whose each record is.
//!
//! No unprivileged instruction reads it. So it is the one thing of the PMU that a guest may leave in
//! hardware when its thread goes to user mode or leaves the CPU (I2 is not checked there), until perf or
//! a guest that has it within reach comes: [`Oracle::has_left`] does not look at it. What must not be is
//! that somebody else reads it.
//!
//! # Whose a register is
//!
//! Each has a [`Mark`](super::Mark) of its own, from and to of an entry too. The marks move with the
//! entries when a branch is recorded. 0 is nobody's, as everywhere.
//!
//! * What somebody writes is the writer's. As for counters it is the guest's that is loaded if KVM or
//!   mvpmu writes while the PMU is lent; what perf writes is never a guest's.
//! * VM entry with LBR virtualization makes all of them the guest's, VM exit only brings the host's
//!   DebugExtnCtl back. What that has in the entries and in the filter stays the guest's.
//! * A branch is recorded for who owns DebugExtnCtl, wherever it is: branches of a guest without LBR
//!   virtualization are the host's if the host has LBRSE set, as counts are its event's. (Whether the event
//!   excludes guests is not known; `host_branches_test` looks.)
//! * A branch that is recorded for the host while the filter is a guest's is the guest's all the same:
//!   what is missing tells the filter, and it is no record that the host has asked for.
//!
//! So a host that records beside entries of a guest, as between VM exit and perf's clearing of the stack,
//! does no wrong as long as it does not read.
//!
//! # What is checked, and where
//!
//! | | where | what must not be |
//! |---|---|---|
//! | I1 | a branch is recorded in host mode | for a guest: DebugExtnCtl is one's |
//! | I2 | RDMSR at CPL 0 | an entry or the filter of a guest, if the code is not KVM's or mvpmu's |
//! | I3 | VM entry | what the guest can read, and what is not loaded by it: anything of the host's or of another vCPU, DebugExtnCtl too |
//! | I3 | RDMSR of the guest | the same |
//! | I3 | VM entry with LBR virtualization | the entries that another vCPU was left with |
//! | I4 | VM entry with LBR virtualization | other entries or another filter than the vCPU was left with |
//!
//! What is in a VMCB can be anybody's doing. The last two ask therefore what the last VM exit of the vCPU
//! with LBR virtualization has saved, and for nothing once its thread has been in user mode
//! (KVM_SET_MSRS), another VMCB of the vCPU was entered (KVM copies for nested guests), or the guest has
//! left with a write of a register of the stack; what a vCPU of another process has recorded must not come
//! then either. DebugCtl and DebugExtnCtl may change: KVM clears bits when it injects #DB.
//!
//! # What it does not see
//!
//! * A VMCB that lies where one of a guest was that is gone passes for that one's, for what it has left in
//!   hardware.
//! * What a guest without LBR virtualization can write, if it cannot read it: what becomes of that shows
//!   when the guest has branches recorded.
//! * Reads of the VMCB, which is memory; whether a clearing that is not needed is made.

use crate::amd::LbrRegister;
use crate::amd::SavedLbr;
use crate::amd::LBR_ENTRIES;
use crate::Counters;
use crate::Owner;

use super::vcpus::Origin;
use super::Access;
use super::Cell;
use super::Entry;
use super::Invariant;
use super::Mark;
use super::Oracle;
use super::Watched;
use super::OTHER_VCPU;
use super::UNEXPLAINED;

/// Whose the registers of the stack are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Branches {
    select: Mark,
    control: Mark,
    /// From and to of each entry, the newest first.
    entries: [[Mark; 2]; LBR_ENTRIES],
}

impl Branches {
    /// All of them are this one's.
    pub fn of(mark: Mark) -> Branches {
        Branches {
            select: mark,
            control: mark,
            entries: [[mark; 2]; LBR_ENTRIES],
        }
    }

    pub fn mark(&self, register: LbrRegister) -> Mark {
        match register {
            LbrRegister::Select => self.select,
            LbrRegister::Control => self.control,
            LbrRegister::From(n) => self.entries[n][0],
            LbrRegister::To(n) => self.entries[n][1],
        }
    }

    pub fn set_mark(&mut self, register: LbrRegister, mark: Mark) {
        match register {
            LbrRegister::Select => self.select = mark,
            LbrRegister::Control => self.control = mark,
            LbrRegister::From(n) => self.entries[n][0] = mark,
            LbrRegister::To(n) => self.entries[n][1] = mark,
        }
    }

    fn record(&mut self, mark: Mark) {
        self.entries.rotate_right(1);
        self.entries[0] = [mark; 2];
    }
}

/// The stack of a guest that VM entry has loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    guest: SavedLbr,
    /// Whose the registers were before.
    before: Branches,
}

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// Whether this guest may read what has this mark.
    fn may_read(&self, guest: u64, mark: Mark) -> bool {
        match mark {
            Mark::Unclaimed | Mark::Event => false,
            Mark::Lent => true,
            Mark::Guest(of) => self.vcpus().are_same(of, guest),
        }
    }

    /// WRMSR has changed the register.
    pub(super) fn wrote_branches(&mut self, register: LbrRegister, owner: Owner) {
        let mark = match owner {
            Owner::Guest(guest) => Mark::Guest(guest),
            Owner::Host if self.is_lent() && !self.is_foreign(owner) => Mark::Lent,
            Owner::Host => Mark::Event,
        };
        self.branches.set_mark(register, mark);
    }

    /// I2, I3: a record that is read is the reader's, or the reader is KVM.
    pub(super) fn check_branch_read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        register: LbrRegister,
        value: u64,
        access: Access,
    ) {
        let mark = self.branches.mark(register);
        // That branches are recorded is no secret of a guest's.
        let secret = register != LbrRegister::Control;
        let (invariant, when) = match access.owner {
            Owner::Host if secret && mark.is_guest() && self.is_foreign(access.owner) => {
                let when = "code of the host that is not KVM's reads a last branch of a guest";
                (Invariant::LeakOut, when)
            }
            Owner::Guest(guest) if !self.may_read(guest, mark) => {
                let when = "the guest reads a last branch that is not its own";
                (Invariant::LeakIn, when)
            }
            _ => return,
        };
        self.report(map, invariant, when, Cell::Lbr(register), mark, value);
    }

    /// A branch was recorded, which is on the stack now. I1: none of the host for a guest.
    pub(crate) fn recorded<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        let value = |register| map.value(Cell::Lbr(register), counters);
        let Branches {
            select, control, ..
        } = self.branches;
        let filtered = select.is_guest() && value(LbrRegister::Select) != 0;
        let mark = match control.is_guest() {
            true => control,
            // What is missing tells the filter.
            false if filtered => select,
            false => Mark::Event,
        };
        self.branches.record(mark);
        if self.inside.is_none() && control.is_guest() {
            let when = "a branch of the host is recorded for a guest";
            let cell = LbrRegister::Control;
            let (cell, value) = (Cell::Lbr(cell), value(cell));
            self.report(map, Invariant::Stray, when, cell, control, value);
        }
    }

    /// VM entry; what it loads is not loaded yet. I3: what the guest can read is its own.
    pub(super) fn enter_branches<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        continuous: bool,
    ) {
        self.vcpus().enters_lbr(&entry, continuous);
        for register in LbrRegister::all() {
            if self.branches.mark(register) == Mark::Lent {
                self.branches.set_mark(register, Mark::Guest(entry.guest));
            }
        }
        let foreign = LbrRegister::all()
            .enumerate()
            .filter(|(n, _)| entry.branches >> n & 1 != 0)
            .map(|(_, register)| {
                let (cell, mark) = (Cell::Lbr(register), self.branches.mark(register));
                (cell, mark, map.value(cell, counters))
            })
            .find(|(_, mark, value)| *value != 0 && !self.may_read(entry.guest, *mark));
        if let Some((cell, mark, value)) = foreign {
            let when = "the guest is entered and can read it";
            self.report(map, Invariant::LeakIn, when, cell, mark, value);
        }
    }

    /// VM entry has loaded the guest's stack. I3, I4: it is what the vCPU was left with.
    pub(crate) fn loaded_branches<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        guest: &SavedLbr,
    ) {
        let Some(entry) = self.inside else {
            return;
        };
        let mark = Mark::Guest(entry.guest);
        let before = std::mem::replace(&mut self.branches, Branches::of(mark));
        self.loaded = Some(Loaded {
            guest: *guest,
            before,
        });
        let (origin, register) = self.vcpus().lbr_origin(&entry, guest);
        let (invariant, when, mark) = match origin {
            Origin::Kept | Origin::Explained | Origin::Unknown => return,
            Origin::Other(other) => (Invariant::LeakIn, OTHER_VCPU, Mark::Guest(other)),
            Origin::Unexplained => (Invariant::Exact, UNEXPLAINED, mark),
        };
        let cell = Cell::Lbr(register);
        let value = map.value(cell, counters);
        self.report(map, invariant, when, cell, mark, value);
    }

    /// VM exit has saved the guest's stack and brought the host's control back, but leaves all else.
    pub(crate) fn left_branches(&mut self, guest: &SavedLbr) {
        let Some(loaded) = self.loaded.take() else {
            return;
        };
        if let Some(entry) = self.inside {
            self.vcpus().left_lbr(&entry, &loaded.guest, guest);
        }
        self.branches.control = loaded.before.control;
    }

    /// The guest was not entered after all: everything is as it was.
    pub(crate) fn unloaded_branches(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            self.branches = loaded.before;
        }
    }
}
