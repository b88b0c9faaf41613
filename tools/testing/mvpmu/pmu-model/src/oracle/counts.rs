// SPDX-License-Identifier: GPL-2.0
//! How much the oracle has seen.

use serde::Serialize;

/// What the oracle has seen and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// RDPMC in host mode at CPL > 0.
    pub user_rdpmc: u64,
    /// RDMSR and RDPMC in host mode at CPL 0.
    pub kernel_reads: u64,
    /// RDMSR and RDPMC in guest mode.
    pub guest_reads: u64,
    /// VM entries of a guest that has some of the PMU within its reach.
    pub mediated_entries: u64,
    /// Task switches.
    pub switches: u64,
    /// Violations.
    pub violations: u64,
}
