// SPDX-License-Identifier: GPL-2.0

//! Random programs of calls. The generator knows what there is when no call is refused, so that
//! most calls mean something.

use super::Call;
use super::Calls;
use crate::pmu::Pmu;
use crate::pmu::EN;
use crate::pmu::INT;
use crate::pmu::OS;
use crate::pmu::USR;
use crate::prng::Prng;

const VMS: u64 = 3;
const EVENTS: u64 = 4;
const CPUS: u64 = 2;
const MIN_STEPS: u64 = 10;
const MAX_STEPS: u64 = 60;
const COUNTER_MASK: u64 = (1 << 48) - 1;

/// KVM_PMU_CAP_DISABLE, _EMULATED, _MEDIATED, or what the module's parameter says.
const CAPABILITIES: [u64; 8] = [0, 0, 0, 0, 1, 2, 4, 4];

/// The guest's handler of PMIs, or an NMI; both masked, too.
const LVTPC: [u64; 4] = [0x51, 0x400, 0x1_0051, 0x1_0400];

/// Registers near the PMU: of debugging, PEBS, metrics, LBRs, legacy names, what counts by itself.
const NEIGHBOURS: [u32; 16] = [
    0x10,
    0xe7,
    0xe8,
    0x1d9,
    0x1c9,
    0x329,
    0x345,
    0x34d,
    0x3f1,
    0x3f2,
    0x600,
    0xc000_00e9,
    0xc000_0104,
    0xc001_0000,
    0xc001_0004,
    0xc000_010f,
];

/// PERF_COUNT_HW_*: cycles, instructions, branches, missed ones.
const CONFIGS: [u64; 4] = [0, 1, 4, 5];

/// Flags of an event as `calls` takes them.
const EXCLUDE_USER: u64 = 1 << 0;
const EXCLUDE_KERNEL: u64 = 1 << 1;
const EXCLUDE_GUEST: u64 = 1 << 2;
const EXCLUDE_HOST: u64 = 1 << 3;
const PINNED: u64 = 1 << 4;
const DISABLED: u64 = 1 << 5;

struct Generator<'a> {
    pmu: &'a Pmu,
    random: Prng,
    calls: Calls,
    vms: Vec<u64>,
    events: Vec<u64>,
}

/// Program `index` of `seed`.
pub fn generate(pmu: &Pmu, seed: u64, index: u64) -> Calls {
    let mut generator = Generator {
        pmu,
        random: Prng::new(seed, index),
        calls: Vec::new(),
        vms: Vec::new(),
        events: Vec::new(),
    };
    for _ in 0..MIN_STEPS + generator.random.below(MAX_STEPS - MIN_STEPS) {
        generator.step();
    }
    generator.calls
}

/// One that is not in use.
fn free(used: &[u64], end: u64) -> Option<u64> {
    (0..end).find(|slot| !used.contains(slot))
}

impl Generator<'_> {
    fn call(&mut self, name: &str, arguments: &[u64]) {
        self.calls.push(Call::new(name, arguments));
    }

    fn step(&mut self) {
        if self.vms.is_empty() && self.random.chance(80) {
            return self.new_vm();
        }
        match self.random.below(100) {
            0..=4 => self.new_vm(),
            5..=6 => self.free_vm(),
            7..=49 => self.on_vm(),
            50..=71 => self.on_event(),
            _ => self.on_host(),
        }
    }

    fn new_vm(&mut self) {
        let Some(vm) = free(&self.vms, VMS) else {
            return;
        };
        let capability = self.random.pick(&CAPABILITIES);
        self.call("vm", &[vm, capability]);
        self.vms.push(vm);
        if self.random.chance(15) {
            let counters = self.random.below(self.pmu.selectors.len() as u64 + 1);
            self.call("counters", &[vm, counters]);
        }
        if self.random.chance(70) {
            self.count(vm);
        }
    }

    fn free_vm(&mut self) {
        if !self.vms.is_empty() {
            let at = self.random.below(self.vms.len() as u64) as usize;
            let vm = self.vms.swap_remove(at);
            self.call("free", &[vm]);
        }
    }

    fn on_vm(&mut self) {
        if self.vms.is_empty() {
            return;
        }
        let vm = self.random.pick(&self.vms);
        match self.random.below(100) {
            0..=19 => self.count(vm),
            20..=59 => {
                for _ in 0..self.random.below(8) {
                    self.instruction(vm);
                }
                self.call("run", &[vm]);
            }
            60..=69 => {
                let (msr, value) = self.write();
                self.call("set-msr", &[vm, msr.into(), value]);
            }
            70..=76 => {
                let (msr, _) = self.write();
                self.call("get-msr", &[vm, msr.into()]);
            }
            77..=82 => {
                let event = self.event();
                // Allow, deny, and what is neither.
                let action = self.random.below(3);
                let fixed = self.random.below(16);
                self.call("filter", &[vm, action, event, fixed]);
            }
            83..=86 => self.call("nmi", &[vm]),
            87..=89 => {
                let on = self.random.below(2);
                self.call("step", &[vm, on]);
            }
            90..=93 => self.call("migrate", &[vm]),
            _ => self.call("statistics", &[vm]),
        }
    }

    /// Has the guest count, and leave it so.
    fn count(&mut self, vm: u64) {
        let pmu = self.pmu;
        let n = self.random.below(pmu.selectors.len() as u64) as usize;
        let select = self.selector();
        self.call(
            "guest-wrmsr",
            &[vm, pmu.selectors[n].into(), select | OS | EN],
        );
        let value = self.value();
        self.call("guest-wrmsr", &[vm, pmu.counters[n].msrs[0].into(), value]);
        let enable = 1 << pmu.counters[n].bit;
        self.call("guest-wrmsr", &[vm, pmu.global_control.into(), enable]);
        let lvtpc = self.random.pick(&LVTPC);
        self.call("guest-lvtpc", &[vm, lvtpc]);
        let iterations = 1 + self.random.below(300);
        self.call("guest-loop", &[vm, iterations]);
        self.call("run", &[vm]);
    }

    fn instruction(&mut self, vm: u64) {
        match self.random.below(100) {
            0..=39 => {
                let (msr, value) = self.write();
                self.call("guest-wrmsr", &[vm, msr.into(), value]);
            }
            40..=49 => {
                let (msr, _) = self.write();
                self.call("guest-rdmsr", &[vm, msr.into()]);
            }
            50..=64 => {
                let n = self.random.below(self.pmu.counters.len() as u64) as usize;
                let index = match self.random.chance(90) {
                    true => self.pmu.counters[n].index,
                    false => self.random.pick(self.pmu.missing),
                };
                self.call("guest-rdpmc", &[vm, index.into()]);
            }
            65..=79 => {
                let iterations = 1 + self.random.below(1000);
                self.call("guest-loop", &[vm, iterations]);
            }
            80..=89 => self.call("guest-cpuid", &[vm]),
            90..=95 => self.call("guest-out", &[vm]),
            _ => {
                let lvtpc = self.random.pick(&LVTPC);
                self.call("guest-lvtpc", &[vm, lvtpc]);
            }
        }
    }

    fn event(&mut self) -> u64 {
        match self.random.below(20) {
            0 => self.random.next() & 0xffff,
            1..=12 => self.pmu.instructions,
            _ => self.pmu.branches,
        }
    }

    fn selector(&mut self) -> u64 {
        let mut value = self.event();
        for (bit, percent) in [(OS, 80), (USR, 30), (EN, 85), (INT, 40)] {
            if self.random.chance(percent) {
                value |= bit;
            }
        }
        if self.random.chance(5) {
            value |= 1 << self.random.below(64);
        }
        value
    }

    /// A counter's: many are near their end.
    fn value(&mut self) -> u64 {
        match self.random.below(10) {
            0..=1 => self.random.below(1000),
            2..=7 => 0u64.wrapping_sub(1 + self.random.below(500)) & COUNTER_MASK,
            8 => self.random.next() & COUNTER_MASK,
            _ => self.random.next(),
        }
    }

    /// A register, and what may be written there.
    fn write(&mut self) -> (u32, u64) {
        let pmu = self.pmu;
        let all = pmu.counter_bits();
        match self.random.below(100) {
            0..=29 => (self.random.pick(pmu.selectors), self.selector()),
            30..=54 => {
                let n = self.random.below(pmu.counters.len() as u64) as usize;
                (self.random.pick(pmu.counters[n].msrs), self.value())
            }
            55..=69 => {
                let value = match self.random.below(8) {
                    0..=1 => 0,
                    2..=4 => all,
                    5..=6 => self.random.next() & all,
                    _ => self.random.next(),
                };
                (pmu.global_control, value)
            }
            70..=77 => (pmu.status_clear, self.random.next() & all),
            78..=82 => {
                let set = pmu.status_set.unwrap_or(pmu.global_status);
                (set, self.random.next() & all)
            }
            83..=90 => match pmu.fixed_control {
                Some(msr) => (msr, self.random.next() & 0xfff),
                None => (pmu.global_status, 0),
            },
            _ => (self.random.pick(&NEIGHBOURS), self.random.next()),
        }
    }

    fn on_event(&mut self) {
        let used = self.events.clone();
        match (free(&used, EVENTS), self.random.below(100)) {
            (Some(event), 0..=34) => self.open(event),
            _ if used.is_empty() => {}
            (_, n) => {
                let event = self.random.pick(&used);
                let name = match n {
                    0..=49 => {
                        self.events.retain(|&other| other != event);
                        "close"
                    }
                    50..=64 => "enable",
                    65..=79 => "disable",
                    80..=87 => "reset",
                    _ => "read",
                };
                self.call(name, &[event]);
            }
        }
    }

    fn open(&mut self, event: u64) {
        let target = match self.random.below(3) {
            0 => u64::MAX,
            _ => self.random.below(CPUS),
        };
        let mut flags = 0;
        for (flag, percent) in [
            (EXCLUDE_USER, 10),
            (EXCLUDE_KERNEL, 40),
            (EXCLUDE_GUEST, 60),
            (EXCLUDE_HOST, 5),
            (PINNED, 20),
            (DISABLED, 20),
        ] {
            if self.random.chance(percent) {
                flags |= flag;
            }
        }
        let config = self.random.pick(&CONFIGS);
        let period = match self.random.chance(40) {
            true => 20_000 + self.random.below(1_000_000),
            false => 0,
        };
        self.call("open", &[event, target, config, period, flags]);
        self.events.push(event);
    }

    fn on_host(&mut self) {
        match self.random.below(100) {
            0..=44 => {
                let cpu = self.random.below(CPUS);
                self.call("cpu", &[cpu]);
            }
            45..=64 => {
                let n = self.random.below(20_000);
                self.call("work", &[n]);
            }
            65..=84 => self.call("task", &[]),
            85..=89 => {
                let on = self.random.below(2);
                self.call("watchdog", &[on]);
            }
            90..=93 => {
                self.call("online", &[0]);
                self.call("task", &[]);
                self.call("online", &[1]);
            }
            _ => {
                let who = self.random.below(3);
                self.call("user-rdpmc", &[who]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the index is not used.
    #[test]
    fn a_program_is_a_matter_of_seed_and_index() {
        let one = |seed, index| generate(&Pmu::AMD, seed, index);
        assert_eq!(one(1, 2), one(1, 2));
        assert_ne!(one(1, 2), one(1, 3));
        assert_ne!(one(1, 2), one(2, 2));
    }

    // Has to fail when there are no events of the host, or no guests.
    #[test]
    fn programs_make_every_call() {
        let programs = (0..200).flat_map(|index| generate(&Pmu::INTEL, 1, index));
        let mut names: Vec<_> = programs.map(|call| call.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 30);
    }
}
