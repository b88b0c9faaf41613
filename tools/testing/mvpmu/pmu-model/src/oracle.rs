// SPDX-License-Identifier: GPL-2.0
//! The oracle: whose value each PMU register holds, checked at every step of a run.
//!
//! # Who owns a value
//!
//! Each [`Cell`] (a counter, a selector, the control of the fixed counters, each status bit, the
//! LVTPC) carries a [`Mark`]. 0 is nobody's, whatever the mark says.
//!
//! * What a guest writes, and what counts in a guest in a register within its *reach*, is the
//!   guest's. Its reach is what it can read or write without a VM exit, as the MSR bitmap and the
//!   RDPMC intercept say at each VM entry. A guest without any reach (no PMU, an emulated one, a
//!   mediated one that does not count) owns nothing: what counts under perf's selectors then is
//!   the host's, GuestOnly or not.
//! * What the host writes is the host's, but the machine cannot tell from a WRMSR for whom: perf's
//!   sample period and a guest's counter look alike. So it is *unclaimed* until something decides.
//!   A VM entry with the register within reach makes it the guest's. A count in host mode, or the
//!   host switching the counters on while the selector is not GuestOnly, makes it an *event* of
//!   the host's: that is what perf does and what a provider, which loads a stopped PMU, does not.
//!   (On AMD a provider switches the counters on too, but under GuestOnly selectors.)
//! * At a VM exit all that was claimed stays the guest's until the host rewrites it. A counter of
//!   the guest that the host moves on by a few is still the guest's: KVM has emulated an
//!   instruction.
//!
//! # Which guest
//!
//! A VMCB (VMCS) is not a vCPU: for a nested guest KVM enters two of them, in turn, and need not
//! clear the PMU in between. But one can see it from outside. KVM runs a vCPU from one ioctl of one
//! thread, so between two VM entries of *different* vCPUs the CPU has gone through user mode, or to
//! another kernel stack. At both, [`Oracle::user`] and [`Oracle::switch`], nothing of a guest may
//! be left. Hence, if there is something left at a VM entry on the same stack as the last one, both
//! are of one vCPU: that is when two VMCBs are [joined](vcpus::Vcpus::join). Should a machine not
//! notice a task switch, the other stack is noticed at that thread's VM entry.
//!
//! # What is checked, and where
//!
//! | | where | what must not be |
//! |---|---|---|
//! | I1 | a count in host mode; after VM exit and each write of the host | a counter that runs in host mode under a selector of a guest |
//! | I1 | VM entry | within reach, a counter that runs under a selector of the host |
//! | I2 | before CPL 3, at a task switch, at the VM entry of another thread, RDPMC at CPL 3 | any value of a guest |
//! | I3 | VM entry, each read of the guest | within reach: an event of the host's, or its overflow, or what another vCPU was left with; a PMI of the guest that would be the host's NMI |
//!
//! A host event whose counter is in reach passes when the value is what the vCPU had at its last
//! exit: a provider need not write what is there already, and the guest learns nothing.
//!
//! "What another vCPU was left with" compares numbers, so it is only said when the vCPU had another
//! one before, further away than emulated instructions would bring it, and the other one came to
//! its number by itself. A vCPU that is entered for the first time may have been given the state
//! of another on purpose: that is migration.

mod cell;
mod checks;
mod code;
mod counts;
mod finding;
mod journal;
mod mode;
mod transitions;
mod vcpus;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::Access;
use crate::Counters;
use crate::Owner;
use crate::MAX_COUNTERS;

pub use cell::Cell;
pub use cell::Mark;
pub use cell::Watched;
pub use code::stack_load;
pub use code::StackLoad;
pub use counts::Counts;
pub use finding::Finding;
pub use finding::Invariant;
pub use finding::Place;
pub use journal::Operation;
pub use mode::Mode;
pub use mode::Reported;
pub use mode::EXIT_STATUS;
pub use vcpus::Vcpus;

use journal::Journal;

/// A counter of the guest's that the host moves by no more than this is the guest's still.
const EMULATED: u64 = 16;
/// Addresses that agree in the other bits are in one kernel stack.
const STACK_MASK: u64 = (16 << 10) - 1;
/// LVT: delivery mode.
const LVT_MODE: u32 = 7 << 8;
/// LVT: delivery mode NMI.
const LVT_NMI: u32 = 4 << 8;
/// LVT: masked.
const LVT_MASKED: u32 = 1 << 16;

/// The vCPUs that all CPUs of a machine have seen.
pub type SharedVcpus = Arc<Mutex<Vcpus>>;

/// A VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the VMCB or VMCS.
    pub guest: u64,
    /// It was never entered before: what was known of that address is of another one.
    pub fresh: bool,
    /// The stack pointer of the host.
    pub stack: u64,
    /// The counters that the guest can read or write without an exit, a bit for each.
    pub counters: u64,
    /// Whether it can do so with the status register.
    pub status: bool,
}

/// Whose the bits of the status register are.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    guest: u64,
    event: u64,
}

/// The oracle of one CPU.
#[derive(Clone, Debug)]
pub struct Oracle<R> {
    cpu: u32,
    vcpus: SharedVcpus,
    place: Place,
    counters: [Mark; MAX_COUNTERS],
    selectors: [Mark; MAX_COUNTERS],
    fixed_control: Mark,
    status: Status,
    lvtpc: (Mark, u32),
    /// The guest that runs.
    inside: Option<Entry>,
    /// Its counters at the entry.
    before: [u64; MAX_COUNTERS],
    /// The last VM entry of a guest that has reach.
    last: Option<Entry>,
    journal: Journal<R>,
    counts: Counts,
    finding: Option<Box<Finding>>,
}

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// The oracle of CPU number `cpu`.
    pub fn new(cpu: u32, vcpus: SharedVcpus) -> Self {
        Oracle {
            cpu,
            vcpus,
            place: Place::default(),
            counters: [Mark::Unclaimed; MAX_COUNTERS],
            selectors: [Mark::Unclaimed; MAX_COUNTERS],
            fixed_control: Mark::Unclaimed,
            status: Status::default(),
            lvtpc: (Mark::Unclaimed, LVT_MASKED),
            inside: None,
            before: [0; MAX_COUNTERS],
            last: None,
            journal: Journal::default(),
            counts: Counts::default(),
            finding: None,
        }
    }

    /// Which instruction is about to do something.
    pub fn at(&mut self, rip: u64, cpl: u8) {
        self.place = Place { rip, cpl };
    }

    /// What was seen and done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The first violation since it was asked last.
    pub fn take_finding(&mut self) -> Option<Box<Finding>> {
        self.finding.take()
    }

    fn vcpus(&self) -> MutexGuard<'_, Vcpus> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, cell: Cell) -> Mark {
        match cell {
            Cell::Counter(n) => self.counters[n],
            Cell::Selector(n) => self.selectors[n],
            Cell::FixedControl => self.fixed_control,
            Cell::Lvtpc => self.lvtpc.0,
            Cell::Status | Cell::Control => Mark::Unclaimed,
        }
    }

    fn set_mark(&mut self, cell: Cell, mark: Mark) {
        match cell {
            Cell::Counter(n) => self.counters[n] = mark,
            Cell::Selector(n) => self.selectors[n] = mark,
            Cell::FixedControl => self.fixed_control = mark,
            Cell::Lvtpc => self.lvtpc.0 = mark,
            Cell::Status | Cell::Control => {}
        }
    }

    fn note(&mut self, owner: Owner, what: Operation<R>) {
        self.journal.note(self.place.rip, owner, what);
    }

    /// RDMSR or RDPMC has returned `value`.
    pub(crate) fn read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        cell: Option<Cell>,
        what: Operation<R>,
        value: u64,
        access: Access,
    ) {
        self.note(access.owner, what);
        match (access.owner, access.cpl) {
            (Owner::Guest(_), _) => self.counts.guest_reads += 1,
            (Owner::Host, 0) => self.counts.kernel_reads += 1,
            (Owner::Host, _) => self.counts.user_rdpmc += 1,
        }
        if let (Some(cell), true) = (cell, value != 0) {
            self.check_read(map, cell, value, access);
        }
    }

    /// WRMSR has changed a register that held `old`.
    pub(crate) fn wrote<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        write: (Option<Cell>, R, u64),
        old: u64,
        owner: Owner,
    ) {
        let (cell, register, value) = write;
        self.note(owner, Operation::Wrmsr(register, value));
        let Some(cell) = cell else { return };
        let now = map.value(cell, counters);
        match (cell, owner) {
            (Cell::Status, _) => {
                let set = now & !old;
                self.status.event &= now & !set;
                self.status.guest &= now & !set;
                if owner.is_guest() {
                    self.status.guest |= set;
                }
            }
            (Cell::Counter(n), Owner::Host) => {
                let emulated = self.counters[n].is_guest()
                    && old != 0
                    && now.wrapping_sub(old) & counters.mask() <= EMULATED;
                if !emulated {
                    self.counters[n] = Mark::Unclaimed;
                }
            }
            (Cell::Control, Owner::Host) if now != 0 => self.settle(map, counters),
            (_, Owner::Host) => self.set_mark(cell, Mark::Unclaimed),
            (_, Owner::Guest(guest)) => self.set_mark(cell, Mark::Guest(guest)),
        }
        if owner == Owner::Host && self.inside.is_none() {
            self.check_stray(map, counters);
        }
    }

    /// The host has switched the counters on: what is programmed without GuestOnly is its event.
    fn settle<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        for n in 0..counters.len() {
            let selector = map.selected_by(n);
            let programmed = map.value(selector, counters) != 0 && !map.is_guest_only(n);
            if programmed && self.mark(selector) == Mark::Unclaimed {
                self.set_mark(selector, Mark::Event);
            }
            let selected = self.mark(selector) == Mark::Event && map.is_selected(n);
            if selected && self.counters[n] == Mark::Unclaimed {
                self.counters[n] = Mark::Event;
            }
        }
    }

    /// Counter `n` has moved in the mode that the CPU is in.
    pub(crate) fn counted<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        n: usize,
        wrapped: bool,
    ) {
        let bit = if wrapped { map.status_bit(n) } else { 0 };
        match self.inside {
            Some(entry) if entry.counters >> n & 1 != 0 => {
                self.counters[n] = Mark::Guest(entry.guest);
                self.status.guest |= bit;
            }
            Some(_) => {
                self.counters[n] = Mark::Event;
                self.status.event |= bit;
            }
            None => {
                self.check_count(map, counters, n);
                self.counters[n] = Mark::Event;
                self.status.event |= bit;
                let selector = map.selected_by(n);
                if self.mark(selector) == Mark::Unclaimed {
                    self.set_mark(selector, Mark::Event);
                }
            }
        }
    }

    /// The LVTPC was written.
    pub fn lvtpc(&mut self, value: u32, owner: Owner) {
        self.note(owner, Operation::Lvtpc(value));
        if value != self.lvtpc.1 {
            self.lvtpc = (Mark::Unclaimed, value);
        }
    }

    /// RESET or INIT.
    pub(crate) fn reset(&mut self) {
        *self = Oracle {
            counts: self.counts,
            ..Oracle::new(self.cpu, self.vcpus.clone())
        };
    }
}
