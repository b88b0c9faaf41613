// SPDX-License-Identifier: GPL-2.0
//! What the oracle is told of a VM entry.

use super::TraceEntry;

/// A VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the VMCB or VMCS.
    pub guest: u64,
    /// Physical address of the page table of the process that runs it.
    pub process: u64,
    /// It was never entered before: what was known of that address is of another one.
    pub fresh: bool,
    /// It is in real mode: INIT may have come, which clears its PMU.
    pub initial: bool,
    /// The stack pointer of the host.
    pub stack: u64,
    /// The counters that the guest can read or write without an exit, a bit for each.
    pub counters: u64,
    /// Whether it can do so with the status register.
    pub status: bool,
    /// Whether it can execute RDPMC without an exit.
    pub rdpmc: bool,
    /// The registers of the last branch records that it can read without an exit and that the entry
    /// does not load, and those that branches of the guest are recorded into: the
    /// [bit](super::BranchRegister::bit) of each.
    pub branches: u128,
    /// What it has to do with Intel PT.
    pub trace: TraceEntry,
}

impl Entry {
    /// Whether the guest can read or write a counter or the status without an exit.
    pub(super) fn has_reach(&self) -> bool {
        self.counters != 0 || self.status
    }
}
