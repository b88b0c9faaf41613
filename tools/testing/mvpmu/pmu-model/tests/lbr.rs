// SPDX-License-Identifier: GPL-2.0
//! The last branch record stack, rule by rule. The rules and where they come from stand in `amd/lbr.rs`.
//!
//! The comment above a test names a change to the model that makes the test fail.

use pmu_model::amd::*;
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
    BranchKind::CallRelative,
    BranchKind::CallIndirect,
    BranchKind::Return,
    BranchKind::JumpIndirect,
    BranchKind::JumpRelative,
    BranchKind::Far,
];
const VALID: u64 = 1 << 63;
const MISPREDICTED: u64 = 1 << 63;
const FLBRI: u64 = 1 << 11;
const LBRSF: u64 = 1 << 58;
/// A counter of instructions, with an interrupt.
const SAMPLING: u64 = 0xc0 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 22;

const fn from(n: usize) -> u32 {
    MSR_LBR_FROM0 + 2 * n as u32
}

const fn to(n: usize) -> u32 {
    from(n) + 1
}

/// The one that is told from all others by `n`.
fn branch(n: u64, kind: BranchKind, user: bool) -> Branch {
    Branch {
        from: 0x1000 + n,
        to: 0x2000 + n,
        kind,
        user,
    }
}

fn jump(n: u64) -> Branch {
    branch(n, BranchKind::JumpRelative, false)
}

struct Cpu(Pmu<Amd>);

impl Cpu {
    fn new() -> Cpu {
        Cpu(Pmu::new(Amd::new(Version::PerfMonV2).with_lbr(true)))
    }

    fn recording() -> Cpu {
        let mut cpu = Cpu::new();
        cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
        cpu
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

    fn branch(&mut self, branch: Branch) {
        self.0.branch(branch);
    }

    /// All entries, the newest first.
    fn stack(&mut self) -> Vec<(u64, u64)> {
        (0..LBR_ENTRIES)
            .map(|n| (self.read(from(n)), self.read(to(n))))
            .collect()
    }

    /// The numbers of the branches that are on the stack.
    fn numbers(&mut self) -> Vec<u64> {
        let valid = self.stack().into_iter().filter(|(_, to)| to & VALID != 0);
        valid
            .map(|(from, _)| (from & !MISPREDICTED) - 0x1000)
            .collect()
    }
}

// Break: LbrRegister::of() has an entry more, or with_lbr() does nothing or is done to any version.
#[test]
fn the_registers_are_those_of_the_feature() {
    let registers = |pmu: &Pmu<Amd>| {
        let all = [0xc000_010e..0xc000_0110, 0xc001_0300..0xc001_0400];
        let there = all
            .into_iter()
            .flatten()
            .filter(|msr| pmu.register(*msr).is_some());
        there.collect::<Vec<_>>()
    };
    let expected: Vec<u32> = [MSR_LBR_SELECT, MSR_DEBUG_EXTN_CTL]
        .into_iter()
        .chain(0xc001_0300..0xc001_0320)
        .collect();
    assert_eq!(registers(&Cpu::new().0), expected);
    for none in [
        Amd::new(Version::PerfMonV2),
        Amd::new(Version::PerfMonV2).with_lbr(false),
        Amd::new(Version::Core).with_lbr(true),
    ] {
        assert!(!none.has_lbr());
        assert_eq!(registers(&Pmu::new(none)), []);
    }
    assert!(expected.iter().all(|msr| is_pmu_msr(*msr)));
    assert!(!is_pmu_msr(0xc001_0320));
}

// Break: write() keeps all bits of Select, or drops those of DebugExtnCtl.
#[test]
fn reserved_bits_are_dropped_or_fault() {
    let mut cpu = Cpu::new();
    cpu.write(MSR_LBR_SELECT, u64::MAX);
    assert_eq!(cpu.read(MSR_LBR_SELECT), 0x1ff);
    for bit in (0..64).filter(|bit| 1 << bit != LBRSE) {
        let written = cpu.try_write(MSR_DEBUG_EXTN_CTL, LBRSE | 1 << bit);
        assert_eq!(written, Err(Fault::GeneralProtection), "{bit}");
    }
    assert_eq!(cpu.read(MSR_DEBUG_EXTN_CTL), 0);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    assert_eq!(cpu.read(MSR_DEBUG_EXTN_CTL), LBRSE);
    assert_eq!(cpu.0.stats().host.refused, 63);
}

// Break: record() takes no notice of is_on().
#[test]
fn nothing_is_recorded_unless_it_is_enabled() {
    let mut cpu = Cpu::new();
    cpu.branch(jump(1));
    assert_eq!(cpu.numbers(), []);
    cpu.0.map_mut().set_debugctl(1);
    cpu.branch(jump(2));
    assert_eq!(cpu.numbers(), []);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    assert!(cpu.0.map().records_branches());
    cpu.branch(jump(3));
    cpu.write(MSR_DEBUG_EXTN_CTL, 0);
    cpu.branch(jump(4));
    assert_eq!(cpu.numbers(), [3]);
    // Enabling it again loses nothing.
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.branch(jump(5));
    assert_eq!(cpu.numbers(), [5, 3]);
}

// Break: record() moves the other way, or at() does not come round.
#[test]
fn the_newest_is_entry_0_and_the_oldest_falls_out() {
    let mut cpu = Cpu::recording();
    for n in 1..=40 {
        cpu.branch(jump(n));
        let kept = (1..=n).rev().take(LBR_ENTRIES).collect::<Vec<_>>();
        assert_eq!(cpu.numbers(), kept);
    }
}

// Break: record() has another bit for "valid", leaves the sign out or puts it into bit 61.
#[test]
fn an_entry_has_the_addresses_with_their_signs_and_is_valid() {
    let mut cpu = Cpu::recording();
    let kernel = Branch {
        from: 0xffff_ffff_8123_4567,
        to: 0xffff_8888_0000_0001,
        kind: BranchKind::Return,
        user: false,
    };
    cpu.branch(kernel);
    assert_eq!(cpu.read(from(0)), 0x7fff_ffff_8123_4567);
    assert_eq!(cpu.read(to(0)), 0x9fff_8888_0000_0001);
    cpu.branch(jump(1));
    assert_eq!(cpu.read(from(0)), 0x1001);
    assert_eq!(cpu.read(to(0)), VALID | 0x2001);
}

// Break: record() takes a return for mispredicted, or an indirect call for predicted.
#[test]
fn what_has_its_target_elsewhere_is_mispredicted() {
    for kind in KINDS {
        let mut cpu = Cpu::recording();
        cpu.branch(branch(1, kind, true));
        let indirect = matches!(kind, BranchKind::CallIndirect | BranchKind::JumpIndirect);
        assert_eq!(cpu.read(from(0)) & MISPREDICTED != 0, indirect, "{kind:?}");
        assert_eq!(cpu.read(to(0)) >> 61, 0b100, "valid, not speculative");
    }
}

// Break: two kinds have the same bit, or record() takes user mode for the kernel.
#[test]
fn each_bit_suppresses_its_own_branches() {
    for bit in 0..9 {
        let mut cpu = Cpu::recording();
        cpu.write(MSR_LBR_SELECT, 1 << bit);
        let all = KINDS
            .into_iter()
            .flat_map(|kind| [(kind, false), (kind, true)]);
        for (n, (kind, user)) in (0..).zip(all.clone()) {
            cpu.branch(branch(n, kind, user));
        }
        // 0: the kernel, 1: user mode, 2 to 8: the kinds in their order
        let suppressed = |n: u64| match bit {
            0 | 1 => n % 2 == bit,
            _ => n / 2 == bit - 2,
        };
        let kept: Vec<_> = (0..14).rev().filter(|n| !suppressed(*n)).collect();
        assert_eq!(cpu.numbers(), kept, "bit {bit}");
    }
}

// Break: write() writes the entry by its place, not by its number.
#[test]
fn software_writes_what_it_reads() {
    let mut cpu = Cpu::recording();
    cpu.branch(jump(1));
    let values: Vec<_> = (0..LBR_ENTRIES as u64)
        .map(|n| (0xa000_0000_0000_0000 + n, 0xffff_0000_0000_0000 + n))
        .collect();
    for (n, (value_from, value_to)) in values.iter().enumerate() {
        cpu.write(from(n), *value_from);
        cpu.write(to(n), *value_to);
    }
    assert_eq!(cpu.stack(), values);
    cpu.branch(jump(2));
    assert_eq!(cpu.stack()[1..], values[..15]);
}

fn overflow(cpu: &mut Cpu, debugctl: u64) {
    cpu.0.map_mut().set_debugctl(debugctl);
    cpu.write(MSR_PERF_CTL0, SAMPLING);
    cpu.write(MSR_PERF_CTR0, (1 << 48) - 1);
    let mut deltas = Deltas::default();
    deltas.add(Source::Instructions, Class::HostKernel, 1);
    assert!(cpu.0.fold(&deltas).pmi);
}

// Break: records_branches() does not look at the status, or pmi() freezes without FLBRI.
#[test]
fn a_pmi_freezes_the_stack_if_that_is_wanted() {
    let mut cpu = Cpu::recording();
    overflow(&mut cpu, 0);
    cpu.branch(jump(1));
    overflow(&mut cpu, FLBRI);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), LBRSF | 1);
    assert!(!cpu.0.map().records_branches());
    cpu.branch(jump(2));
    cpu.write(MSR_GLOBAL_STATUS_CLR, 1);
    cpu.branch(jump(3));
    assert_eq!(cpu.numbers(), [1]);
    cpu.write(MSR_GLOBAL_STATUS_CLR, LBRSF);
    cpu.branch(jump(4));
    assert_eq!(cpu.numbers(), [4, 1]);
    cpu.write(MSR_GLOBAL_STATUS_SET, LBRSF);
    cpu.branch(jump(5));
    assert_eq!(cpu.numbers(), [4, 1]);
}

// Break: debug_exception() does nothing.
#[test]
fn a_debug_exception_disables_it() {
    let mut cpu = Cpu::recording();
    cpu.branch(jump(1));
    cpu.0.map_mut().debug_exception();
    cpu.branch(jump(2));
    assert_eq!(cpu.read(MSR_DEBUG_EXTN_CTL), 0);
    assert_eq!(cpu.numbers(), [1]);
}

// Break: Amd::reset() forgets with_lbr(), or clears it on INIT.
#[test]
fn reset_clears_it_and_init_does_not() {
    let mut cpu = Cpu::recording();
    cpu.write(MSR_LBR_SELECT, 2);
    cpu.branch(jump(1));
    cpu.0.reset(Reset::Init);
    assert_eq!(cpu.numbers(), [1]);
    assert_eq!(cpu.read(MSR_LBR_SELECT), 2);
    cpu.0.reset(Reset::Reset);
    assert_eq!(cpu.stack(), [(0, 0); LBR_ENTRIES]);
    assert_eq!(
        [cpu.read(MSR_LBR_SELECT), cpu.read(MSR_DEBUG_EXTN_CTL)],
        [0, 0]
    );
}

// Break: scramble() leaves the stack alone.
#[test]
fn firmware_may_have_left_anything_there() {
    let mut cpu = Cpu::new();
    cpu.0.power_on(PowerOn::Random(1), 0);
    assert!(cpu.stack().iter().all(|(from, to)| *from != 0 && *to != 0));
}

// Break: load() or save() takes the entries as they lie, or lbr_exit() leaves a register to the guest.
#[test]
fn a_vmcb_has_it_all_and_the_host_its_controls() {
    const KEPT: u64 = FLBRI | 1;
    let mut cpu = Cpu::recording();
    cpu.0.map_mut().set_debugctl(KEPT);
    cpu.branch(jump(1));
    let vmcb = SavedLbr {
        debugctl: 1 << 12 | 1 << 40,
        control: LBRSE | 1,
        select: 2 | 1 << 9,
        entries: std::array::from_fn(|n| [0x1100 + n as u64, VALID | n as u64]),
    };
    let host = cpu.0.lbr_enter(&vmcb).unwrap();
    assert_eq!(cpu.0.map().debugctl(), 1 << 12);
    assert_eq!(
        [cpu.read(MSR_LBR_SELECT), cpu.read(MSR_DEBUG_EXTN_CTL)],
        [2, LBRSE]
    );
    assert_eq!(cpu.numbers(), (0x100..0x110).collect::<Vec<_>>());
    cpu.branch(jump(2));
    cpu.branch(branch(3, BranchKind::Far, true));
    let saved = cpu.0.lbr_exit(&host).unwrap();
    assert_eq!(
        [saved.debugctl, saved.control, saved.select],
        [1 << 12, LBRSE, 2]
    );
    assert_eq!(saved.entries[0], [0x1002, VALID | 0x2002]);
    assert_eq!(saved.entries[1..], vmcb.entries[..15]);
    // What is left is the guest's.
    assert_eq!(cpu.0.map().debugctl(), KEPT);
    assert_eq!(
        [cpu.read(MSR_LBR_SELECT), cpu.read(MSR_DEBUG_EXTN_CTL)],
        [2, LBRSE]
    );
    assert_eq!(cpu.stack()[0], (0x1002, VALID | 0x2002));
    assert!(Pmu::new(Amd::new(Version::PerfMonV2))
        .lbr_enter(&vmcb)
        .is_none());
}

// Break: lbr_exit() does not bring DebugExtnCtl back.
#[test]
fn a_guest_that_records_leaves_a_host_that_does_not() {
    let mut cpu = Cpu::new();
    let vmcb = SavedLbr {
        control: LBRSE,
        ..SavedLbr::default()
    };
    let host = cpu.0.lbr_enter(&vmcb).unwrap();
    assert!(cpu.0.map().records_branches());
    let _ = cpu.0.lbr_exit(&host);
    assert!(!cpu.0.map().records_branches());
}

// Break: lbr_not_entered() brings only the controls back.
#[test]
fn a_vmrun_that_fails_changes_nothing() {
    let mut cpu = Cpu::recording();
    cpu.write(MSR_LBR_SELECT, 4);
    cpu.0.map_mut().set_debugctl(FLBRI);
    cpu.branch(jump(1));
    let host = cpu.0.lbr_enter(&SavedLbr::default()).unwrap();
    cpu.0.lbr_not_entered(host);
    assert_eq!(cpu.numbers(), [1]);
    assert_eq!(
        [cpu.read(MSR_LBR_SELECT), cpu.read(MSR_DEBUG_EXTN_CTL)],
        [4, LBRSE]
    );
    assert_eq!(cpu.0.map().debugctl(), FLBRI);
}
