// SPDX-License-Identifier: GPL-2.0

//! Random programs.
//!
//! Only what is exact is counted: instructions and branches, in CPL 0. Left out
//! because a guest cannot have it as the machine has it:
//!
//! * Cycles. KVM moves the counters of the instructions that it emulates for
//!   instructions and branches, but how many cycles one took nobody knows.
//! * HLT, and whatever needs an interrupt to go on: it comes when it comes. The
//!   LVTPC is masked, so that an overflow shows in GLOBAL_STATUS only.
//! * What KVM does not offer its guests: GLOBAL_STATUS_SET on Intel, HostOnly and
//!   GuestOnly on AMD.
//! * AMD's legacy names of the first four counters, which KVM emulates: a counter
//!   that is written while it counts would count this write in a guest only.
//! * A write that KVM has to emulate, of a selector or of FIXED_CTR_CTRL, and
//!   that changes whether a counter counts this write itself: see [`Known`].

use crate::pmu::Pmu;
use crate::pmu::EN;
use crate::pmu::INT;
use crate::pmu::OS;
use crate::pmu::USR;
use crate::prng::Prng;
use crate::Op;
use crate::Program;

/// Whether to leave out what is known to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Leave it out.
    Avoid,
    /// Do it nevertheless.
    Allow,
}

/// The event in an event selector.
const EVENT: u64 = 0xffff;

/// Bits of a fixed counter in FIXED_CTR_CTRL.
const FIXED_OS: u64 = 1;
const FIXED_USR: u64 = 2;
const FIXED_PMI: u64 = 8;
const FIXED_BITS: u32 = 4;

const WIDTH: u32 = 48;
/// A port that nobody listens to.
const PORT: u32 = 0x80;
const MAX_OPS: u64 = 40;

struct Generator<'a> {
    pmu: &'a Pmu,
    known: Known,
    random: Prng,
    ops: Program,
    /// What the registers hold, as far as it decides what counts.
    selectors: Vec<u64>,
    fixed_control: u64,
    global_control: u64,
}

/// Program `index` of `seed`.
pub fn generate(pmu: &Pmu, seed: u64, index: u64, known: Known) -> Program {
    let mut generator = Generator {
        pmu,
        known,
        random: Prng::new(seed, index),
        ops: Vec::new(),
        selectors: vec![0; pmu.selectors.len()],
        fixed_control: 0,
        global_control: 0,
    };
    for _ in 0..5 + generator.random.below(MAX_OPS - 5) {
        generator.step();
    }
    generator.read_all();
    generator.ops
}

impl Generator<'_> {
    fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    fn read_all(&mut self) {
        let pmu = self.pmu;
        for counter in pmu.counters {
            self.push(Op::Rdpmc(counter.index));
        }
        self.push(Op::Rdmsr(pmu.global_status));
        self.push(Op::Rdmsr(pmu.global_control));
        for counter in pmu.counters {
            self.push(Op::Rdmsr(counter.msrs[0]));
        }
        self.ops
            .extend(pmu.selectors.iter().map(|&msr| Op::Rdmsr(msr)));
        self.ops.extend(pmu.fixed_control.map(Op::Rdmsr));
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=13 => self.write_selector(),
            14..=17 => self.write_fixed_control(),
            18..=29 => self.write_counter(),
            30..=42 => self.write_global_control(),
            43..=49 => self.write_status(),
            50..=62 => self.read_counter(),
            63..=66 => self.read_register(),
            67..=76 => {
                let n = 1 + self.random.below(200) as u32;
                self.push(Op::Loop(n));
            }
            77..=80 => {
                let n = 1 + self.random.below(20) as u32;
                self.push(Op::Calls(n));
            }
            81..=83 => {
                let n = self.random.below(4097) as u32;
                self.push(Op::Copy(n));
            }
            84..=90 => {
                let leaf = self.random.pick(&[0, 1, 7, 0xa, 0x8000_0000, 0x8000_0022]);
                self.push(Op::Cpuid(leaf));
            }
            91..=93 => self.push(Op::Out(PORT)),
            94..=96 => self.push(Op::In(PORT)),
            _ => {
                let msr = self.random.pick(self.pmu.emulated);
                self.push(Op::Touch(msr));
            }
        }
    }

    fn write_selector(&mut self) {
        let n = self.random.below(self.pmu.selectors.len() as u64) as usize;
        let events = [self.pmu.instructions, self.pmu.branches, 0];
        let mut value = match self.random.below(20) {
            0 => 0,
            1..=11 => events[0],
            12..=18 => events[1],
            _ => events[2],
        };
        for (bit, percent) in [(OS, 80), (USR, 30), (EN, 85), (INT, 20)] {
            if self.random.chance(percent) {
                value |= bit;
            }
        }
        let mut kept = value;
        if self.random.chance(4) {
            value |= 1 << self.random.pick(self.pmu.reserved);
            // Intel keeps the old value.
            if self.pmu.fixed_control.is_some() {
                kept = self.selectors[n];
            }
        }
        let changes = self.counts_this_write(self.selectors[n]) != self.counts_this_write(kept);
        self.before_change(changes, self.pmu.counters[n].bit);
        self.push(Op::Wrmsr(self.pmu.selectors[n], value));
        self.selectors[n] = kept;
    }

    /// Whether a counter with this selector counts a WRMSR, when it is enabled globally.
    fn counts_this_write(&self, selector: u64) -> bool {
        selector & (EN | OS) == EN | OS && selector & EVENT == self.pmu.instructions
    }

    /// The first fixed counter counts instructions. The others count cycles: they never run.
    fn write_fixed_control(&mut self) {
        let Some(msr) = self.pmu.fixed_control else {
            return self.write_selector();
        };
        let first = self.random.below(16) & (FIXED_OS | FIXED_USR | FIXED_PMI);
        let mut value = first;
        for n in 1..3 {
            let bits = self.random.below(16) & (FIXED_USR | FIXED_PMI);
            value |= bits << (n * FIXED_BITS);
        }
        let mut kept = value;
        if self.random.chance(4) {
            // Reserved with four fixed counters, and without the bits for any thread.
            value |= 1 << self.random.pick(&[17, 40, 63]);
            kept = self.fixed_control;
        }
        let changes = (self.fixed_control ^ kept) & FIXED_OS != 0;
        self.before_change(changes, 32);
        self.push(Op::Wrmsr(msr, value));
        self.fixed_control = kept;
    }

    /// Comes before a write that KVM emulates: it may have to be out of the global enable's
    /// reach.
    fn before_change(&mut self, changes: bool, bit: u32) {
        let enabled = self.global_control >> bit & 1 != 0;
        if self.known == Known::Avoid && changes && enabled {
            self.global_control &= !(1 << bit);
            self.push(Op::Wrmsr(self.pmu.global_control, self.global_control));
        }
    }

    fn write_counter(&mut self) {
        let n = self.random.below(self.pmu.counters.len() as u64) as usize;
        let value = match self.random.below(10) {
            0 => 0,
            1..=2 => self.random.below(1000),
            3..=6 => 0u64.wrapping_sub(1 + self.random.below(300)) & ((1 << WIDTH) - 1),
            7..=8 => self.random.next() & ((1 << WIDTH) - 1),
            // More bits than there are.
            _ => self.random.next(),
        };
        let msr = self.random.pick(self.pmu.counters[n].msrs);
        self.push(Op::Wrmsr(msr, value));
    }

    fn write_global_control(&mut self) {
        let all = self.pmu.counter_bits();
        let mut value = match self.random.below(4) {
            0 => 0,
            1..=2 => all,
            _ => self.random.next() & all,
        };
        self.global_control = value;
        if self.random.chance(3) {
            value |= 1 << 54;
            if self.pmu.fixed_control.is_some() {
                // #GP: nothing changes.
                self.push(Op::Wrmsr(self.pmu.global_control, value));
                value &= !(1 << 54);
            }
        }
        self.push(Op::Wrmsr(self.pmu.global_control, value));
    }

    fn write_status(&mut self) {
        let value = self.random.next() & self.pmu.counter_bits();
        let msr = match self.pmu.status_set {
            Some(set) if self.random.chance(50) => set,
            _ => self.pmu.status_clear,
        };
        self.push(Op::Wrmsr(msr, value));
    }

    fn read_counter(&mut self) {
        let n = self.random.below(self.pmu.counters.len() as u64) as usize;
        let counter = &self.pmu.counters[n];
        let op = match self.random.below(20) {
            0 => Op::Rdpmc(self.random.pick(self.pmu.missing)),
            1..=5 => Op::Rdmsr(self.random.pick(counter.msrs)),
            _ => Op::Rdpmc(counter.index),
        };
        self.push(op);
    }

    fn read_register(&mut self) {
        let msr = match self.random.below(5) {
            0..=1 => self.pmu.global_status,
            2 => self.pmu.global_control,
            3 => self.pmu.fixed_control.unwrap_or(self.pmu.global_status),
            _ => self.random.pick(self.pmu.selectors),
        };
        self.push(Op::Rdmsr(msr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the index is not used.
    #[test]
    fn a_program_is_a_matter_of_seed_and_index() {
        let one = |seed, index| generate(&Pmu::AMD, seed, index, Known::Avoid);
        assert_eq!(one(1, 2), one(1, 2));
        assert_ne!(one(1, 2), one(1, 3));
        assert_ne!(one(1, 2), one(2, 2));
    }
}
