// SPDX-License-Identifier: GPL-2.0

//! The PMUs, as far as a guest has them.

use crate::Op;
use crate::Program;

/// Bits of an event selector.
pub const USR: u64 = 1 << 16;
pub const OS: u64 = 1 << 17;
pub const INT: u64 = 1 << 20;
pub const EN: u64 = 1 << 22;

/// The registers of a PMU, and what a program may do to them.
#[derive(Debug)]
pub struct Pmu {
    /// Event selectors.
    pub selectors: &'static [u32],
    /// What each counter is read by, and the registers to write it by: fixed ones last.
    pub counters: &'static [Counter],
    /// FIXED_CTR_CTRL.
    pub fixed_control: Option<u32>,
    /// PerfCntrGlobalCtl, PERF_GLOBAL_CTRL.
    pub global_control: u32,
    /// PerfCntrGlobalStatus, PERF_GLOBAL_STATUS.
    pub global_status: u32,
    /// PerfCntrGlobalStatusClr, PERF_GLOBAL_OVF_CTRL.
    pub status_clear: u32,
    /// PerfCntrGlobalStatusSet; Intel's is not for guests.
    pub status_set: Option<u32>,
    /// Selects instructions.
    pub instructions: u64,
    /// Selects branches.
    pub branches: u64,
    /// Bits of a selector that are not defined: dropped, or #GP.
    pub reserved: &'static [u32],
    /// Counters that are not there.
    pub missing: &'static [u32],
    /// Registers of the CPU that KVM emulates.
    pub emulated: &'static [u32],
}

/// A counter.
#[derive(Debug)]
pub struct Counter {
    /// Its RDPMC index.
    pub index: u32,
    /// Its registers.
    pub msrs: &'static [u32],
    /// Its bit in the global registers.
    pub bit: u32,
}

const fn amd(n: u32) -> Counter {
    const MSRS: [[u32; 1]; 6] = [
        [0xc001_0201],
        [0xc001_0203],
        [0xc001_0205],
        [0xc001_0207],
        [0xc001_0209],
        [0xc001_020b],
    ];
    Counter {
        index: n,
        msrs: &MSRS[n as usize],
        bit: n,
    }
}

const fn intel(n: u32) -> Counter {
    // The second takes 32 bits and extends their sign.
    const MSRS: [[u32; 2]; 8] = [
        [0x4c1, 0xc1],
        [0x4c2, 0xc2],
        [0x4c3, 0xc3],
        [0x4c4, 0xc4],
        [0x4c5, 0xc5],
        [0x4c6, 0xc6],
        [0x4c7, 0xc7],
        [0x4c8, 0xc8],
    ];
    Counter {
        index: n,
        msrs: &MSRS[n as usize],
        bit: n,
    }
}

const fn fixed(n: u32) -> Counter {
    const MSRS: [[u32; 1]; 3] = [[0x309], [0x30a], [0x30b]];
    Counter {
        index: 1 << 30 | n,
        msrs: &MSRS[n as usize],
        bit: 32 + n,
    }
}

impl Pmu {
    /// PerfMonV2 with six counters.
    pub const AMD: Pmu = Pmu {
        selectors: &[
            0xc001_0200,
            0xc001_0202,
            0xc001_0204,
            0xc001_0206,
            0xc001_0208,
            0xc001_020a,
        ],
        counters: &[amd(0), amd(1), amd(2), amd(3), amd(4), amd(5)],
        fixed_control: None,
        global_control: 0xc000_0301,
        global_status: 0xc000_0300,
        status_clear: 0xc000_0302,
        status_set: Some(0xc000_0303),
        instructions: 0xc0,
        branches: 0xc2,
        // Not 40 and 41, GuestOnly and HostOnly: the machine has them, KVM's guests do not.
        reserved: &[19, 21, 36, 39, 42, 63],
        // Not 6 to 15, counters of the data fabric and the L3: where KVM does not intercept RDPMC
        // a guest can read them, else it gets #GP.
        missing: &[16, 17, 1 << 30, u32::MAX],
        emulated: &[0x1b, 0xfe],
    };

    /// The architectural PMU with eight general purpose and three fixed counters.
    pub const INTEL: Pmu = Pmu {
        selectors: &[0x186, 0x187, 0x188, 0x189, 0x18a, 0x18b, 0x18c, 0x18d],
        counters: &[
            intel(0),
            intel(1),
            intel(2),
            intel(3),
            intel(4),
            intel(5),
            intel(6),
            intel(7),
            fixed(0),
            fixed(1),
            fixed(2),
        ],
        fixed_control: Some(0x38d),
        global_control: 0x38f,
        global_status: 0x38e,
        status_clear: 0x390,
        status_set: None,
        instructions: 0xc0,
        branches: 0xc4,
        // Not 21, which is AnyThread up to version 4: the machine has it, KVM's guests do not.
        reserved: &[32, 63],
        missing: &[8, 1 << 30 | 4, u32::MAX],
        emulated: &[0x1b, 0xfe],
    };

    /// A selector that counts instructions in CPL 0.
    pub fn counts_instructions(&self) -> u64 {
        self.instructions | OS | EN
    }

    /// What has to come before a program: everything off and 0.
    pub fn reset(&self) -> Program {
        let mut ops = vec![Op::Wrmsr(self.global_control, 0)];
        ops.extend(self.selectors.iter().map(|&msr| Op::Wrmsr(msr, 0)));
        ops.extend(self.fixed_control.map(|msr| Op::Wrmsr(msr, 0)));
        ops.extend(self.counters.iter().map(|c| Op::Wrmsr(c.msrs[0], 0)));
        ops.push(Op::Wrmsr(self.status_clear, self.counter_bits()));
        ops
    }

    /// The bits of all counters in the global registers.
    pub fn counter_bits(&self) -> u64 {
        self.counters.iter().fold(0, |bits, c| bits | 1 << c.bit)
    }
}
