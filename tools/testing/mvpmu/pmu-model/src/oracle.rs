// SPDX-License-Identifier: GPL-2.0
//! The oracle: whose value each PMU register holds, checked at every step of a run.
//!
//! # Who owns a value
//!
//! Each [`Cell`] (a counter, which PERF_METRICS is to the oracle, a selector, the control of the
//! fixed counters, the global control, each status bit, the LVTPC) carries a [`Mark`]. 0 is nobody's,
//! whatever the mark says.
//!
//! * What a guest writes, and what counts in a guest in a register within its *reach*, is the
//!   guest's. Its reach is what it can read or write without a VM exit, as the MSR bitmap and the
//!   RDPMC intercept say at each VM entry.
//! * While PMIs go to the guest's vector, the PMU is *lent*: what the host writes then was loaded
//!   for a guest, and is that of the next one that is entered. It is a guest's also if none is
//!   entered, and also if the guest cannot reach it (a nested guest whose hypervisor intercepts
//!   all). A guest without any reach, with PMIs that are the host's (no PMU, an emulated one, a
//!   mediated one that does not count) owns nothing: what counts under perf's selectors then is
//!   the host's, GuestOnly or not.
//! * What the host writes else is the host's. It is *unclaimed* until something decides: a VM entry
//!   with the register within reach makes it the guest's, but not a selector with GuestOnly that is
//!   off: perf leaves one when KVM no longer emulates a counter with it. A count in host mode, or the host
//!   switching the counters on while the selector is not GuestOnly, makes it an *event* of the
//!   host's. So is what firmware has left at RESET.
//! * At a VM exit all that was claimed stays the guest's until the host rewrites it. INIT changes
//!   nothing in the registers, hence no mark either.
//!
//! # Which guest
//!
//! A VMCB (VMCS) is not a vCPU: for a nested guest KVM enters two of them, in turn. But one can see
//! it from outside. KVM runs a vCPU from one ioctl of one thread. So what a thread, known by its
//! kernel stack, enters without having been in user mode since its last VM exit is the same vCPU,
//! and [`Vcpus`] takes both VMCBs for one. The page table of the process is the VM: a VMM runs one,
//! and may hand values from a vCPU to another as it likes.
//!
//! # What a vCPU comes back with
//!
//! A counter within reach, and on AMD the global control, must be at a VM entry what they were at
//! the vCPU's last exit, wherever that was; a counter may have been moved on a bit by instructions
//! that KVM has emulated: a few, and one for each exit without the guest's registers since, as those
//! of a guest that waits for the PMU. What the guest writes with an exit, for KVM to do, counts as well: the
//! machine sees the operands ([`Pmu::asks`](crate::Pmu::asks)). So a value that the guest copies
//! from a vCPU to another is its own, by whichever way it went. In user mode the VMM may set
//! anything (KVM_SET_MSRS needs the vCPU's mutex, so that KVM_RUN has returned): then the only thing
//! that must not come with the registers, at the next VM entry or a later one, is what a vCPU of another
//! process has come to by itself. INIT clears a vCPU's PMU: an entry in real mode begins anew.
//!
//! # What is checked, and where
//!
//! | | where | what must not be |
//! |---|---|---|
//! | I1 | a count in host mode; after VM exit and each write of the host | a counter that runs in host mode under a selector of a guest |
//! | I1 | VM entry | within reach, a counter that runs under a selector of the host |
//! | I2 | before CPL 3, at a task switch, at the VM entry of another thread, RDPMC at CPL 3 | any value of a guest |
//! | I2 | RDMSR and RDPMC at CPL 0 | a value of a guest, if the code is not KVM's or mvpmu's |
//! | I3 | VM entry, each read of the guest | within reach: an event of the host's, or its overflow, or what another vCPU was left with; a PMI of the guest that would be the host's NMI; anything in a counter that CPUs share |
//! | I4 | VM entry | within reach: another value than the vCPU was left with |
//! | I4 | WRMSR at CPL 0 while the PMU is lent | a change by code that is not KVM's or mvpmu's |
//! | I5 | overflow; a branch trace that comes to its threshold | an event of the host's whose PMI goes to the guest's vector |
//! | I5 | VM entry, write of IA32_DEBUGCTL or the LVTPC while the PMU is lent | a trace of the host's branches, which has the same PMI |
//!
//! The registers of Intel PT have owners, too, and so has what it writes: `oracle/traces.rs` says which, and what is
//! checked.
//!
//! Last branch records have owners, too: `oracle/branches.rs` says which, and what is checked. They are the
//! only values of a guest that may stay when the host goes to user mode or switches tasks.
//!
//! A host event whose counter is in reach passes when the value is what the vCPU had at its last
//! exit: a provider need not write what is there already, and the guest learns nothing.
//!
//! # What it does not see
//!
//! * Code is KVM's or mvpmu's if it is where Linux has [modules](is_provider): another module passes
//!   for them, and with KASLR the kernel itself may. The runner boots with `nokaslr`.
//! * Continuity is not checked for the status, for selectors (what KVM puts into hardware is not
//!   what the guest wrote), nor for Intel's global control, which VM entry loads from the VMCS.
//! * A loss of up to sixteen increments, or as many too many, between two entries: tests count those.
//! * What KVM_SET_MSRS sets, and WRMSR that KVM's emulator executes (it does so only with
//!   force_emulation_prefix), are not known: the latter would be a false alarm.
//! * Two VMs in one process are told apart only as long as their threads stay in the kernel.

mod branch_marks;
mod branches;
mod cell;
mod checks;
mod code;
mod counts;
mod entry;
mod finding;
mod journal;
mod left_trace;
mod lvt;
mod mode;
mod records;
mod trace_entry;
mod traces;
mod transitions;
mod vcpus;

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::Access;
use crate::Counters;
use crate::Owner;
use crate::Reset;
use crate::MAX_COUNTERS;

pub use cell::Cell;
pub use cell::Mark;
pub use cell::Watched;
pub use code::is_branch_function;
pub use code::is_provider;
pub use code::loads_trace;
pub use code::saves_trace;
pub use code::stack_load;
pub use code::StackLoad;
pub use counts::Counts;
pub use entry::Entry;
pub use finding::Finding;
pub use finding::Invariant;
pub use finding::Place;
pub use journal::Operation;
pub use mode::Mode;
pub use mode::Reported;
pub use mode::EXIT_STATUS;
pub use records::BranchRegister;
pub use records::Recorded;
pub use trace_entry::TraceEntry;
pub use traces::TraceFunctions;
pub use vcpus::Vcpus;

use branch_marks::Branches;
use branches::Loaded;
use journal::Journal;
use traces::Traces;

/// A counter of the guest's that the host moves by no more than this is the guest's still.
const EMULATED: u64 = 16;
/// Addresses that agree in the other bits are in one kernel stack.
const STACK_MASK: u64 = (16 << 10) - 1;
/// A register is not what it was at the last exit.
const UNEXPLAINED: &str = "the guest is entered with another value than it was left with";
/// It is what it was at the last exit of somebody else.
const OTHER_VCPU: &str = "the guest is entered with what another vCPU was left with";
/// The trace is the host's, the vector the guest's.
pub(crate) const TRACING: &str = "a trace of the host's branches is on while the PMU is lent";

/// The vCPUs that all CPUs of a machine have seen.
pub type SharedVcpus = Arc<Mutex<Vcpus>>;

/// Whose the bits of the status register are.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    guest: u64,
    /// Of a guest that is loaded.
    lent: u64,
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
    control: Mark,
    status: Status,
    lvtpc: (Mark, u32),
    branches: Branches,
    /// The guest's, while it runs and has them.
    loaded: Option<Loaded>,
    /// The code of the host's kernel that saves and loads last branch records of guests.
    branch_functions: Arc<[Range<u64>]>,
    traces: Traces,
    /// The guest that runs.
    inside: Option<Entry>,
    /// Its counters at the entry.
    before: [u64; MAX_COUNTERS],
    /// The last VM entry of a guest that has reach or is loaded.
    last: Option<Entry>,
    /// Host mode has executed at CPL > 0 since the last task switch or VM entry.
    user: bool,
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
            // What firmware has left.
            counters: [Mark::Event; MAX_COUNTERS],
            selectors: [Mark::Event; MAX_COUNTERS],
            fixed_control: Mark::Event,
            control: Mark::Unclaimed,
            status: Status {
                event: u64::MAX,
                ..Status::default()
            },
            lvtpc: (Mark::Unclaimed, lvt::MASKED),
            branches: Branches::of(Mark::Event),
            loaded: None,
            branch_functions: Arc::default(),
            traces: Traces::default(),
            inside: None,
            before: [0; MAX_COUNTERS],
            last: None,
            user: false,
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

    /// Whether there is a violation that nobody has asked for yet.
    pub fn has_finding(&self) -> bool {
        self.finding.is_some()
    }

    fn vcpus(&self) -> MutexGuard<'_, Vcpus> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, cell: Cell) -> Mark {
        match cell {
            Cell::Counter(n) => self.counters[n],
            Cell::Selector(n) => self.selectors[n],
            Cell::FixedControl => self.fixed_control,
            Cell::Control => self.control,
            Cell::Lvtpc => self.lvtpc.0,
            Cell::Lbr(register) => self.branches.mark(register),
            Cell::Pt(register) => self.traces.mark(register),
            Cell::Status => Mark::Unclaimed,
            Cell::Trace | Cell::Uncore(_) => Mark::Event,
        }
    }

    fn set_mark(&mut self, cell: Cell, mark: Mark) {
        match cell {
            Cell::Counter(n) => self.counters[n] = mark,
            Cell::Selector(n) => self.selectors[n] = mark,
            Cell::FixedControl => self.fixed_control = mark,
            Cell::Control => self.control = mark,
            Cell::Lvtpc => self.lvtpc.0 = mark,
            Cell::Lbr(register) => self.branches.set_mark(register, mark),
            Cell::Pt(register) => self.traces.set_mark(register, mark),
            Cell::Status | Cell::Trace | Cell::Uncore(_) => {}
        }
    }

    fn note(&mut self, owner: Owner, what: Operation<R>) {
        self.journal.note(self.place.rip, owner, what);
    }

    /// RDMSR or RDPMC has returned `value`.
    pub(crate) fn read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        (cell, what, value): (Option<Cell>, Operation<R>, u64),
        access: Access,
    ) {
        self.note(access.owner, what);
        match (access.owner, access.cpl) {
            (Owner::Guest(_), _) => self.counts.guest_reads += 1,
            (Owner::Host, 0) => self.counts.kernel_reads += 1,
            (Owner::Host, _) => self.counts.user_rdpmc += 1,
        }
        match cell.filter(|cell| value != 0 || matches!(cell, Cell::Pt(_))) {
            Some(Cell::Pt(register)) => self.check_trace_read(map, counters, register, access),
            Some(Cell::Lbr(register)) => self.check_branch_read(map, register, value, access),
            Some(cell) => self.check_read(map, cell, value, access),
            None => {}
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
        let cell = match cell {
            None | Some(Cell::Uncore(_)) => return,
            Some(Cell::Lbr(register)) => {
                return self.wrote_branches(map, counters, register, owner);
            }
            Some(Cell::Pt(register)) => return self.wrote_trace(map, counters, register, owner),
            Some(cell) => cell,
        };
        let now = map.value(cell, counters);
        let (was, lent) = (self.mark(cell), self.is_lent());
        match (cell, owner) {
            (Cell::Status, _) => {
                let set = now & !old;
                self.status.event &= now & !set;
                self.status.guest &= now & !set;
                self.status.lent &= now & !set;
                if owner.is_guest() {
                    self.status.guest |= set;
                } else if lent {
                    self.status.lent |= set;
                }
            }
            (_, Owner::Guest(guest)) => self.set_mark(cell, Mark::Guest(guest)),
            // KVM has emulated an instruction.
            (_, Owner::Host) if lent && was.is_guest() && old != 0 => {}
            (_, Owner::Host) if lent => self.set_mark(cell, Mark::Lent),
            (_, Owner::Host) => self.set_mark(cell, Mark::Unclaimed),
        }
        if owner.is_guest() || self.inside.is_some() {
            return;
        }
        if cell == Cell::Control && now != 0 {
            self.settle(map, counters);
        }
        self.check_stray(map, counters);
        if lent && now != old && self.is_foreign(owner) {
            self.check_write(map, cell, was, now);
        }
    }

    /// Whether PMIs go to the guest's vector: what the host writes to the PMU is the guest's.
    fn is_lent(&self) -> bool {
        let value = self.lvtpc.1;
        value & lvt::MODE == lvt::FIXED && value & lvt::VECTOR >= lvt::FIRST_VECTOR
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
        pmi: bool,
    ) {
        let bit = if wrapped { map.status_bit(n) } else { 0 };
        let selector = map.selected_by(n);
        let selected_by = self.mark(selector);
        match self.inside {
            // Also if the guest cannot read it: it is loaded.
            Some(entry) if entry.counters >> n & 1 != 0 || selected_by.is_guest() => {
                self.counters[n] = Mark::Guest(entry.guest);
                self.status.guest |= bit;
                self.status.event &= !bit;
            }
            Some(_) => {
                self.counters[n] = Mark::Event;
                self.status.event |= bit;
            }
            None => {
                self.check_count(map, counters, n);
                self.counters[n] = Mark::Event;
                self.status.event |= bit;
                if selected_by == Mark::Unclaimed {
                    self.set_mark(selector, Mark::Event);
                }
            }
        }
        if wrapped && pmi {
            self.check_pmi(map, counters, n);
        }
    }

    /// The LVTPC was written.
    pub(crate) fn lvtpc<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        value: u32,
        owner: Owner,
    ) {
        self.note(owner, Operation::Lvtpc(value));
        if value != self.lvtpc.1 {
            self.lvtpc = (Mark::Unclaimed, value);
            if self.is_lent() {
                self.lvtpc.0 = Mark::Lent;
            }
        }
        self.check_trace(map, counters, TRACING);
    }

    /// RESET or INIT. INIT leaves the registers of the PMU alone, hence also whose they are.
    pub(crate) fn reset(&mut self, reset: Reset) {
        match reset {
            Reset::Reset => {
                self.vcpus().released_lbr(self.cpu, None);
                self.vcpus().released_trace(self.cpu);
                *self = Oracle {
                    counts: self.counts,
                    branch_functions: self.branch_functions.clone(),
                    traces: self.traces.after_reset(),
                    ..Oracle::new(self.cpu, self.vcpus.clone())
                };
            }
            Reset::Init => {
                self.lvtpc = (Mark::Unclaimed, lvt::MASKED);
                self.loaded = None;
                self.inside = None;
                self.user = false;
            }
        }
    }
}
