// SPDX-License-Identifier: GPL-2.0
//! The checks. The table in [`super`] says which is made where.

use crate::ClassSet;
use crate::Counters;
use crate::Owner;

use super::Access;
use super::Cell;
use super::Entry;
use super::Finding;
use super::Invariant;
use super::Mark;
use super::Oracle;
use super::Watched;
use super::EMULATED;
use super::LVT_MASKED;
use super::LVT_MODE;
use super::LVT_NMI;

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// The first thing that a guest has left, its owner, and what is there.
    pub(super) fn left<M: Watched<Register = R>>(
        &self,
        map: &M,
        counters: &Counters,
    ) -> Option<(Cell, u64, u64)> {
        let counter = (0..counters.len()).map(Cell::Counter);
        let selectors = (0..counters.len()).map(|n| map.selected_by(n));
        let left = counter.chain(selectors).find_map(|cell| {
            match (self.mark(cell), map.value(cell, counters)) {
                (Mark::Guest(guest), value @ 1..) => Some((cell, guest, value)),
                _ => None,
            }
        });
        let last = self.last.map_or(0, |entry| entry.guest);
        let status = self.status.guest & map.value(Cell::Status, counters);
        match (left, self.lvtpc) {
            (Some(_), _) => left,
            (None, _) if status != 0 => Some((Cell::Status, last, status)),
            (None, (Mark::Guest(guest), value)) => Some((Cell::Lvtpc, guest, value.into())),
            _ => None,
        }
    }

    /// Whether a guest has left something.
    pub fn has_left<M: Watched<Register = R>>(&self, map: &M, counters: &Counters) -> bool {
        self.left(map, counters).is_some()
    }

    /// I2: nothing of a guest is left.
    pub(super) fn check_left<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        when: &'static str,
    ) {
        if let Some((cell, guest, value)) = self.left(map, counters) {
            let mark = Mark::Guest(guest);
            self.report(map, Invariant::LeakOut, when, cell, mark, value);
        }
    }

    /// I1: no counter can count in host mode under a selector of a guest.
    pub(super) fn check_stray<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        for n in 0..counters.len() {
            if !self.mark(map.selected_by(n)).is_guest() {
                continue;
            }
            let stray = map
                .counting(n)
                .is_some_and(|c| !c.classes.intersection(ClassSet::HOST).is_empty());
            if stray {
                self.report_stray(map, counters, n, "a counter runs in host mode");
                return;
            }
        }
    }

    /// I1: counter `n` counted in host mode.
    pub(super) fn check_count<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        n: usize,
    ) {
        if self.mark(map.selected_by(n)).is_guest() {
            self.report_stray(map, counters, n, "a counter counted in host mode");
        }
    }

    fn report_stray<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        n: usize,
        when: &'static str,
    ) {
        let selector = map.selected_by(n);
        let (mark, value) = (self.mark(selector), map.value(selector, counters));
        self.report(map, Invariant::Stray, when, selector, mark, value);
    }

    /// I2, I3: what is read is the reader's, or the reader is the kernel.
    pub(super) fn check_read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        cell: Cell,
        value: u64,
        access: Access,
    ) {
        let mark = self.mark(cell);
        match access.owner {
            Owner::Host if access.cpl > 0 && mark.is_guest() => {
                let when = "a host process reads a counter";
                self.report(map, Invariant::LeakOut, when, cell, mark, value);
            }
            Owner::Guest(_) if mark == Mark::Event => {
                let when = "the guest reads a register";
                self.report(map, Invariant::LeakIn, when, cell, mark, value);
            }
            Owner::Guest(_) if cell == Cell::Status && value & self.status.event != 0 => {
                let when = "the guest reads a register";
                self.report(map, Invariant::LeakIn, when, cell, Mark::Event, value);
            }
            _ => {}
        }
    }

    /// I3: what is within the guest's reach is its own.
    pub(super) fn check_entry<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
    ) {
        for n in (0..counters.len()).filter(|n| entry.counters >> n & 1 != 0) {
            self.check_event(map, counters, n);
            self.check_counter(map, counters, entry, n);
        }
        let event = self.status.event & map.value(Cell::Status, counters);
        if entry.status && event != 0 {
            let when = "the guest is entered and can read it";
            self.report(
                map,
                Invariant::LeakIn,
                when,
                Cell::Status,
                Mark::Event,
                event,
            );
        }
        let (mark, lvtpc) = self.lvtpc;
        let pmi = |n| {
            map.counting(n).is_some_and(|c| {
                entry.counters >> n & 1 != 0
                    && c.pmi
                    && !c.classes.intersection(ClassSet::GUEST).is_empty()
            })
        };
        let is_host = lvtpc & LVT_MODE == LVT_NMI && lvtpc & LVT_MASKED == 0;
        if is_host && (0..counters.len()).any(pmi) {
            let when = "the guest is entered, its PMI would be an NMI of the host";
            self.report(
                map,
                Invariant::LeakIn,
                when,
                Cell::Lvtpc,
                mark,
                lvtpc.into(),
            );
        }
    }

    fn check_counter<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        n: usize,
    ) {
        let (cell, value, mark) = (Cell::Counter(n), counters.get(n), self.counters[n]);
        if value == 0 || mark.is_guest() {
            return;
        }
        let (had, other) = {
            let vcpus = self.vcpus();
            (
                vcpus.had(entry.guest, n),
                vcpus.other_with(entry.guest, n, value),
            )
        };
        if had == Some(value) {
            return;
        }
        if mark == Mark::Event {
            let when = "the guest is entered and can read it";
            self.report(map, Invariant::LeakIn, when, cell, mark, value);
            return;
        }
        let near = |had: u64| value.wrapping_sub(had) & counters.mask() <= EMULATED;
        if let (Some(had), Some(other)) = (had, other) {
            if !near(had) {
                let when = "the guest is entered with what another vCPU was left with";
                self.report(
                    map,
                    Invariant::LeakIn,
                    when,
                    cell,
                    Mark::Guest(other),
                    value,
                );
            }
        }
    }

    /// I1: no counter that is within the guest's reach counts in both modes. To the oracle that is
    /// an event of the host's, whoever has programmed it.
    fn check_event<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters, n: usize) {
        let selector = map.selected_by(n);
        let counts = map
            .counting(n)
            .is_some_and(|c| !c.classes.intersection(ClassSet::GUEST).is_empty());
        if counts && self.mark(selector) == Mark::Event {
            let value = map.value(selector, counters);
            let when = "the guest is entered with a counter that counts in both modes";
            self.report(map, Invariant::Stray, when, selector, Mark::Event, value);
        }
    }

    /// Keeps the first violation until somebody asks.
    fn report<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        invariant: Invariant,
        when: &'static str,
        cell: Cell,
        mark: Mark,
        value: u64,
    ) {
        self.counts.violations += 1;
        if self.finding.is_none() {
            self.finding = Some(Box::new(Finding {
                invariant,
                when,
                register: map.name(cell),
                cell,
                value,
                mark,
                cpu: self.cpu,
                place: self.place,
                operations: self.journal.lines(),
            }));
        }
    }
}
