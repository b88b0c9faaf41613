// SPDX-License-Identifier: GPL-2.0
//! VM entry and exit, the way to user mode, and to another task.

use crate::Counters;
use crate::Owner;

use super::BranchRegister;
use super::Cell;
use super::Entry;
use super::Mark;
use super::Operation;
use super::Oracle;
use super::Watched;
use super::STACK_MASK;
use super::TRACING;

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// VM entry. What is loaded by it is loaded.
    pub fn enter<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters, entry: Entry) {
        self.note(Owner::Host, Operation::Enter(entry.guest));
        self.settle_user(entry.stack);
        let continuous = self.vcpus().enter(&entry);
        let elsewhere = |last: Entry| last.stack & !STACK_MASK != entry.stack & !STACK_MASK;
        if self.last.is_some_and(elsewhere) {
            self.check_others(map, counters);
        }
        self.check_trace(map, counters, TRACING);
        self.inside = Some(entry);
        self.enter_branches(map, counters, entry, continuous);
        self.enter_trace(map, counters, entry, continuous);
        if !entry.has_reach() && !self.is_lent() {
            return;
        }
        self.last = Some(entry);
        if entry.has_reach() {
            self.counts.mediated_entries += 1;
            self.check_entry(map, counters, entry);
        }
        self.claim(map, counters, entry);
    }

    /// All within reach, and all that is loaded, is the guest's from now on.
    fn claim<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters, entry: Entry) {
        let guest = Mark::Guest(entry.guest);
        for n in 0..counters.len() {
            self.before[n] = counters.get(n);
            let within = entry.counters >> n & 1 != 0;
            if within || self.counters[n] == Mark::Lent {
                self.counters[n] = guest;
            }
            let selector = map.selected_by(n);
            let mark = self.mark(selector);
            let claimed = mark != Mark::Event && !map.is_stopped_guest_only(n);
            if mark == Mark::Lent || within && claimed {
                self.set_mark(selector, guest);
            }
        }
        for cell in [Cell::FixedControl, Cell::Control, Cell::Lvtpc] {
            if self.mark(cell) == Mark::Lent {
                self.set_mark(cell, guest);
            }
        }
        self.status.guest |= std::mem::take(&mut self.status.lent);
        if entry.status {
            self.status.guest |= map.value(Cell::Status, counters);
            self.status.event = 0;
        }
    }

    /// VM exit. What is loaded by it is loaded.
    pub fn exit<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        let Some(entry) = self.inside.take() else {
            return;
        };
        self.note(Owner::Host, Operation::Exit(entry.guest));
        self.exit_branches(map, counters, &entry);
        self.exit_trace(map, counters, &entry);
        if !entry.has_reach() && !self.is_lent() {
            self.vcpus().left_without(&entry);
            return;
        }
        let mut vcpus = self.vcpus();
        for n in 0..counters.len() {
            if entry.counters >> n & 1 != 0 || self.counters[n].is_guest() {
                vcpus.left_counter(&entry, n, self.before[n], counters.get(n));
            }
        }
        if entry.status && !map.is_control_switched() {
            vcpus.left_control(&entry, map.value(Cell::Control, counters));
        }
        drop(vcpus);
        self.check_stray(map, counters);
    }

    /// The guest has left with WRMSR of a register, for KVM to do it.
    pub fn asks<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        guest: u64,
        register: R,
        value: u64,
    ) {
        self.note(Owner::Guest(guest), Operation::Asks(register, value));
        // IA32_PMCx takes the low half and extends its sign.
        let extended = i64::from(value as u32 as i32) as u64;
        match map.cell(register) {
            Some(Cell::Counter(n)) => {
                let mask = counters.mask_of(n);
                self.vcpus()
                    .asks(guest, Some(n), &[value & mask, extended & mask]);
            }
            Some(Cell::Control) => self.vcpus().asks(guest, None, &[value]),
            Some(Cell::Pt(register)) => self.vcpus().asks_trace(guest, register, value),
            Some(Cell::Lbr(register)) => {
                let clears = register == BranchRegister::Depth;
                self.vcpus().asks_lbr(guest, clears);
            }
            _ => {}
        }
    }

    /// Host mode has executed at CPL > 0, in the thread that is on the CPU.
    pub fn has_run_user(&mut self) {
        self.user = true;
    }

    /// The thread on this stack has been on the CPU.
    fn settle_user(&mut self, stack: u64) {
        if std::mem::take(&mut self.user) {
            self.vcpus().user(stack);
        }
    }

    /// The CPU is about to execute at CPL > 0 in host mode.
    pub fn user<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        self.check_left(map, counters, "the host goes to user mode");
    }

    /// The kernel's stack pointer is loaded from memory: a task switch, if it is another stack.
    pub fn switch<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        from: u64,
        to: u64,
    ) {
        if (from ^ to) & !STACK_MASK == 0 {
            return;
        }
        self.counts.switches += 1;
        self.settle_user(from);
        if self.has_left(map, counters) {
            self.note(Owner::Host, Operation::Switch(to));
            self.check_left(map, counters, "the host switches to another task");
        }
    }
}
