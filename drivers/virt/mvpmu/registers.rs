// SPDX-License-Identifier: GPL-2.0

//! Access to the PMU's registers, so that a test can take the place of the hardware.

use kernel::{
    perf::guest::GuestLbrs,
    x86::{
        msr::{
            Readable,
            Writable, //
        },
        pmu::{
            Counter,
            PerfMetrics,
            Register,
            Registers, //
        },
    },
};

/// The PMU's registers on one CPU.
pub(crate) trait RegisterFile {
    /// RDMSR.
    fn read<A: Readable>(&mut self, register: Register<A>) -> u64;

    /// WRMSR.
    fn write<A: Writable>(&mut self, register: Register<A>, value: u64);

    /// RDPMC.
    fn read_counter(&mut self, counter: Counter) -> u64;

    /// RDPMC of `PERF_METRICS`.
    fn read_metrics(&mut self, metrics: PerfMetrics) -> u64;

    /// Has last branch records in the registers, which may be there already.
    fn load_lbrs(&mut self, lbrs: GuestLbrs<'_>);
}

/// How often registers were accessed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Accesses {
    /// RDMSR and RDPMC.
    pub(crate) reads: u32,
    /// WRMSR.
    pub(crate) writes: u32,
}

/// The registers of the local CPU, which perf has lent; counts the operations.
pub(crate) struct Hardware<'a> {
    registers: Registers<'a>,
    accesses: &'a mut Accesses,
}

impl<'a> Hardware<'a> {
    /// Wraps them. `accesses` goes up.
    #[inline(always)]
    pub(crate) fn new(registers: Registers<'a>, accesses: &'a mut Accesses) -> Self {
        Self {
            registers,
            accesses,
        }
    }
}

impl RegisterFile for Hardware<'_> {
    #[inline(always)]
    fn read<A: Readable>(&mut self, register: Register<A>) -> u64 {
        self.accesses.reads = self.accesses.reads.wrapping_add(1);
        self.registers.read(register)
    }

    #[inline(always)]
    fn write<A: Writable>(&mut self, register: Register<A>, value: u64) {
        self.accesses.writes = self.accesses.writes.wrapping_add(1);
        self.registers.write(register, value);
    }

    #[inline(always)]
    fn read_counter(&mut self, counter: Counter) -> u64 {
        self.accesses.reads = self.accesses.reads.wrapping_add(1);
        self.registers.read_counter(counter)
    }

    #[inline(always)]
    fn read_metrics(&mut self, metrics: PerfMetrics) -> u64 {
        self.accesses.reads = self.accesses.reads.wrapping_add(1);
        self.registers.read_metrics(metrics)
    }

    #[inline(always)]
    fn load_lbrs(&mut self, mut lbrs: GuestLbrs<'_>) {
        let written = lbrs.load(&mut self.registers);

        self.accesses.writes = self.accesses.writes.wrapping_add(written);
    }
}
