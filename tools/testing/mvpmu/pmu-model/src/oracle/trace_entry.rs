// SPDX-License-Identifier: GPL-2.0
//! The registers of Intel PT, as a VM entry has to do with them.

use crate::intel::PtRegister;
use crate::intel::PT_RANGES;

/// IA32_RTIT_CTL: tracing is on.
pub(super) const TRACE_EN: u64 = 1 << 0;
/// Only with a certain CR3.
const CR3_FILTER: u64 = 1 << 7;
/// What the first range is for; the others follow.
const ADDR_CFG_SHIFT: usize = 32;

/// How many registers there are.
pub(super) const LEN: usize = 5 + 2 * PT_RANGES;

/// What tracing itself changes. SDM volume 3, "Intel Processor Trace": each of them says where it is.
pub(super) const MOVING: [PtRegister; 3] = [
    PtRegister::Status,
    PtRegister::OutputBase,
    PtRegister::OutputMaskPtrs,
];

/// All of them but the control.
pub(super) fn all() -> impl Iterator<Item = PtRegister> {
    let ranges = (0..PT_RANGES).flat_map(|n| [PtRegister::AddrA(n), PtRegister::AddrB(n)]);
    MOVING
        .into_iter()
        .chain([PtRegister::Cr3Match])
        .chain(ranges)
}

/// Its number.
pub(super) fn index(register: PtRegister) -> usize {
    match register {
        PtRegister::Control => 0,
        PtRegister::Status => 1,
        PtRegister::OutputBase => 2,
        PtRegister::OutputMaskPtrs => 3,
        PtRegister::Cr3Match => 4,
        PtRegister::AddrA(n) => 5 + 2 * n,
        PtRegister::AddrB(n) => 6 + 2 * n,
    }
}

/// Whether a trace with this control depends on the register.
pub(super) fn is_used(register: PtRegister, control: u64) -> bool {
    control & TRACE_EN != 0
        && match register {
            PtRegister::Control => false,
            PtRegister::Cr3Match => control & CR3_FILTER != 0,
            PtRegister::AddrA(n) | PtRegister::AddrB(n) => {
                control >> (ADDR_CFG_SHIFT + 4 * n) & 0xf != 0
            }
            _ => true,
        }
}

/// What a VM entry has to do with Intel PT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceEntry {
    /// What it loads into IA32_RTIT_CTL, if it does.
    pub control: Option<u64>,
    /// The registers that the guest can read without an exit, by their [bits](TraceEntry::bit).
    pub reads: u32,
}

impl TraceEntry {
    /// The bit of a register.
    pub fn bit(register: PtRegister) -> u32 {
        1 << index(register)
    }

    /// Whether the guest has a trace of its own, which is on.
    pub(super) fn is_on(&self) -> bool {
        self.control.is_some_and(|control| control & TRACE_EN != 0)
    }

    pub(super) fn uses(&self, register: PtRegister) -> bool {
        self.control
            .is_some_and(|control| is_used(register, control))
    }

    pub(super) fn can_read(&self, register: PtRegister) -> bool {
        self.reads & TraceEntry::bit(register) != 0
    }
}
