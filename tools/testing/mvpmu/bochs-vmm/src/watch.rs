// SPDX-License-Identifier: GPL-2.0

//! Who wants to be told of each instruction, or each branch: a bit for each of them, in one word, so that those who
//! do not cost nothing.

use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;

/// The bits.
pub mod by {
    /// A sweep.
    pub const SWEEP: u32 = 1 << 0;
    /// A listing.
    pub const LISTING: u32 = 1 << 1;
    /// A PMI that is under way.
    pub const PMI: u32 = 1 << 2;
    /// The oracle.
    pub const ORACLE: u32 = 1 << 3;
    /// A counter that runs.
    pub const COUNTER: u32 = 1 << 4;
    /// The list of what is executed while TraceEn is set.
    pub const FLOW: u32 = 1 << 5;
    /// The branch trace store.
    pub const BTS: u32 = 1 << 6;
    /// Last branch records.
    pub const LBR: u32 = 1 << 7;
    /// Intel PT.
    pub const PT: u32 = 1 << 8;
}

static WATCHED: CpuCell<u32> = CpuCell::new(0);

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 1] = [&WATCHED];

const fn with(watched: u32, who: u32, wants: bool) -> u32 {
    match wants {
        true => watched | who,
        false => watched & !who,
    }
}

/// On the CPU whose turn it is.
pub fn set(who: u32, wants: bool) {
    WATCHED.set(with(WATCHED.get(), who, wants));
}

/// On all of them.
pub fn set_on_all(who: u32, wants: bool) {
    WATCHED.change_all(|watched| with(watched, who, wants));
}

/// Who does, on the CPU whose turn it is.
#[inline(always)]
pub fn get() -> u32 {
    WATCHED.get()
}
