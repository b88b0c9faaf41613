// SPDX-License-Identifier: GPL-2.0
//! VM entry and exit, the way to user mode, and to another task.

use crate::Counters;
use crate::Owner;

use super::Cell;
use super::Entry;
use super::Mark;
use super::Operation;
use super::Oracle;
use super::Watched;
use super::LVT_MODE;
use super::LVT_NMI;
use super::STACK_MASK;

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// VM entry. What is loaded by it is loaded.
    pub fn enter<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters, entry: Entry) {
        self.note(Owner::Host, Operation::Enter(entry.guest));
        if entry.fresh {
            self.vcpus().forget(entry.guest);
        }
        let left = self.left(map, counters);
        if let (Some(_), Some(last)) = (left, self.last) {
            if last.stack & !STACK_MASK == entry.stack & !STACK_MASK {
                self.vcpus().join(last.guest, entry.guest);
            } else {
                self.check_left(map, counters, "another thread enters its guest");
            }
        }
        self.inside = Some(entry);
        if entry.counters == 0 && !entry.status {
            return;
        }
        self.counts.mediated_entries += 1;
        self.last = Some(entry);
        self.check_entry(map, counters, entry);
        self.claim(map, counters, entry);
    }

    /// All within reach is the guest's from now on.
    fn claim<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters, entry: Entry) {
        let guest = Mark::Guest(entry.guest);
        for n in (0..counters.len()).filter(|n| entry.counters >> n & 1 != 0) {
            self.counters[n] = guest;
            self.before[n] = counters.get(n);
            let selector = map.selected_by(n);
            if self.mark(selector) != Mark::Event {
                self.set_mark(selector, guest);
            }
        }
        if entry.status {
            self.status.guest |= map.value(Cell::Status, counters);
            self.status.event = 0;
        }
        if self.lvtpc.1 & LVT_MODE != LVT_NMI {
            self.lvtpc.0 = guest;
        }
    }

    /// VM exit. What is loaded by it is loaded.
    pub fn exit<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        let Some(entry) = self.inside.take() else {
            return;
        };
        self.note(Owner::Host, Operation::Exit(entry.guest));
        if entry.counters == 0 && !entry.status {
            return;
        }
        let before = self.before;
        let values = (0..counters.len()).map(|n| match entry.counters >> n & 1 {
            0 => (0, 0),
            _ => (before[n], counters.get(n)),
        });
        self.vcpus().left_with(entry.guest, values);
        self.check_stray(map, counters);
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
        if self.has_left(map, counters) {
            self.note(Owner::Host, Operation::Switch(to));
            self.check_left(map, counters, "the host switches to another task");
        }
    }
}
