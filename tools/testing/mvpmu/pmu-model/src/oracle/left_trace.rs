// SPDX-License-Identifier: GPL-2.0
//! The registers of a trace of Intel PT as a vCPU was left with them.

use crate::intel::PtRegister;

use super::trace_entry::all;
use super::trace_entry::index;
use super::trace_entry::LEN;
use super::vcpus::Vcpus;
use super::Entry;

/// IA32_RTIT_STATUS: the output was no memory.
const STATUS_ERROR: u64 = 1 << 4;
/// What is remembered of writes by a guest that does not trace.
const ASKED_MAX: usize = 64;

/// What a vCPU was left with.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftTrace {
    /// As far as it was used.
    values: [Option<u64>; LEN],
    /// What the guest has asked KVM to write since.
    asked: Vec<(usize, u64)>,
    /// Nobody has read them: they are in this CPU.
    cpu: Option<u32>,
    /// User space may have written others.
    changed: bool,
}

impl LeftTrace {
    /// The vCPU is entered, by a thread that has not been in user mode, or has.
    pub fn enters(&mut self, continuous: bool) {
        self.changed |= !continuous;
    }

    /// The vCPU has traced and left; each register holds this `value`.
    pub fn left(&mut self, entry: &Entry, cpu: u32, value: impl Fn(PtRegister) -> u64) {
        if std::mem::take(&mut self.changed) {
            self.values = [None; LEN];
        }
        let is_used = |n: usize| all().any(|r| index(r) == n && entry.trace.uses(r));
        self.asked.retain(|(n, _)| !is_used(*n));
        self.cpu = Some(cpu);
        for register in all().filter(|register| entry.trace.uses(*register)) {
            self.values[index(register)] = Some(value(register));
        }
    }

    /// The CPU that has them alone.
    pub fn cpu(&self) -> Option<u32> {
        self.cpu
    }

    /// They are not in this CPU alone.
    pub fn released(&mut self, cpu: u32) {
        self.cpu = self.cpu.filter(|of| *of != cpu);
    }

    /// Whether it may have this value now.
    pub fn explains(&self, register: PtRegister, value: u64) -> bool {
        let n = index(register);
        let may_set = match register {
            PtRegister::Status => STATUS_ERROR,
            _ => 0,
        };
        let is = |was: u64| was | (value & may_set) == value;
        let asked = || (self.asked.iter()).any(|(of, asked)| *of == n && is(*asked));
        self.changed || self.values[n].is_none_or(is) || asked()
    }
}

impl Vcpus {
    /// The guest has left for KVM to write a register of PT.
    pub(super) fn asks_trace(&mut self, guest: u64, register: PtRegister, value: u64) {
        let Some(trace) = self.trace_of(guest) else {
            return;
        };
        let left = trace.get_or_insert_default();
        if left.asked.len() >= ASKED_MAX {
            left.asked.clear();
            left.changed = true;
        }
        let value = match register {
            // These bits are always set.
            PtRegister::OutputMaskPtrs => value & !0x7f,
            _ => value,
        };
        left.asked.push((index(register), value));
    }
}
