// SPDX-License-Identifier: GPL-2.0
//! Architectural last branch records, rule by rule. The rules and where they come from stand in
//! `intel/lbr.rs`.
//!
//! The comment above a test names a change to the model that makes the test fail.

use pmu_model::intel::msr::*;
use pmu_model::intel::*;
use pmu_model::options::PowerOn;
use pmu_model::Access;
use pmu_model::Class;
use pmu_model::Deltas;
use pmu_model::Fault;
use pmu_model::Owner;
use pmu_model::Pmu;
use pmu_model::Reset;
use pmu_model::Source;

const HOST: Access = Access {
    owner: Owner::Host,
    cpl: 0,
};
const KINDS: [BranchKind; 7] = [
    BranchKind::Conditional,
    BranchKind::JumpRelative,
    BranchKind::JumpIndirect,
    BranchKind::CallRelative,
    BranchKind::CallIndirect,
    BranchKind::Return,
    BranchKind::Other,
];
const LBREN: u64 = 1 << 0;
const OS: u64 = 1 << 1;
const USR: u64 = 1 << 2;
const CALL_STACK: u64 = 1 << 3;
const CALLS: u64 = 1 << 19 | 1 << 20;
const RETURNS: u64 = 1 << 21;
const ALL: u64 = LBREN | OS | USR | 0x7f << 16;
const DEFINED: u64 = ALL | CALL_STACK;
const MISPRED: u64 = 1 << 63;
const FREEZE_LBRS_ON_PMI: u64 = 1 << 11;
const LBR_FRZ: u64 = 1 << 58;
const GP: Fault = Fault::GeneralProtection;

/// The one that is told from all others by `n`.
fn transfer(n: u64, kind: BranchKind) -> Transfer {
    Transfer {
        from: 0x1000 + n,
        to: 0x2000 + n,
        kind,
        from_user: false,
        to_user: false,
    }
}

fn jump(n: u64) -> Transfer {
    transfer(n, BranchKind::JumpRelative)
}

struct Cpu(Pmu<Intel>);

impl Cpu {
    fn new() -> Cpu {
        Cpu(Pmu::new(Intel::new(Config::SAPPHIRE_RAPIDS)))
    }

    fn recording(control: u64) -> Cpu {
        let mut cpu = Cpu::new();
        cpu.write(LBR_CTL, control);
        cpu
    }

    fn try_read(&mut self, msr: u32) -> Result<u64, Fault> {
        let register = self.0.register(msr).expect("the register exists");
        self.0.read(register, HOST)
    }

    fn read(&mut self, msr: u32) -> u64 {
        self.try_read(msr).expect("it can be read")
    }

    fn try_write(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let register = self.0.register(msr).expect("the register exists");
        self.0.write(register, value, HOST)
    }

    fn write(&mut self, msr: u32, value: u64) {
        self.try_write(msr, value).expect("it can be written");
    }

    fn transfer(&mut self, transfer: Transfer) {
        self.0.transferred(transfer);
    }

    /// From, to and more of all entries, the newest first.
    fn stack(&mut self) -> Vec<[u64; 3]> {
        (0..self.read(LBR_DEPTH) as u32)
            .map(|n| [LBR_FROM0, LBR_TO0, LBR_INFO0].map(|first| self.read(first + n)))
            .collect()
    }

    /// The numbers of the branches that are recorded.
    fn numbers(&mut self) -> Vec<u64> {
        let recorded = self.stack().into_iter().filter(|entry| entry[0] != 0);
        recorded.map(|[from, ..]| from - 0x1000).collect()
    }
}

// Break: LbrRegister::of() has an entry more, or find() asks for no Config::lbr.
#[test]
fn the_registers_are_those_of_the_feature() {
    let registers = |config: Config| {
        let pmu = Pmu::new(Intel::new(config));
        (0x1200..0x1700)
            .filter(|msr| pmu.register(*msr).is_some())
            .collect::<Vec<_>>()
    };
    let expected: Vec<u32> = (0x1200..0x1220)
        .chain([LBR_CTL, LBR_DEPTH])
        .chain(0x1500..0x1520)
        .chain(0x1600..0x1620)
        .collect();
    assert_eq!(registers(Config::SAPPHIRE_RAPIDS), expected);
    let without = Config {
        lbr: false,
        ..Config::SAPPHIRE_RAPIDS
    };
    for config in [Config::BROADWELL, Config::SKYLAKE, Config::ICELAKE, without] {
        assert_eq!(registers(config), []);
        assert_eq!(config.cpuid_leaf_1c(), None);
        assert_eq!(Intel::new(config).lbr_control(), None);
    }
}

// Break: cpuid_leaf_1c() takes the number of a depth for its bit, or says that cycles are there.
#[test]
fn cpuid_says_what_there_is() {
    let leaf = CpuidLeaf {
        eax: 0b1011,
        ebx: 0b111,
        ecx: 0b101,
        edx: 0,
    };
    assert_eq!(Config::SAPPHIRE_RAPIDS.cpuid_leaf_1c(), Some(leaf));
}

// Break: write() keeps all bits of the control, or drops those.
#[test]
fn reserved_bits_of_the_control_fault() {
    let mut cpu = Cpu::new();
    cpu.write(LBR_CTL, DEFINED);
    assert_eq!(cpu.read(LBR_CTL), DEFINED);
    for bit in (0..64).filter(|bit| DEFINED & 1 << bit == 0) {
        assert_eq!(cpu.try_write(LBR_CTL, 1 << bit), Err(GP), "{bit}");
        assert_eq!(cpu.0.map_mut().set_lbr_control(1 << bit), Err(GP), "{bit}");
    }
    assert_eq!(cpu.read(LBR_CTL), DEFINED);
    assert_eq!(cpu.0.map().lbr_control(), Some(DEFINED));
}

// Break: write() of the depth keeps the entries, clears the control, or takes any multiple of 8.
#[test]
fn a_depth_that_is_offered_can_be_set_and_clears_all() {
    let mut cpu = Cpu::recording(ALL);
    assert_eq!(cpu.read(LBR_DEPTH), 32);
    for depth in 0..=256 {
        let offered = LBR_DEPTHS.contains(&depth);
        cpu.transfer(jump(1));
        let set = cpu.try_write(LBR_DEPTH, depth as u64);
        assert_eq!(set.is_ok(), offered, "{depth}");
        assert_eq!(cpu.numbers().is_empty(), offered, "{depth}");
        cpu.transfer(jump(2));
        assert!(cpu.numbers().starts_with(&[2]), "{depth}");
    }
    assert_eq!(cpu.try_write(LBR_DEPTH, 1 << 32 | 8), Err(GP));
}

// Break: at() lets each entry be read.
#[test]
fn registers_beyond_the_depth_fault() {
    for depth in LBR_DEPTHS {
        let mut cpu = Cpu::new();
        cpu.write(LBR_DEPTH, depth as u64);
        for n in 0..LBR_ENTRIES {
            for first in [LBR_FROM0, LBR_TO0, LBR_INFO0] {
                let msr = first + n as u32;
                assert_eq!(cpu.try_read(msr).is_ok(), n < depth, "{msr:#x}");
                assert_eq!(cpu.try_write(msr, 0).is_ok(), n < depth, "{msr:#x}");
            }
        }
    }
}

// Break: transferred() takes no notice of is_on(), or DEBUGCTL.LBR is kept.
#[test]
fn nothing_is_recorded_unless_it_is_enabled() {
    let mut cpu = Cpu::recording(ALL & !LBREN);
    cpu.transfer(jump(1));
    cpu.0.map_mut().set_debugctl(1);
    assert_eq!(cpu.0.map().debugctl(), 0);
    cpu.transfer(jump(2));
    assert_eq!(cpu.numbers(), []);
    cpu.write(LBR_CTL, ALL);
    assert!(cpu.0.map().records_branches());
    cpu.transfer(jump(3));
    cpu.write(LBR_CTL, 0);
    cpu.transfer(jump(4));
    assert_eq!(cpu.numbers(), [3]);
    // Enabling it again loses nothing.
    cpu.write(LBR_CTL, ALL);
    cpu.transfer(jump(5));
    assert_eq!(cpu.numbers(), [5, 3]);
}

// Break: record() moves the other way, or does not come round at the depth.
#[test]
fn the_newest_is_entry_0_and_the_oldest_falls_out() {
    for depth in LBR_DEPTHS {
        let mut cpu = Cpu::recording(ALL);
        cpu.write(LBR_DEPTH, depth as u64);
        for n in 1..=70 {
            cpu.transfer(jump(n));
            let kept = (1..=n).rev().take(depth).collect::<Vec<_>>();
            assert_eq!(cpu.numbers(), kept);
        }
    }
}

// Break: br_type() exchanges two kinds, or record() takes a return for mispredicted.
#[test]
fn an_entry_has_the_addresses_the_kind_and_whether_it_was_predicted() {
    let types = [0, 2, 1, 4, 3, 5, 8];
    for (kind, br_type) in KINDS.into_iter().zip(types) {
        let mut cpu = Cpu::recording(ALL);
        let kernel = Transfer {
            from: 0xffff_ffff_8123_4567,
            to: 0xffff_8888_0000_0001,
            ..transfer(0, kind)
        };
        cpu.transfer(kernel);
        let indirect = matches!(kind, BranchKind::CallIndirect | BranchKind::JumpIndirect);
        let mispredicted = if indirect { MISPRED } else { 0 };
        let expected = [kernel.from, kernel.to, br_type << 56 | mispredicted];
        assert_eq!(cpu.stack()[0], expected, "{kind:?}");
        assert_eq!(cpu.stack()[1], [0; 3]);
    }
}

// Break: two kinds have the same bit, or a kind is left out that is asked for.
#[test]
fn each_kind_has_its_bit() {
    for bit in 0..7 {
        let mut cpu = Cpu::recording(LBREN | OS | USR | 1 << (16 + bit));
        for (n, kind) in (0..).zip(KINDS) {
            cpu.transfer(transfer(n, kind));
        }
        assert_eq!(cpu.numbers(), [bit]);
    }
}

// Break: record() looks at where it began, or gives an address away that is not to be recorded.
#[test]
fn the_level_where_it_ends_decides() {
    let levels = [(false, false), (false, true), (true, false), (true, true)];
    for (control, expected) in [
        (0, [None; 4]),
        (OS, [Some(0x1000), None, Some(u64::MAX), None]),
        (USR, [None, Some(u64::MAX), None, Some(0x1000)]),
        (OS | USR, [Some(0x1000); 4]),
    ] {
        let found = levels.map(|(from_user, to_user)| {
            let mut cpu = Cpu::recording(ALL & !(OS | USR) | control);
            cpu.transfer(Transfer {
                from_user,
                to_user,
                ..transfer(0, BranchKind::Other)
            });
            Some(cpu.read(LBR_FROM0)).filter(|from| *from != 0)
        });
        assert_eq!(found, expected, "{control:#x}");
    }
}

// Break: a return is recorded in call-stack mode, leaves an entry, or takes one off without it.
#[test]
fn a_return_takes_a_call_off_in_call_stack_mode() {
    let mut cpu = Cpu::recording(LBREN | OS | CALL_STACK | CALLS | RETURNS);
    cpu.transfer(transfer(1, BranchKind::CallRelative));
    cpu.transfer(transfer(2, BranchKind::CallIndirect));
    cpu.transfer(jump(3));
    cpu.transfer(transfer(4, BranchKind::Return));
    assert_eq!(cpu.numbers(), [1]);
    cpu.transfer(transfer(5, BranchKind::CallRelative));
    assert_eq!(cpu.numbers(), [5, 1]);
    for n in 6..9 {
        cpu.transfer(transfer(n, BranchKind::Return));
    }
    assert_eq!(cpu.stack(), [[0; 3]; LBR_ENTRIES]);
    // Of a full stack the oldest becomes 0.
    for n in 1..=40 {
        cpu.transfer(transfer(n, BranchKind::CallRelative));
    }
    cpu.transfer(transfer(0, BranchKind::Return));
    assert_eq!(cpu.numbers(), (9..40).rev().collect::<Vec<_>>());
    assert_eq!(cpu.stack()[31], [0; 3]);
    // One that is not to be recorded takes nothing off.
    cpu.write(LBR_CTL, LBREN | OS | CALL_STACK | CALLS);
    cpu.transfer(transfer(0, BranchKind::Return));
    assert_eq!(cpu.numbers().len(), 31);
    cpu.write(LBR_CTL, LBREN | OS | CALLS | RETURNS);
    cpu.transfer(transfer(41, BranchKind::Return));
    assert_eq!(cpu.numbers()[..2], [41, 39]);
}

// Break: write() writes the entry by its place, not by its number, or keeps undefined bits.
#[test]
fn software_writes_what_it_reads() {
    let mut cpu = Cpu::recording(ALL);
    cpu.transfer(jump(1));
    for n in 0..LBR_ENTRIES as u32 {
        let value = 0xa000_0000_0000_0000 + u64::from(n);
        cpu.write(LBR_FROM0 + n, value);
        cpu.write(LBR_TO0 + n, value + 0x100);
        cpu.write(LBR_INFO0 + n, u64::MAX - u64::from(n));
    }
    let expected: Vec<_> = (0..LBR_ENTRIES as u64)
        .map(|n| 0xa000_0000_0000_0000 + n)
        .map(|from| [from, from + 0x100, 0xff00_0000_0000_ffff - (from & 0xff)])
        .collect();
    assert_eq!(cpu.stack(), expected);
    cpu.transfer(jump(2));
    assert_eq!(cpu.stack()[1..], expected[..31]);
}

fn overflow(cpu: &mut Cpu, debugctl: u64) {
    /// A counter of instructions, with an interrupt.
    const SAMPLING: u64 = 0xc0 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 22;
    cpu.0.map_mut().set_debugctl(debugctl);
    cpu.write(PERFEVTSEL0, SAMPLING);
    cpu.write(A_PMC0, (1 << 48) - 1);
    let mut deltas = Deltas::default();
    deltas.add(Source::Instructions, Class::HostKernel, 1);
    assert!(cpu.0.fold(&deltas).pmi);
}

// Break: records_branches() does not look at the status, or freeze() freezes without the bit.
#[test]
fn a_pmi_freezes_the_records_if_that_is_wanted() {
    let mut cpu = Cpu::recording(ALL);
    overflow(&mut cpu, 0);
    cpu.transfer(jump(1));
    overflow(&mut cpu, FREEZE_LBRS_ON_PMI);
    assert_eq!(cpu.read(GLOBAL_STATUS), LBR_FRZ | 1);
    assert!(!cpu.0.map().records_branches());
    cpu.transfer(jump(2));
    cpu.write(GLOBAL_STATUS_RESET, 1);
    cpu.transfer(jump(3));
    assert_eq!(cpu.numbers(), [1]);
    cpu.write(GLOBAL_STATUS_RESET, LBR_FRZ);
    cpu.transfer(jump(4));
    assert_eq!(cpu.numbers(), [4, 1]);
    cpu.write(GLOBAL_STATUS_SET, LBR_FRZ);
    cpu.transfer(jump(5));
    assert_eq!(cpu.numbers(), [4, 1]);
}

// Break: debug_exception() does nothing, or clears more than one bit.
#[test]
fn a_debug_exception_disables_it() {
    let mut cpu = Cpu::recording(ALL);
    cpu.transfer(jump(1));
    cpu.0.map_mut().debug_exception();
    cpu.transfer(jump(2));
    assert_eq!(cpu.read(LBR_CTL), ALL & !LBREN);
    assert_eq!(cpu.numbers(), [1]);
}

// Break: Intel::reset() keeps them on RESET, or clears them on INIT.
#[test]
fn reset_clears_it_and_init_does_not() {
    let mut cpu = Cpu::new();
    cpu.write(LBR_DEPTH, 8);
    cpu.write(LBR_CTL, ALL);
    cpu.transfer(jump(1));
    cpu.0.reset(Reset::Init);
    assert_eq!(cpu.numbers(), [1]);
    assert_eq!([cpu.read(LBR_CTL), cpu.read(LBR_DEPTH)], [ALL, 8]);
    cpu.0.reset(Reset::Reset);
    assert_eq!([cpu.read(LBR_CTL), cpu.read(LBR_DEPTH)], [0, 32]);
    assert_eq!(cpu.stack(), [[0; 3]; LBR_ENTRIES]);
}

// Break: scramble() leaves them alone.
#[test]
fn firmware_may_have_left_anything_there() {
    let mut cpu = Cpu::new();
    cpu.0.power_on(PowerOn::Random(1), 0);
    assert!(cpu.stack().iter().flatten().all(|value| *value != 0));
}
