// SPDX-License-Identifier: GPL-2.0

//! The branch trace store, whose rules the model has: what branches, and memory.

use pmu_model::intel::Branch;
use pmu_model::intel::Memory;

use crate::core;
use crate::gather;
use crate::memory;
use crate::oracle;
use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;
use crate::pmu;

/// IA32_DEBUGCTL says so. Looked at for each branch.
static ON: CpuCell<bool> = CpuCell::new(false);

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 1] = [&ON];

/// Whether branches are stored from now on.
pub fn turn(on: bool) {
    ON.set(on);
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
#[inline(always)]
pub fn branch(from: u64, to: u64) {
    if ON.get() {
        store(from, to);
    }
}

#[cold]
fn store(from: u64, to: u64) {
    let user = gather::is_user();
    let branch = Branch { from, to, user };
    let due = pmu::with(|pmu| pmu.map().branched(branch, &mut Linear));
    if due == Some(true) {
        pmu::trace_pmi();
        oracle::follow();
    }
}
