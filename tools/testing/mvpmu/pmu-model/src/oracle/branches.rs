// SPDX-License-Identifier: GPL-2.0
//! Last branch records: whose each is.
//!
//! No unprivileged instruction reads one. So they are the one thing of the PMU that a guest may leave in
//! hardware when its thread goes to user mode or leaves the CPU (I2 is not checked there), until perf or
//! a guest that has them within reach comes: [`Oracle::has_left`] does not look at them. What must not be is
//! that somebody else reads one.
//!
//! With LBR virtualization (AMD) VM entry loads all of them and VM exit saves all. On Intel it loads and saves
//! IA32_LBR_CTL, if asked to: the records are *kept*, in hardware only, until code of the host moves them.
//!
//! # Whose a register is
//!
//! Each has a [`Mark`](super::Mark) of its own: from, to and INFO of an entry, the filter, the control. The
//! marks of an entry move with it when a branch is recorded, or a return takes one off (call-stack mode). 0
//! is nobody's, as everywhere, so after a write of IA32_LBR_DEPTH all entries are.
//!
//! * What somebody writes is the writer's. As for counters it is the guest's that is loaded if KVM or
//!   mvpmu writes while the PMU is lent; what perf writes is never a guest's, but for its
//!   [functions](super::is_branch_function) that save and load those of guests. What is loaded becomes that of the
//!   next guest that is entered and has the records within reach.
//! * VM entry with LBR virtualization makes all of them the guest's, VM exit only brings the host's
//!   DebugExtnCtl back. What that has in the entries and in the filter stays the guest's. VM entry that loads
//!   IA32_LBR_CTL makes only that the guest's.
//! * A branch is recorded for who owns the control, wherever it is: branches of a guest
//!   are the host's if the host has it set and VM entry loads no other, as counts are its event's. (Whether
//!   the event excludes guests is not known; `host_branches_test` looks.)
//! * A branch that is recorded for the host while the filter is a guest's is the guest's all the same:
//!   what is missing tells the filter, and it is no record that the host has asked for.
//!
//! So a host that records beside entries of a guest, as between VM exit and perf's clearing of the stack,
//! does no wrong as long as it does not read; but where they are kept, it does.
//!
//! # What is checked, and where
//!
//! | | where | what must not be |
//! |---|---|---|
//! | I1 | a branch is recorded in host mode | for a guest: the control is one's |
//! | I2 | RDMSR at CPL 0 | an entry or the filter of a guest, if the code is not KVM's or mvpmu's or such a function of perf |
//! | I3 | VM entry | what the guest can read, and what is not loaded by it: anything of the host's or of another vCPU, the control too; the same of all entries, if it has branches recorded into them |
//! | I3 | RDMSR of the guest | the same |
//! | I3 | VM entry with records | the entries that another vCPU was left with |
//! | I4 | VM entry with records | other entries or another filter than the vCPU was left with |
//! | I4 | the same, where they are kept | those of the vCPU are in another CPU |
//! | I4 | a branch is recorded for the host, where they are kept | a guest's are there, whose oldest is lost |
//! | I4 | WRMSR at CPL 0, where they are kept | a change of an entry of a guest, if the code is not KVM's or mvpmu's or such a function of perf |
//!
//! An entry is one with records when it has LBR virtualization; where they are kept, when the guest can read
//! any of them, or has branches recorded.
//!
//! What is in a VMCB, or comes back from memory, can be anybody's doing. So a vCPU is to come back with what was
//! there at its last VM exit with records; with anything once its thread has been in user mode (KVM_SET_MSRS),
//! another VMCB (VMCS) of the vCPU was entered (KVM copies for nested guests), or the guest has left with a write
//! of a register of the records. What a vCPU of another process has recorded must not come then either. And
//! where they are kept, user mode is no answer if a write of IA32_LBR_DEPTH has cleared entries that nobody had
//! read since the guest recorded or wrote them (unless the guest had left with such a write): user space has
//! not seen them. DebugCtl and the control may change: KVM clears bits when it injects #DB.
//!
//! # What it does not see
//!
//! * A VMCB that lies where one of a guest was that is gone passes for that one's, for what it has left in
//!   hardware.
//! * What a guest without records can write, if it cannot read it: what becomes of that shows
//!   when the guest has branches recorded.
//! * Which those functions of perf are, if the kernel has no symbols, and where it has been compiled so that a
//!   WRMSR is in a function of its own (clang with KASAN): a false alarm.
//! * Reads of the VMCB, which is memory, and of what perf has saved; whether a clearing that is not needed is
//!   made.

use std::ops::Range;

use crate::Counters;
use crate::Owner;

use super::branch_marks::Branches;
use super::records::BranchRegister;
use super::records::Recorded;
use super::records::Records;
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

/// The records are in another CPU.
const ELSEWHERE: &str = "the guest is entered without its last branches, which another CPU has";
/// There are some of a guest.
const DISPLACED: &str = "a branch is recorded for the host where last branches of a guest are";
/// By code that must not.
const SPOILT: &str = "code of the host that is not KVM's changes a last branch of a guest";

/// The records of a guest that VM entry has loaded, or that were there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    records: Records,
    /// Whose the registers were before.
    before: Branches,
}

/// How many entries there are.
fn depth<M: Watched>(map: &M, counters: &Counters) -> usize {
    map.value(Cell::Lbr(BranchRegister::Depth), counters) as usize
}

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// The same, where the host's kernel has these functions that save and load records of guests.
    pub fn with_branch_functions(self, functions: &[Range<u64>]) -> Self {
        Oracle {
            branch_functions: functions.into(),
            ..self
        }
    }

    /// Whether the instruction is the host's, and one of a function that saves or loads records of guests.
    fn moves_branches(&self) -> bool {
        let mut functions = self.branch_functions.iter();
        self.inside.is_none() && functions.any(|code| code.contains(&self.place.rip))
    }

    /// Whether the instruction is one of the host's, and has nothing to do with records of guests.
    fn is_foreign_to_branches(&self, owner: Owner) -> bool {
        self.is_foreign(owner) && !self.moves_branches()
    }

    /// Whether this guest may read what has this mark.
    pub(super) fn may_read(&self, guest: u64, mark: Mark) -> bool {
        match mark {
            Mark::Unclaimed | Mark::Event => false,
            Mark::Lent => true,
            Mark::Guest(of) => self.vcpus().are_same(of, guest),
        }
    }

    /// WRMSR has changed the register. I4: what is kept in it is no guest's, or the writer is KVM.
    pub(super) fn wrote_branches<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        register: BranchRegister,
        owner: Owner,
    ) {
        let moves = self.moves_branches();
        let foreign = self.is_foreign_to_branches(owner);
        let value = map.value(Cell::Lbr(register), counters);
        let was = self.branches.mark(register);
        let is_entry = register.place().is_some();
        if is_entry && foreign && map.keeps_branches() && was.is_guest() {
            self.report(
                map,
                Invariant::Exact,
                SPOILT,
                Cell::Lbr(register),
                was,
                value,
            );
        }
        let mark = match owner {
            _ if value == 0 => Mark::Unclaimed,
            Owner::Guest(guest) => Mark::Guest(guest),
            // By an instruction, not by VM entry from a list.
            Owner::Host if self.inside.is_none() && !foreign && (self.is_lent() || moves) => {
                Mark::Lent
            }
            Owner::Host => Mark::Event,
        };
        if register == BranchRegister::Depth {
            let lost = self.branches.unread();
            self.vcpus().released_lbr(self.cpu, lost);
        }
        self.branches.set_mark(register, mark);
        if owner.is_guest() && is_entry {
            self.branches.changed_by_guest();
        }
    }

    /// I2, I3: a record that is read is the reader's, or the reader is KVM.
    pub(super) fn check_branch_read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        register: BranchRegister,
        value: u64,
        access: Access,
    ) {
        if register == BranchRegister::Depth {
            return;
        }
        let mark = self.branches.mark(register);
        // That branches are recorded is no secret of a guest's.
        let secret = register != BranchRegister::Control && mark.is_guest();
        let (invariant, when) = match access.owner {
            Owner::Host if secret && self.is_foreign_to_branches(access.owner) => {
                let when = "code of the host that is not KVM's reads a last branch of a guest";
                (Invariant::LeakOut, when)
            }
            Owner::Host => {
                if let BranchRegister::From(n) = register {
                    self.branches.unread &= !(1 << n);
                }
                return;
            }
            Owner::Guest(guest) if !self.may_read(guest, mark) => {
                let when = "the guest reads a last branch that is not its own";
                (Invariant::LeakIn, when)
            }
            _ => return,
        };
        self.report(map, invariant, when, Cell::Lbr(register), mark, value);
    }

    /// A branch was recorded, or a return. I1: none of the host for a guest. I4: none for the host in place of
    /// what is kept of a guest.
    pub(crate) fn recorded<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        change: Recorded,
    ) {
        let value = |register| map.value(Cell::Lbr(register), counters);
        let Branches {
            filter, control, ..
        } = self.branches;
        let filtered = filter.is_guest() && value(BranchRegister::Filter) != 0;
        let mark = match control.is_guest() {
            true => control,
            // What is missing tells the filter.
            false if filtered => filter,
            false => Mark::Event,
        };
        let depth = depth(map, counters);
        let may_displace = !control.is_guest() && map.keeps_branches();
        let displaces = may_displace && self.branches.guest(depth).is_some();
        self.branches.record(change, mark, depth);
        let (invariant, when) = match control.is_guest() {
            true if self.inside.is_none() => {
                let when = "a branch of the host is recorded for a guest";
                (Invariant::Stray, when)
            }
            false if displaces => (Invariant::Exact, DISPLACED),
            _ => return,
        };
        let cell = BranchRegister::Control;
        let (cell, value) = (Cell::Lbr(cell), value(cell));
        self.report(map, invariant, when, cell, control, value);
    }

    /// VM entry; what it loads is not loaded yet. I3: what the guest can read is its own. I4: what is kept is
    /// what the vCPU was left with.
    pub(super) fn enter_branches<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        continuous: bool,
    ) {
        self.vcpus().enters_lbr(&entry, continuous);
        let mine = |register: &BranchRegister| entry.branches & register.bit() != 0;
        // It was not loaded for one that cannot have it.
        let loads = BranchRegister::all().filter(|_| entry.branches != 0);
        for register in loads {
            if self.branches.mark(register) == Mark::Lent {
                self.branches.set_mark(register, Mark::Guest(entry.guest));
            }
        }
        let foreign = BranchRegister::all()
            .filter(mine)
            .map(|register| {
                let (cell, mark) = (Cell::Lbr(register), self.branches.mark(register));
                (cell, mark, map.value(cell, counters))
            })
            .find(|(_, mark, value)| *value != 0 && !self.may_read(entry.guest, *mark));
        if let Some((cell, mark, value)) = foreign {
            let when = "the guest is entered and can read it";
            self.report(map, Invariant::LeakIn, when, cell, mark, value);
        }
        if map.keeps_branches() && entry.branches & BranchRegister::BITS_OF_ENTRIES != 0 {
            self.check_elsewhere(map, &entry);
            self.has_records(map, counters, entry, self.branches);
        }
    }

    /// I4: the vCPU has not left its records in another CPU.
    fn check_elsewhere<M: Watched<Register = R>>(&mut self, map: &M, entry: &Entry) {
        let held = self.vcpus().lbr_cpu(entry);
        if let Some(cpu) = held.filter(|cpu| *cpu != self.cpu) {
            let (cell, mark) = (BranchRegister::From(0), Mark::Guest(entry.guest));
            self.report(
                map,
                Invariant::Exact,
                ELSEWHERE,
                Cell::Lbr(cell),
                mark,
                cpu.into(),
            );
        }
    }

    /// The guest that was entered has these records. I3, I4: they are what the vCPU was left with.
    fn has_records<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        before: Branches,
    ) {
        let records = Records::read(map, counters);
        self.loaded = Some(Loaded { records, before });
        let (origin, register) = self.vcpus().lbr_origin(&entry, &records);
        let (invariant, when, mark) = match origin {
            Origin::Kept | Origin::Explained | Origin::Unknown => return,
            Origin::Other(other) => (Invariant::LeakIn, OTHER_VCPU, Mark::Guest(other)),
            Origin::Unexplained => (Invariant::Exact, UNEXPLAINED, Mark::Guest(entry.guest)),
        };
        let cell = Cell::Lbr(register);
        let value = map.value(cell, counters);
        self.report(map, invariant, when, cell, mark, value);
    }

    /// VM entry has loaded the guest's stack, with LBR virtualization.
    pub(crate) fn loaded_branches<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
    ) {
        if let Some(entry) = self.inside {
            let all = Branches::of(Mark::Guest(entry.guest));
            let before = std::mem::replace(&mut self.branches, all);
            self.has_records(map, counters, entry, before);
        }
    }

    /// VM exit with LBR virtualization has saved the guest's stack and brought the host's control back, but leaves
    /// all else.
    pub(crate) fn left_branches<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        if let (Some(entry), Some(loaded)) = (self.inside, &self.loaded) {
            self.branches.control = loaded.before.control;
            self.exit_branches(map, counters, &entry);
        }
    }

    /// VM exit: what the guest is left with, if it had records.
    pub(super) fn exit_branches<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: &Entry,
    ) {
        if let Some(loaded) = self.loaded.take() {
            let records = Records::read(map, counters);
            let cpu = (!records.is_empty()).then_some(self.cpu);
            self.vcpus().left_lbr(entry, &loaded.records, &records, cpu);
        }
    }

    /// The guest was not entered after all: everything is as it was.
    pub(crate) fn unloaded_branches(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            self.branches = loaded.before;
        }
    }

    /// VM entry has loaded the control alone.
    pub(crate) fn loaded_branch_control(&mut self) {
        if let Some(entry) = self.inside {
            self.branches.control = Mark::Guest(entry.guest);
        }
    }
}
