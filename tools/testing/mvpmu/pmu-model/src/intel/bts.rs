// SPDX-License-Identifier: GPL-2.0
//! The branch trace store: a record in memory of each branch taken.
//!
//! | rule | source |
//! |---|---|
//! | with IA32_DEBUGCTL.TR and .BTS a record is stored for each branch that is taken; .BTS_OFF_OS leaves out those at CPL 0, .BTS_OFF_USR the others | SDM volume 3, "Branch Trace Store (BTS)", "CPL-Qualified Branch Trace Mechanism" |
//! | the DS area, to which IA32_DS_AREA points: base, index, absolute maximum, interrupt threshold, of 8 bytes each with DTES64; a record of 24 bytes: from, to, flags; of these, "predicted" is the NetBurst microarchitecture's only | "Debug Store (DS) Mechanism", "DS Save Area and 64-Bit Mode Operation"; Linux, `struct debug_store`, intel_pmu_drain_bts_buffer() |
//! | without .BTINT the buffer is a ring; with it there is a PMI at the threshold, which freezes what one of a counter does | "Setting Up the BTS Buffer", "Freezing LBR and Performance Counters on PMI" |
//! | that PMI sets no bit of the status: only the index tells | Linux, intel_bts_interrupt() |
//! | with .BTINT nothing is stored behind the absolute maximum | no source says what is; Linux takes an index there for records lost, bts_update() |
//! | a branch belongs to the CPL that it comes from | no source |
//!
//! Interrupts and exceptions, which a CPU records, too, are left out. Where a page is not mapped, or a
//! field not aligned to 8 bytes, nothing is stored: it would be a fault.

use super::Intel;

/// IA32_DEBUGCTL: what there is for the trace.
mod debugctl {
    pub const TR: u64 = 1 << 6;
    pub const BTS: u64 = 1 << 7;
    pub const BTINT: u64 = 1 << 8;
    pub const BTS_OFF_OS: u64 = 1 << 9;
    pub const BTS_OFF_USR: u64 = 1 << 10;
    pub const ALL: u64 = TR | BTS | BTINT | BTS_OFF_OS | BTS_OFF_USR;
}

/// Offsets in the DS area.
mod area {
    pub const BASE: u64 = 0x00;
    pub const INDEX: u64 = 0x08;
    pub const MAXIMUM: u64 = 0x10;
    pub const THRESHOLD: u64 = 0x18;
}

/// A record.
const RECORD: u64 = 24;

/// Memory by linear addresses that are multiples of 8; `None` where nothing is mapped.
pub trait Memory {
    /// Reads.
    fn read(&mut self, linear: u64) -> Option<u64>;
    /// Writes.
    fn write(&mut self, linear: u64, value: u64) -> Option<()>;
}

/// A branch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Of the instruction.
    pub from: u64,
    /// Where it goes on.
    pub to: u64,
    /// The privilege level it was executed at is not 0.
    pub user: bool,
}

impl Intel {
    /// The bits of IA32_DEBUGCTL that there are besides [`DEBUGCTL_DEFINED`](Intel::DEBUGCTL_DEFINED).
    pub fn debugctl_of_trace(&self) -> u64 {
        if self.config.bts {
            debugctl::ALL
        } else {
            0
        }
    }

    /// IA32_DS_AREA, if it exists.
    pub fn ds_area(&self) -> Option<u64> {
        self.config.bts.then_some(self.ds_area)
    }

    /// Writes IA32_DS_AREA.
    pub fn set_ds_area(&mut self, linear: u64) {
        self.ds_area = linear;
    }

    /// Whether branches are stored.
    pub fn stores_branches(&self) -> bool {
        const ON: u64 = debugctl::TR | debugctl::BTS;
        self.debugctl & ON == ON
    }

    /// Stores a branch, if it is to be. True when a PMI is due.
    pub fn branched(&self, branch: Branch, memory: &mut impl Memory) -> bool {
        let off = match branch.user {
            false => debugctl::BTS_OFF_OS,
            true => debugctl::BTS_OFF_USR,
        };
        self.stores_branches()
            && self.debugctl & off == 0
            && self.store(branch, memory).unwrap_or(false)
    }

    fn store(&self, branch: Branch, memory: &mut impl Memory) -> Option<bool> {
        let mut field = |offset| memory.read(self.ds_area.wrapping_add(offset));
        let (base, mut index) = (field(area::BASE)?, field(area::INDEX)?);
        let (maximum, threshold) = (field(area::MAXIMUM)?, field(area::THRESHOLD)?);
        let is_ring = self.debugctl & debugctl::BTINT == 0;
        if index >= maximum {
            if !is_ring {
                return Some(false);
            }
            index = base;
        }
        for (offset, value) in [(0, branch.from), (8, branch.to), (16, 0)] {
            memory.write(index.wrapping_add(offset), value)?;
        }
        let next = index.wrapping_add(RECORD);
        memory.write(self.ds_area.wrapping_add(area::INDEX), next)?;
        // Once: when it comes there.
        Some(!is_ring && index < threshold && next >= threshold)
    }
}
