// SPDX-License-Identifier: GPL-2.0
//! The checks. The table in [`super`] says which is made where.

use crate::ClassSet;
use crate::Counters;
use crate::Owner;

use super::code::is_provider;
use super::lvt;
use super::vcpus::Origin;
use super::Access;
use super::Cell;
use super::Entry;
use super::Finding;
use super::Invariant;
use super::Mark;
use super::Oracle;
use super::Watched;
use super::OTHER_VCPU;
use super::UNEXPLAINED;

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// The first value of a guest's that is in the registers, and whose it is. `is` says which
    /// marks count, `status` which bits.
    fn find<M: Watched<Register = R>>(
        &self,
        map: &M,
        counters: &Counters,
        is: impl Fn(Mark) -> bool,
        status: u64,
    ) -> Option<(Cell, Mark, u64)> {
        let counter = (0..counters.len()).map(Cell::Counter);
        let selectors = (0..counters.len()).map(|n| map.selected_by(n));
        let left = counter
            .chain(selectors)
            .map(|cell| (cell, self.mark(cell), map.value(cell, counters)))
            .find(|(_, mark, value)| *value != 0 && is(*mark));
        let last = self
            .last
            .map_or(Mark::Lent, |entry| Mark::Guest(entry.guest));
        let status = status & map.value(Cell::Status, counters);
        let (mark, lvtpc) = self.lvtpc;
        left.or_else(|| (status != 0).then_some((Cell::Status, last, status)))
            .or_else(|| is(mark).then_some((Cell::Lvtpc, mark, lvtpc.into())))
    }

    /// The first thing that a guest has left or that was loaded for it.
    fn left<M: Watched<Register = R>>(
        &self,
        map: &M,
        counters: &Counters,
    ) -> Option<(Cell, Mark, u64)> {
        let status = self.status.guest | self.status.lent;
        self.find(map, counters, Mark::is_guest, status)
    }

    /// Whether a guest has left something, or something was loaded for it.
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
        if let Some((cell, mark, value)) = self.left(map, counters) {
            self.report(map, Invariant::LeakOut, when, cell, mark, value);
        }
    }

    /// I2: nothing is left of the guest that another thread has run. What was loaded since is for
    /// the one that is entered.
    pub(super) fn check_others<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        let is = |mark| matches!(mark, Mark::Guest(_));
        if let Some((cell, mark, value)) = self.find(map, counters, is, self.status.guest) {
            let when = "another thread enters its guest";
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

    /// I2, I3: what is read is the reader's, or the reader is KVM.
    pub(super) fn check_read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        cell: Cell,
        value: u64,
        access: Access,
    ) {
        let mark = self.mark(cell);
        match access.owner {
            // RDPMC does not read the global control; VM exit does, if it stores it in a list, with
            // the guest's privilege level.
            Owner::Host if access.cpl > 0 && mark.is_guest() && cell != Cell::Control => {
                let when = "a host process reads a counter";
                self.report(map, Invariant::LeakOut, when, cell, mark, value);
            }
            Owner::Host if self.is_foreign(access.owner) && self.is_guests(cell, value) => {
                let when = "code of the host that is not KVM's reads a register";
                self.report(map, Invariant::LeakOut, when, cell, Mark::Lent, value);
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

    /// Whether the instruction is one of the host's kernel, but not of KVM or its providers. (What
    /// VM entry and exit do by themselves is no instruction.)
    pub(super) fn is_foreign(&self, owner: Owner) -> bool {
        owner == Owner::Host && self.inside.is_none() && !is_provider(self.place.rip)
    }

    /// Whether this value of a cell is a guest's.
    fn is_guests(&self, cell: Cell, value: u64) -> bool {
        match cell {
            Cell::Status => value & (self.status.guest | self.status.lent) != 0,
            Cell::Control => false,
            _ => self.mark(cell).is_guest(),
        }
    }

    /// I4: as long as the PMU is a guest's, nobody else changes it. `was` is whose it was before.
    pub(super) fn check_write<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        cell: Cell,
        was: Mark,
        value: u64,
    ) {
        let when = "code of the host that is not KVM's changes a register of the guest's PMU";
        self.report(map, Invariant::Exact, when, cell, was, value);
    }

    /// I5: a counter of the host's does not overflow into the guest's vector.
    pub(super) fn check_pmi<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        n: usize,
    ) {
        let (cell, mark) = (Cell::Counter(n), self.counters[n]);
        if self.is_lent() && !mark.is_guest() {
            let when = "an event of the host overflows into the guest's vector";
            self.report(map, Invariant::HostExact, when, cell, mark, counters.get(n));
        }
    }

    /// I5: no trace of the host's branches is on while PMIs go to the guest's vector.
    pub(crate) fn check_trace<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        when: &'static str,
    ) {
        if self.inside.is_none() && self.is_lent() && map.is_tracing() {
            let value = map.value(Cell::Trace, counters);
            self.report(
                map,
                Invariant::HostExact,
                when,
                Cell::Trace,
                Mark::Event,
                value,
            );
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
        if entry.rdpmc {
            self.check_uncore(map, counters);
        }
        let control = map.value(Cell::Control, counters);
        if entry.status && !self.vcpus().explains_control(&entry, control) {
            let mark = self.mark(Cell::Control);
            self.report(
                map,
                Invariant::Exact,
                UNEXPLAINED,
                Cell::Control,
                mark,
                control,
            );
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
        let is_host = lvtpc & lvt::MODE == lvt::NMI && lvtpc & lvt::MASKED == 0;
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

    /// I3: RDPMC of the guest reads nothing that counts for several CPUs together.
    fn check_uncore<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        let cells = (0..map.uncore_counters()).map(Cell::Uncore);
        let values = cells.map(|cell| (cell, map.value(cell, counters)));
        if let Some((cell, value)) = values.into_iter().find(|(_, value)| *value != 0) {
            let when = "the guest is entered and can read it";
            self.report(map, Invariant::LeakIn, when, cell, self.mark(cell), value);
        }
    }

    /// I3, I4: the counter holds what the vCPU was left with, or what was made of that since.
    fn check_counter<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        n: usize,
    ) {
        let (cell, value, mark) = (Cell::Counter(n), counters.get(n), self.counters[n]);
        let mask = counters.mask_of(n);
        let origin = self.vcpus().origin(&entry, n, value, mask);
        let (invariant, when, mark) = match origin {
            Origin::Kept => return,
            _ if mark == Mark::Event && value != 0 => {
                let when = "the guest is entered and can read it";
                (Invariant::LeakIn, when, mark)
            }
            Origin::Explained | Origin::Unknown => return,
            Origin::Other(other) => (Invariant::LeakIn, OTHER_VCPU, Mark::Guest(other)),
            Origin::Unexplained => (Invariant::Exact, UNEXPLAINED, mark),
        };
        self.report(map, invariant, when, cell, mark, value);
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
    pub(super) fn report<M: Watched<Register = R>>(
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
