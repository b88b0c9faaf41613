// SPDX-License-Identifier: GPL-2.0

//! Access to the PMU's registers, so that a test can take the place of the hardware.

use kernel::x86::{
    msr::{
        Msr,
        Readable,
        Writable, //
    },
    pmu::{
        self,
        Counter, //
    },
};

/// The PMU's registers on one CPU.
pub(crate) trait RegisterFile {
    /// RDMSR.
    fn read<A: Readable>(&mut self, msr: Msr<A>) -> u64;

    /// WRMSR.
    fn write<A: Writable>(&mut self, msr: Msr<A>, value: u64);

    /// RDPMC.
    fn read_counter(&mut self, counter: Counter) -> u64;
}

/// The registers of the local CPU; counts the operations.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hardware {
    /// RDMSR and RDPMC.
    pub(crate) reads: u32,
    /// WRMSR.
    pub(crate) writes: u32,
}

impl RegisterFile for Hardware {
    #[inline(always)]
    fn read<A: Readable>(&mut self, msr: Msr<A>) -> u64 {
        self.reads = self.reads.wrapping_add(1);
        msr.read()
    }

    #[inline(always)]
    fn write<A: Writable>(&mut self, msr: Msr<A>, value: u64) {
        self.writes = self.writes.wrapping_add(1);
        msr.write(value);
    }

    #[inline(always)]
    fn read_counter(&mut self, counter: Counter) -> u64 {
        self.reads = self.reads.wrapping_add(1);
        pmu::rdpmc(counter)
    }
}
