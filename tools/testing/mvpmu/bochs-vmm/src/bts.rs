// SPDX-License-Identifier: GPL-2.0

//! The branch trace store, whose rules the model has: what branches, and memory.

use pmu_model::intel::Branch;
use pmu_model::intel::Memory;

use crate::core;
use crate::gather;
use crate::memory;
use crate::oracle;
use crate::pmu;
use crate::watch;

/// Whether branches are stored from now on.
pub fn turn(on: bool) {
    watch::set(watch::by::BTS, on);
}

/// Memory of the CPU as it is, by linear addresses: the page table of whoever runs.
struct Linear;

impl Linear {
    /// The physical address of eight bytes, which then are in one page.
    fn physical(linear: u64) -> Option<u64> {
        let (mut physical, mut mask) = (0, 0);
        let is_mapped =
            linear.is_multiple_of(8) && core::xlate(linear, &mut physical, &mut mask, false, false);
        is_mapped.then_some(physical)
    }
}

impl Memory for Linear {
    fn read(&mut self, linear: u64) -> Option<u64> {
        memory::word(Linear::physical(linear)?)
    }

    fn write(&mut self, linear: u64, value: u64) -> Option<()> {
        memory::set_word(Linear::physical(linear)?, value)
    }
}

/// The current instruction branches.
pub fn branch(from: u64, to: u64) {
    if watch::get() & watch::by::BTS == 0 {
        return;
    }
    let user = gather::is_user();
    let branch = Branch { from, to, user };
    let due = pmu::with(|pmu| pmu.map().branched(branch, &mut Linear));
    if due == Some(true) {
        pmu::trace_pmi();
        oracle::follow();
    }
}
