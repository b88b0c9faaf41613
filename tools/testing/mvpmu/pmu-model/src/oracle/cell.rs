// SPDX-License-Identifier: GPL-2.0
//! What has an owner, and who that can be.

use crate::intel::PtRegister;
use crate::Counters;
use crate::RegisterMap;

use super::BranchRegister;

/// Something that holds a value of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A counter.
    Counter(usize),
    /// The event selector of a general purpose counter.
    Selector(usize),
    /// The control register of the fixed counters.
    FixedControl,
    /// The register that enables counters.
    Control,
    /// The register of overflow bits, each of which has its own owner.
    Status,
    /// The local APIC's entry for PMIs.
    Lvtpc,
    /// What has the CPU write a trace of branches to memory.
    Trace,
    /// A counter that several CPUs share, which RDPMC reads.
    Uncore(usize),
    /// A register of the last branch records.
    Lbr(BranchRegister),
    /// A register of Intel PT.
    Pt(PtRegister),
}

/// Whose value a [`Cell`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The host has written it, nobody has claimed it.
    Unclaimed,
    /// An event of the host's.
    Event,
    /// A guest's that is loaded: the host has written it while PMIs go to the guest's vector.
    Lent,
    /// The guest's with this VMCB or VMCS.
    Guest(u64),
}

impl Mark {
    /// Whether a guest owns it.
    pub fn is_guest(self) -> bool {
        matches!(self, Mark::Lent | Mark::Guest(_))
    }
}

/// What the oracle needs to know of a vendor's registers.
pub trait Watched: RegisterMap {
    /// What reading or writing `register` is about, if anybody can own that.
    fn cell(&self, register: Self::Register) -> Option<Cell>;

    /// The value of a cell. (The LVTPC is not a register of the PMU.)
    fn value(&self, cell: Cell, counters: &Counters) -> u64;

    /// What RDPMC with `index` in ECX reads.
    fn rdpmc_cell(&self, index: u32) -> Option<Cell>;

    /// How many counters RDPMC reads that several CPUs share.
    fn uncore_counters(&self) -> usize {
        0
    }

    /// What selects the event of counter `n`.
    fn selected_by(&self, n: usize) -> Cell;

    /// Whether something is selected for counter `n`.
    fn is_selected(&self, n: usize) -> bool;

    /// Whether the selector of counter `n` lets it count in guest mode only.
    fn is_guest_only(&self, n: usize) -> bool;

    /// The same, but it lets it count nothing any more.
    fn is_stopped_guest_only(&self, _n: usize) -> bool {
        false
    }

    /// Whether the CPU writes a trace of branches to memory. Only the host has one.
    fn is_tracing(&self) -> bool {
        false
    }

    /// Whether last branch records are in hardware only: VM entry and exit leave them where they are.
    fn keeps_branches(&self) -> bool {
        false
    }

    /// Whether VM entry and exit load the register that enables counters.
    fn is_control_switched(&self) -> bool;

    /// The overflow bit of counter `n`.
    fn status_bit(&self, n: usize) -> u64;

    /// The vendor's name of a cell.
    fn name(&self, cell: Cell) -> String;
}
