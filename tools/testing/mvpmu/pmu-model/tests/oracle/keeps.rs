// SPDX-License-Identifier: GPL-2.0
//! A CPU whose last branch records stay in hardware, as Intel's do, and what perf does about them.

use pmu_model::intel::BranchKind;
use pmu_model::intel::Transfer;

pub use crate::cpu::*;

pub const FROM0: Cell = Cell::Lbr(BranchRegister::From(0));
pub const CONTROL: Cell = Cell::Lbr(BranchRegister::Control);
/// IA32_LBR_CTL: everything at CPL 0, with returns that take calls away or without.
pub const RECORDS: u64 = 0x7f_0003;
pub const CALL_STACK: u64 = RECORDS | 1 << 3;
/// The whole of IA32_LBR_DEPTH.
pub const ALL: u64 = 32;
/// The guest can reach the records, whose control VM entry loads.
pub const PASSES: Entry = Entry {
    branches: BranchRegister::BITS_OF_ENTRIES,
    ..NO_REACH
};
/// Another vCPU, of another VM.
pub const FOREIGN: Entry = Entry {
    guest: VMCB02,
    process: OTHER_PROCESS,
    stack: OTHER_STACK,
    ..PASSES
};
/// Where perf's functions for guests are.
pub const FUNCTION: u64 = KERNEL + 0x1000;
/// Just behind them.
pub const BEHIND: u64 = FUNCTION + 0x100;

/// From, to and INFO of each entry, the newest first.
pub type Saved = Vec<[u64; 3]>;

pub fn registers(n: u32) -> [u32; 3] {
    [msr::LBR_FROM0 + n, msr::LBR_TO0 + n, msr::LBR_INFO0 + n]
}

pub fn kept_cpu(number: u32, vcpus: &SharedVcpus) -> Cpu<Intel> {
    let mut cpu = Cpu::new(Intel::new(Config::SAPPHIRE_RAPIDS), vcpus);
    let oracle = Oracle::new(number, vcpus.clone());
    cpu.pmu
        .watch(oracle.with_branch_functions(&[0..1, FUNCTION..BEHIND]));
    cpu.at(KERNEL);
    cpu.write(msr::LBR_DEPTH, ALL);
    cpu.is_clean();
    cpu
}

impl Cpu<Intel> {
    pub fn goes(&mut self, kind: BranchKind, from: u64) {
        self.pmu.transferred(Transfer {
            from,
            to: 0x2000,
            kind,
            from_user: false,
            to_user: false,
        });
    }

    pub fn jump(&mut self, from: u64) {
        self.goes(BranchKind::JumpRelative, from);
    }

    pub fn enter_with(&mut self, entry: Entry, control: u64) {
        self.enter(entry);
        self.pmu.load_lbr_control(control).expect("it can be");
    }

    pub fn leave(&mut self) {
        self.pmu.map_mut().set_lbr_control(0).expect("it can be");
        self.exit();
        self.at(KERNEL);
    }

    /// The guest is entered, and jumps there.
    pub fn visit_and_jump(&mut self, entry: Entry, from: u64) {
        self.enter_with(entry, RECORDS);
        self.jump(from);
        self.leave();
    }

    /// perf_guest_lbr_save(), which has a function for all clear them.
    pub fn save(&mut self) -> Saved {
        self.at(FUNCTION);
        let saved = (0..ALL as u32)
            .map(|n| registers(n).map(|register| self.read_as(register, HOST)))
            .collect();
        self.at(KERNEL);
        self.write(msr::LBR_DEPTH, ALL);
        saved
    }

    /// The second half of perf_guest_lbr_load().
    pub fn load_branches(&mut self, saved: &Saved) {
        self.at(BEHIND - 1);
        self.write(msr::LBR_DEPTH, ALL);
        for (n, entry) in saved.iter().enumerate() {
            for (register, value) in registers(n as u32).into_iter().zip(entry) {
                if *value != 0 {
                    self.write(register, *value);
                }
            }
        }
        self.at(KERNEL);
    }
}

/// A guest has recorded a branch and was left.
pub fn after_a_jump() -> Cpu<Intel> {
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.visit_and_jump(PASSES, 0x1000);
    cpu.is_clean();
    cpu
}
