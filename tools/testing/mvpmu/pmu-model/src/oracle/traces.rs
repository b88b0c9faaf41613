// SPDX-License-Identifier: GPL-2.0
//! Intel PT: whose each register is, and whose trace it is that the CPU writes.
//!
//! VM entry and exit move IA32_RTIT_CTL only. The other registers are moved by perf's driver, or stay: those of a
//! guest that traces are in hardware only from its exit until somebody reads them.
//!
//! # Whose a register is
//!
//! * What a [function](TraceFunctions) of perf that loads a guest's registers writes is that of the next guest that
//!   is entered and traces. All else that the host writes is its own. 0 is nobody's, as everywhere.
//! * IA32_RTIT_CTL is the guest's from a VM entry that loads it until the host writes it, also if VM exit does not
//!   clear it. In a guest whose entry loads none it is still the host's, which traces its guests then.
//! * What the CPU changes while it traces is the trace's: IA32_RTIT_STATUS, and where the output is.
//!
//! # What is checked, and where
//!
//! | | where | what must not be |
//! |---|---|---|
//! | I1 | VM entry that loads IA32_RTIT_CTL | TraceEn is set before it: it fails |
//! | I1 | bytes are written in host mode | for a guest: the control is one's |
//! | I2 | bytes are written for a guest | to host-physical addresses: they do not go through EPT |
//! | I2 | RDMSR at CPL 0 | a guest's register, if the code is not KVM's or mvpmu's or such a function of perf |
//! | I3 | VM entry | what the guest can read or traces with: anything of the host's or of another vCPU |
//! | I3 | RDMSR of the guest | the same |
//! | I4 | VM entry of a guest that traces | other values than the vCPU was left with; its values are in another CPU |
//! | I4 | WRMSR of the host | what a guest was left with, and nobody has read |
//! | I5 | WRMSR of IA32_RTIT_CTL that sets TraceEn in host mode | what the trace depends on is a guest's |
//!
//! A vCPU comes back with what it had at its last exit while it traced, or what it has had KVM write since. KVM sets
//! Error in IA32_RTIT_STATUS when the output is no memory. Once its thread has been in user mode, KVM_SET_MSRS may have
//! been there; but what nobody has read cannot come from there, wherever the thread was.
//!
//! perf does not write what a register holds already. So a value that the host had there last passes for its own.
//!
//! # What it does not see
//!
//! * Which these functions of perf are, if the kernel has no symbols: then nothing of PT is looked at.
//! * Whose the memory is behind EPT: it is what the guest can write by itself.
//! * What a guest has been given before it traces, if KVM or user space has lost it.

use std::ops::Range;
use std::sync::Arc;

use crate::intel::PtRegister;
use crate::Counters;
use crate::Owner;

use super::trace_entry::all;
use super::trace_entry::index;
use super::trace_entry::is_used;
use super::trace_entry::LEN;
use super::trace_entry::MOVING;
use super::Access;
use super::Cell;
use super::Entry;
use super::Invariant;
use super::Mark;
use super::Oracle;
use super::Watched;
use super::UNEXPLAINED;

/// VM entry fails then.
const TRACES: &str = "a VM entry that loads IA32_RTIT_CTL finds TraceEn set, and fails";
/// By one that is not the guest's.
const HOST_TRACED: &str = "what the host executes is traced for a guest";
/// Not through EPT.
const UNTRANSLATED: &str = "the trace of a guest goes to addresses of the host";
const READ_BY_HOST: &str = "code of the host that is not KVM's reads a register of a guest's trace";
const READ_BY_GUEST: &str = "the guest reads a register of a trace that is not its own";
const READABLE: &str = "the guest is entered and can read a register of a trace";
const TRACED_WITH: &str = "the guest is entered and traces with a register that is not its own";
/// The values are in another CPU.
const ELSEWHERE: &str = "the guest is entered without its trace's registers, which another CPU has";
/// They are nowhere else.
const LOST: &str = "the host writes to a register of a guest's trace that nobody has read";
const BEGINS_WITH: &str = "a trace of the host begins with a register of a guest";

/// The code of the host's kernel that has to do with traces of guests.
#[derive(Clone, Debug, Default)]
pub struct TraceFunctions {
    /// What loads the registers.
    pub load: Arc<[Range<u64>]>,
    /// What may read them.
    pub save: Arc<[Range<u64>]>,
}

impl TraceFunctions {
    fn are_known(&self) -> bool {
        !self.load.is_empty()
    }
}

fn has(code: &[Range<u64>], rip: u64) -> bool {
    code.iter().any(|code| code.contains(&rip))
}

/// Whose each register is.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    marks: [Mark; LEN],
    /// What the host had there last.
    host: [u64; LEN],
    /// A guest was left with these registers, a bit for each, and nobody has read them since.
    unread: Option<(u64, u32)>,
    functions: TraceFunctions,
}

impl Default for Traces {
    fn default() -> Self {
        Traces {
            marks: [Mark::Event; LEN],
            host: [0; LEN],
            unread: None,
            functions: TraceFunctions::default(),
        }
    }
}

impl Traces {
    pub fn mark(&self, register: PtRegister) -> Mark {
        self.marks[index(register)]
    }

    pub fn set_mark(&mut self, register: PtRegister, mark: Mark) {
        self.marks[index(register)] = mark;
    }

    pub fn after_reset(&self) -> Traces {
        Traces {
            functions: self.functions.clone(),
            ..Traces::default()
        }
    }

    fn is_unread(&self, register: PtRegister) -> bool {
        self.unread
            .is_some_and(|(_, bits)| bits >> index(register) & 1 != 0)
    }
}

impl<R: Copy + std::fmt::Debug> Oracle<R> {
    /// The same, where the host's kernel has these functions for traces of guests.
    pub fn with_trace_functions(mut self, functions: TraceFunctions) -> Self {
        self.traces.functions = functions;
        self
    }

    fn follows_traces(&self) -> bool {
        self.traces.functions.are_known()
    }

    fn report_trace<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        (invariant, when): (Invariant, &'static str),
        register: PtRegister,
        value: u64,
    ) {
        let mark = self.traces.mark(register);
        self.report(map, invariant, when, Cell::Pt(register), mark, value);
    }

    /// WRMSR has changed the register. I4: what was there is in memory, too. I5: what a trace of the host depends on
    /// is the host's.
    pub(super) fn wrote_trace<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        register: PtRegister,
        owner: Owner,
    ) {
        if !self.follows_traces() {
            return;
        }
        let value = map.value(Cell::Pt(register), counters);
        if owner == Owner::Host && self.traces.is_unread(register) {
            self.report_trace(map, (Invariant::Exact, LOST), register, value);
            self.traces.unread = None;
        }
        let loads = self.inside.is_none() && has(&self.traces.functions.load, self.place.rip);
        let mark = match owner {
            Owner::Guest(guest) => Mark::Guest(guest),
            Owner::Host if loads && register != PtRegister::Control => Mark::Lent,
            Owner::Host => {
                self.traces.host[index(register)] = value;
                Mark::Event
            }
        };
        self.traces.set_mark(register, mark);
        if register == PtRegister::Control && owner == Owner::Host && self.inside.is_none() {
            self.check_begin(map, counters, value);
        }
    }

    fn check_begin<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        control: u64,
    ) {
        let foreign = all()
            .filter(|register| is_used(*register, control))
            .map(|register| (register, map.value(Cell::Pt(register), counters)))
            .find(|(register, value)| {
                let was = self.traces.host[index(*register)];
                *value != 0 && *value != was && self.traces.mark(*register).is_guest()
            });
        if let Some((register, value)) = foreign {
            self.report_trace(map, (Invariant::HostExact, BEGINS_WITH), register, value);
        }
    }

    /// I2, I3: what is read is the reader's, or the reader is KVM or moves it.
    pub(super) fn check_trace_read<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        register: PtRegister,
        access: Access,
    ) {
        if !self.follows_traces() {
            return;
        }
        let value = map.value(Cell::Pt(register), counters);
        let mark = self.traces.mark(register);
        match access.owner {
            Owner::Host => {
                let saves = has(&self.traces.functions.save, self.place.rip);
                let foreign = self.is_foreign(access.owner) && !saves;
                let secret = register != PtRegister::Control && mark.is_guest() && value != 0;
                if foreign && secret {
                    self.report_trace(map, (Invariant::LeakOut, READ_BY_HOST), register, value);
                }
                self.has_read(register);
            }
            Owner::Guest(guest) => {
                if value != 0 && !self.may_read(guest, mark) {
                    self.report_trace(map, (Invariant::LeakIn, READ_BY_GUEST), register, value);
                }
            }
        }
    }

    /// The host has it in memory now.
    fn has_read(&mut self, register: PtRegister) {
        if let Some((guest, bits)) = self.traces.unread {
            let left = bits & !(1 << index(register));
            self.traces.unread = Some((guest, left)).filter(|(_, bits)| *bits != 0);
            if left == 0 {
                self.is_released(guest);
            }
        }
    }

    fn is_released(&mut self, guest: u64) {
        let cpu = self.cpu;
        if let Some(Some(left)) = self.vcpus().trace_of(guest) {
            left.released(cpu);
        }
    }

    /// A VM entry fails because TraceEn is set. I1: it never is.
    pub(crate) fn entry_failed<M: Watched<Register = R>>(&mut self, map: &M, counters: &Counters) {
        if self.follows_traces() {
            let register = PtRegister::Control;
            let value = map.value(Cell::Pt(register), counters);
            self.report_trace(map, (Invariant::Stray, TRACES), register, value);
        }
    }

    /// VM entry; the control is not loaded yet. I3: what the guest can read and uses is its own. I4: it is what the
    /// vCPU was left with.
    pub(super) fn enter_trace<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        continuous: bool,
    ) {
        if !self.follows_traces() {
            return;
        }
        let guest = Mark::Guest(entry.guest);
        let value = |register| map.value(Cell::Pt(register), counters);
        let uses = |register: &PtRegister| entry.trace.uses(*register);
        for register in all().filter(uses) {
            if self.traces.mark(register) == Mark::Lent {
                self.traces.set_mark(register, guest);
            }
        }
        let foreign = all()
            .filter(|register| entry.trace.uses(*register) || entry.trace.can_read(*register))
            .find(|register| {
                value(*register) != 0 && !self.may_read(entry.guest, self.traces.mark(*register))
            });
        if let Some(register) = foreign {
            let when = match entry.trace.can_read(register) {
                true => READABLE,
                false => TRACED_WITH,
            };
            self.report_trace(map, (Invariant::LeakIn, when), register, value(register));
        }
        self.check_left_trace(map, counters, entry, continuous);
        if entry.trace.control.is_some() {
            self.traces.set_mark(PtRegister::Control, guest);
        }
    }

    /// I4: the guest has what it was left with.
    fn check_left_trace<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: Entry,
        continuous: bool,
    ) {
        let value = |register| map.value(Cell::Pt(register), counters);
        let mut vcpus = self.vcpus();
        let Some(Some(left)) = vcpus.trace_of(entry.guest) else {
            return;
        };
        left.enters(continuous);
        if !entry.trace.is_on() {
            return;
        }
        let mut used = all().filter(|register| entry.trace.uses(*register));
        let differs = used.find(|register| !left.explains(*register, value(*register)));
        let elsewhere = left.cpu().filter(|cpu| *cpu != self.cpu);
        drop(vcpus);
        if elsewhere.is_some() {
            let register = PtRegister::OutputMaskPtrs;
            self.report_trace(
                map,
                (Invariant::Exact, ELSEWHERE),
                register,
                value(register),
            );
        }
        if let Some(register) = differs {
            self.report_trace(
                map,
                (Invariant::Exact, UNEXPLAINED),
                register,
                value(register),
            );
        }
    }

    /// VM exit: what the guest is left with, if it has traced.
    pub(super) fn exit_trace<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        entry: &Entry,
    ) {
        let value = |register| map.value(Cell::Pt(register), counters);
        if !self.follows_traces() {
            return;
        }
        if !entry.trace.is_on() {
            return;
        }
        let cpu = self.cpu;
        let mut vcpus = self.vcpus();
        let left = vcpus.trace_of_entry(entry).get_or_insert_default();
        left.left(entry, cpu, value);
        drop(vcpus);
        let bits = MOVING.iter().map(|register| 1 << index(*register)).sum();
        self.traces.unread = Some((entry.guest, bits));
    }

    /// The CPU has traced, and has `written` bytes, which were translated by EPT or not.
    pub(crate) fn traced<M: Watched<Register = R>>(
        &mut self,
        map: &M,
        counters: &Counters,
        written: bool,
        translated: bool,
    ) {
        if !self.follows_traces() {
            return;
        }
        let value = |register| map.value(Cell::Pt(register), counters);
        let control = self.traces.mark(PtRegister::Control);
        for register in MOVING {
            self.traces.set_mark(register, control);
            if !control.is_guest() {
                self.traces.host[index(register)] = value(register);
            }
        }
        if written && control.is_guest() {
            let what = match (self.inside, translated) {
                (None, _) => (Invariant::Stray, HOST_TRACED),
                (_, false) => (Invariant::LeakOut, UNTRANSLATED),
                _ => return,
            };
            let base = PtRegister::OutputBase;
            self.report_trace(map, what, base, value(base));
        }
    }
}
