// SPDX-License-Identifier: GPL-2.0
//! The registers of Intel PT, rule by rule. The rules and where they come from stand in `intel/pt.rs`.
//!
//! The comment above a test names a change to the model that makes the test fail.

use pmu_model::intel::msr::*;
use pmu_model::intel::*;
use pmu_model::options::PowerOn;
use pmu_model::Access;
use pmu_model::Fault;
use pmu_model::Owner;
use pmu_model::Pmu;
use pmu_model::Reset;

const HOST: Access = Access {
    owner: Owner::Host,
    cpl: 0,
};
const TRACE_EN: u64 = 1;
/// Switches, PSBFreq and CycThresh of 0, what ranges are for.
const DEFINED: u64 = 0x2d8f | 0xf << 19 | 0xf << 24 | 0xff << 32;
const GP: Fault = Fault::GeneralProtection;

struct Cpu(Pmu<Intel>);

impl Cpu {
    fn new() -> Cpu {
        Cpu(Pmu::new(Intel::new(Config::ICELAKE)))
    }

    fn read(&mut self, msr: u32) -> u64 {
        let register = self.0.register(msr).expect("the register exists");
        self.0.read(register, HOST).expect("it can be read")
    }

    fn try_write(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let register = self.0.register(msr).expect("the register exists");
        self.0.write(register, value, HOST)
    }

    fn write(&mut self, msr: u32, value: u64) {
        self.try_write(msr, value).expect("it can be written");
    }

    /// Which of 64 bits can be set, each by itself.
    fn settable(&mut self, msr: u32) -> u64 {
        let bits = (0..64).filter(|bit| self.try_write(msr, 1 << bit).is_ok());
        bits.fold(0, |all, bit| all | 1 << bit)
    }
}

/// All of them.
fn all() -> Vec<u32> {
    (0x560..0x562)
        .chain(0x570..0x573)
        .chain(0x580..0x584)
        .collect()
}

// Break: PtRegister::of() has a range more, or find() asks for no Config::pt.
#[test]
fn the_registers_are_those_of_the_feature() {
    let registers = |config: Config| {
        let pmu = Pmu::new(Intel::new(config));
        let found = (0x540..0x600).filter(|msr| pmu.register(*msr).is_some());
        found.collect::<Vec<_>>()
    };
    for config in [Config::ICELAKE, Config::SAPPHIRE_RAPIDS] {
        assert_eq!(registers(config), all());
    }
    let without = Config {
        pt: false,
        ..Config::ICELAKE
    };
    for config in [Config::BROADWELL, Config::SKYLAKE, without] {
        assert_eq!(registers(config), []);
        assert_eq!(config.cpuid_leaf_14(0), None);
        assert_eq!(Intel::new(config).pt_control(), None);
    }
}

// Break: cpuid_leaf_14() has the subleaves in another order, or offers what is not there.
#[test]
fn cpuid_says_what_there_is() {
    let leaf = |n| {
        let leaf = Config::ICELAKE.cpuid_leaf_14(n).expect("it has PT");
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    };
    assert_eq!(leaf(0), [1, 0b111, 0b111, 0]);
    assert_eq!(leaf(1), [2, 0x003f_0001, 0, 0]);
    assert_eq!(leaf(2), [0; 4]);
}

// Break: is_valid_control() asks for no reserved bits, or not for the encodings of one of the fields.
#[test]
fn reserved_bits_and_encodings_of_the_control_fault() {
    let mut cpu = Cpu::new();
    for bit in (0..64).filter(|bit| DEFINED & 1 << bit == 0) {
        assert_eq!(cpu.try_write(RTIT_CTL, 1 << bit), Err(GP), "{bit}");
        assert_eq!(cpu.0.map_mut().set_pt_control(1 << bit), Err(GP), "{bit}");
    }
    for (shift, last) in [(19, 0), (24, 5), (32, 2), (36, 2)] {
        for value in 0..16 {
            let written = cpu.try_write(RTIT_CTL, value << shift);
            assert_eq!(written.is_ok(), value <= last, "{value} at {shift}");
        }
    }
    cpu.write(RTIT_CTL, 0x2d8e);
    assert_eq!(cpu.read(RTIT_CTL), 0x2d8e);
}

// Break: write_control() refuses the same value or one without TraceEn, or takes any; write() asks for no TraceEn.
#[test]
fn what_is_on_can_only_be_switched_off() {
    let mut cpu = Cpu::new();
    cpu.write(RTIT_CTL, TRACE_EN | 0x2008);
    assert!(cpu.0.map().traces());
    for msr in all().into_iter().filter(|msr| *msr != RTIT_CTL) {
        let value = cpu.read(msr);
        assert_eq!(cpu.try_write(msr, value), Err(GP), "{msr:#x}");
    }
    cpu.write(RTIT_CTL, TRACE_EN | 0x2008);
    assert_eq!(cpu.try_write(RTIT_CTL, TRACE_EN | 0x2004), Err(GP));
    cpu.write(RTIT_CTL, 0x2004);
    assert!(!cpu.0.map().traces());
    cpu.write(RTIT_STATUS, 0);
}

// Break: write() checks another register's bits, keeps those that are the CPU's, or clears the lower mask.
#[test]
fn reserved_bits_of_the_others_fault() {
    let mut cpu = Cpu::new();
    let ignored = 0b111;
    let status = 0x30 | 0x1_ffff << 32;
    assert_eq!(cpu.settable(RTIT_STATUS), status | ignored);
    cpu.write(RTIT_STATUS, status | ignored);
    assert_eq!(cpu.read(RTIT_STATUS), status);
    assert_eq!(cpu.settable(RTIT_CR3_MATCH), !0x1f);
    assert_eq!(cpu.settable(RTIT_OUTPUT_BASE), 0xff_ffff_ff80);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS), 0x7f);
    cpu.write(RTIT_OUTPUT_MASK_PTRS, 0x1234_5678_0000_0080);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS), 0x1234_5678_0000_00ff);
    for msr in 0x580..0x584 {
        let canonical = u64::MAX >> 17;
        assert_eq!(cpu.settable(msr), canonical, "{msr:#x}");
        cpu.write(msr, !canonical | u64::from(msr));
        assert_eq!(cpu.read(msr), !canonical | u64::from(msr));
    }
    assert_eq!(cpu.read(0x580), !(u64::MAX >> 17) | 0x580);
}

// Break: reset() does not make PT anew, or INIT does.
#[test]
fn reset_clears_and_init_keeps() {
    let mut cpu = Cpu::new();
    cpu.write(RTIT_CR3_MATCH, 0x1000);
    cpu.write(RTIT_CTL, TRACE_EN);
    cpu.0.reset(Reset::Init);
    assert_eq!(cpu.read(RTIT_CTL), TRACE_EN);
    assert_eq!(cpu.read(RTIT_CR3_MATCH), 0x1000);
    cpu.0.reset(Reset::Reset);
    let found: Vec<_> = all().into_iter().map(|msr| cpu.read(msr)).collect();
    assert_eq!(found, [0, 0x7f, 0, 0, 0, 0, 0, 0, 0]);
}

// Break: scramble() leaves the registers, or has something traced.
#[test]
fn firmware_may_have_used_it() {
    let mut cpu = Cpu::new();
    cpu.0.power_on(PowerOn::Random(7), 0);
    assert_eq!(cpu.read(RTIT_CTL) & TRACE_EN, 0);
    for msr in [RTIT_CTL, RTIT_OUTPUT_BASE, RTIT_CR3_MATCH] {
        assert_ne!(cpu.read(msr), 0, "{msr:#x}");
    }
}

// Break: status_clearable() has the bit always, or never.
#[test]
fn the_status_bit_of_a_filled_region_comes_with_pt() {
    const TRACE_TOPA_PMI: u64 = 1 << 55;
    let mut cpu = Cpu::new();
    cpu.write(GLOBAL_STATUS_SET, TRACE_TOPA_PMI);
    assert_eq!(cpu.read(GLOBAL_STATUS), TRACE_TOPA_PMI);
    cpu.write(GLOBAL_STATUS_RESET, TRACE_TOPA_PMI);
    assert_eq!(cpu.read(GLOBAL_STATUS), 0);
    let mut without = Cpu(Pmu::new(Intel::new(Config::SKYLAKE)));
    let written = without.try_write(GLOBAL_STATUS_SET, TRACE_TOPA_PMI);
    assert_eq!(written, Err(GP));
}
