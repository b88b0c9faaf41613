// SPDX-License-Identifier: GPL-2.0
//! The AMD PMU, rule by rule. The rules and where they come from stand in `amd.rs`.
//!
//! The comment above a test names a change to the model that makes the test fail.

use pmu_model::amd::*;
use pmu_model::options::PowerOn;
use pmu_model::Access;
use pmu_model::Budget;
use pmu_model::Class;
use pmu_model::Deltas;
use pmu_model::Fault;
use pmu_model::Overflow;
use pmu_model::Owner;
use pmu_model::Pmu;
use pmu_model::Reset;
use pmu_model::Source;

const USR: u64 = 1 << 16;
const OS: u64 = 1 << 17;
const INT: u64 = 1 << 20;
const EN: u64 = 1 << 22;
const GUEST_ONLY: u64 = 1 << 40;
const HOST_ONLY: u64 = 1 << 41;
const INSTRUCTIONS: u64 = 0xc0;
const CYCLES: u64 = 0x76;
const BRANCHES: u64 = 0xc2;
const LS_DISPATCH: u64 = 0x29;
const ALL_ON: u64 = INSTRUCTIONS | USR | OS | EN;
const LAST: u64 = (1 << 48) - 1;

const HOST: Access = Access {
    owner: Owner::Host,
    cpl: 0,
};
const GUEST: Access = Access {
    owner: Owner::Guest(0x1000),
    cpl: 0,
};

const fn ctl(n: u32) -> u32 {
    MSR_PERF_CTL0 + 2 * n
}

const fn ctr(n: u32) -> u32 {
    MSR_PERF_CTR0 + 2 * n
}

struct Cpu(Pmu<Amd>);

impl Cpu {
    fn new() -> Cpu {
        Cpu(Pmu::new(Amd::new(Version::PerfMonV2)))
    }

    fn before_v2() -> Cpu {
        Cpu(Pmu::new(Amd::new(Version::Core)))
    }

    fn read(&mut self, msr: u32) -> u64 {
        let register = self.0.register(msr).expect("the register exists");
        self.0.read(register, HOST).expect("it can be read")
    }

    fn write(&mut self, msr: u32, value: u64) {
        let register = self.0.register(msr).expect("the register exists");
        self.0
            .write(register, value, HOST)
            .expect("it can be written");
    }

    fn run(&mut self, source: Source, class: Class, events: u64) -> Overflow {
        let mut deltas = Deltas::default();
        deltas.add(source, class, events);
        self.0.fold(&deltas)
    }

    fn instructions(&mut self, class: Class, n: u64) -> Overflow {
        self.run(Source::Instructions, class, n)
    }

    /// One instruction in each class, and which classes counter 0 counted in.
    fn counted_classes(&mut self) -> Vec<Class> {
        Class::ALL
            .into_iter()
            .filter(|class| {
                self.write(ctr(0), 0);
                let _ = self.instructions(*class, 1);
                self.read(ctr(0)) == 1
            })
            .collect()
    }
}

// Break: fold() moves counters by one too much.
#[test]
fn counts_are_exact() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(0), ALL_ON);
    for n in [0, 1, 2, 1_000_000, 3] {
        let _ = cpu.instructions(Class::HostUser, n);
    }
    assert_eq!(cpu.read(ctr(0)), 1_000_006);
    assert_eq!(cpu.0.rdpmc(0, HOST), Ok(1_000_006));
}

// Break: event() ignores bits 35:32 of the selector, or the unit mask of LsDispatch; a return is
// mispredicted.
#[test]
fn each_event_counts_its_own_sources() {
    for (selector, counted) in [
        (INSTRUCTIONS, &[Source::Instructions][..]),
        (CYCLES, &[Source::Instructions]),
        (BRANCHES, &[Source::Branches]),
        (LS_DISPATCH | 0x100, &[Source::Loads]),
        (LS_DISPATCH | 0x200, &[Source::Stores]),
        (LS_DISPATCH | 0x400, &[Source::LoadStores]),
        (
            LS_DISPATCH | 0x700,
            &[Source::Loads, Source::Stores, Source::LoadStores],
        ),
        (LS_DISPATCH, &[]),
        (0xc3, &[Source::NotTaken, Source::Indirect]),
        (0xc5, &[Source::Indirect]),
        (0xc9, &[]),
        (0xca, &[Source::Indirect]),
        (0x1_0000_00c7, &[Source::NotTaken]),
        (0x1_0000_00c8, &[Source::Indirect]),
        (0x2c, &[Source::Interrupts]),
        (0x1_0000_00c0, &[]),
        (0, &[]),
    ] {
        let mut cpu = Cpu::new();
        cpu.write(ctl(0), selector | USR | OS | EN);
        for source in Source::ALL {
            cpu.write(ctr(0), 0);
            let _ = cpu.run(source, Class::HostUser, 7);
            let expected = if counted.contains(&source) { 7 } else { 0 };
            assert_eq!(cpu.read(ctr(0)), expected, "{selector:#x} {source:?}");
            assert_eq!(cpu.0.counts(source), counted.contains(&source));
        }
    }
}

const INV: u64 = 1 << 23;
const EDGE: u64 = 1 << 18;

const fn cnt_mask(n: u64) -> u64 {
    n << 24
}

// Break: cycle_rule() takes no notice of EDGE or INV, or of INV without CNT_MASK; it takes CNT_MASK 1
// for nothing with LsDispatch, or for something with branches that are wanted whole.
#[test]
fn conditions_on_cycles_are_as_documented() {
    // Branches in each of six cycles of one instruction, and as many times three loads.
    const CYCLES: [u64; 6] = [0, 1, 1, 0, 1, 0];
    const LOADS: u64 = LS_DISPATCH | 0x100;
    for (event, bits, counted) in [
        (INSTRUCTIONS, 0, 6),
        (INSTRUCTIONS, cnt_mask(1), 6),
        (INSTRUCTIONS, cnt_mask(2), 0),
        (INSTRUCTIONS, cnt_mask(1) | INV, 0),
        (INSTRUCTIONS, cnt_mask(2) | INV, 6),
        (INSTRUCTIONS, EDGE, 1),
        (BRANCHES, cnt_mask(1), 3),
        (BRANCHES, cnt_mask(1) | INV, 3),
        (BRANCHES, INV, 3),
        (BRANCHES, EDGE, 2),
        (BRANCHES, cnt_mask(1) | INV | EDGE, 3),
        (LOADS, 0, 9),
        (LOADS, INV, 9),
        (LOADS, cnt_mask(1), 3),
        (LOADS, cnt_mask(3), 3),
        (LOADS, cnt_mask(4), 0),
        (LOADS, cnt_mask(3) | INV, 3),
    ] {
        let mut cpu = Cpu::new();
        cpu.write(ctl(0), event | USR | OS | EN | bits);
        for n in CYCLES {
            let mut deltas = Deltas::default();
            deltas.add(Source::Instructions, Class::HostUser, 1);
            deltas.add(Source::Branches, Class::HostUser, n);
            deltas.add(Source::Loads, Class::HostUser, 3 * n);
            let _ = cpu.0.fold(&deltas);
        }
        assert_eq!(cpu.read(ctr(0)), counted, "{event:#x} {bits:#x}");
    }
}

// Break: wants_cycles() does not look whether the counter runs.
#[test]
fn a_condition_on_cycles_wants_a_fold_after_each_while_it_counts() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(0), BRANCHES | OS | EN | cnt_mask(1));
    assert!(!cpu.0.wants_cycles());
    cpu.write(ctl(0), BRANCHES | OS | EN | EDGE);
    assert!(cpu.0.wants_cycles());
    let budget = cpu.0.budget();
    assert_eq!(budget.get(Source::Instructions, Class::HostKernel), 1);
    assert_eq!(budget.get(Source::Instructions, Class::HostUser), u64::MAX);
    cpu.write(MSR_GLOBAL_CTL, 0);
    assert!(!cpu.0.wants_cycles());
}

// Break: classes() swaps USR and OS.
#[test]
fn usr_and_os_select_the_privilege_level() {
    use Class::*;
    for (bits, classes) in [
        (0, &[][..]),
        (OS, &[HostKernel, GuestKernel]),
        (USR, &[HostUser, GuestUser]),
        (USR | OS, &Class::ALL),
    ] {
        let mut cpu = Cpu::new();
        cpu.write(ctl(0), INSTRUCTIONS | EN | bits);
        assert_eq!(cpu.counted_classes(), classes, "{bits:#x}");
    }
}

// Break: classes() does not look at SVME, or takes both bits for neither mode.
#[test]
fn guest_only_and_host_only_select_the_mode_when_svm_is_enabled() {
    use Class::*;
    for (bits, svme, classes) in [
        (0, false, &Class::ALL[..]),
        (0, true, &Class::ALL),
        (GUEST_ONLY, true, &[GuestKernel, GuestUser]),
        (HOST_ONLY, true, &[HostKernel, HostUser]),
        (GUEST_ONLY | HOST_ONLY, true, &Class::ALL),
        (GUEST_ONLY, false, &[]),
        (HOST_ONLY, false, &[]),
        (GUEST_ONLY | HOST_ONLY, false, &[]),
    ] {
        let mut cpu = Cpu::new();
        cpu.0.map_mut().set_svme(svme);
        cpu.write(ctl(0), ALL_ON | bits);
        assert_eq!(cpu.counted_classes(), classes, "{bits:#x} {svme}");
    }
}

// Break: counting() does not look at EN, or not at PerfCntrGlobalCtl.
#[test]
fn a_counter_needs_its_enable_bit_and_the_global_one() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(0), ALL_ON);
    cpu.write(ctl(1), ALL_ON & !EN);
    cpu.write(ctl(5), ALL_ON);
    cpu.write(MSR_GLOBAL_CTL, 0b01_1111);
    let _ = cpu.instructions(Class::HostUser, 3);
    assert_eq!(
        [0, 1, 2, 5].map(|n| cpu.read(ctr(n))),
        [3, 0, 0, 0],
        "only counter 0 has both"
    );
    cpu.write(MSR_GLOBAL_CTL, 0b10_0000);
    let _ = cpu.instructions(Class::HostUser, 4);
    assert_eq!([0, 1, 2, 5].map(|n| cpu.read(ctr(n))), [3, 0, 0, 4]);
}

// Break: advance() finds the wrap one event late.
#[test]
fn a_wrap_at_48_bits_sets_the_status_bit_and_asks_for_an_interrupt() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(2), ALL_ON | INT);
    cpu.write(ctr(2), LAST - 9);
    assert_eq!(
        cpu.instructions(Class::HostUser, 9),
        Overflow::default(),
        "at the last value"
    );
    assert_eq!(cpu.read(ctr(2)), LAST);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0);
    let overflow = cpu.instructions(Class::HostUser, 1);
    assert_eq!((overflow.counters, overflow.pmi), (0b100, true));
    assert_eq!(cpu.read(ctr(2)), 0);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b100);
    assert_eq!(
        cpu.instructions(Class::HostUser, 1),
        Overflow::default(),
        "one overflow, one interrupt"
    );
    assert_eq!(cpu.read(ctr(2)), 1, "it counts on");
}

// Break: wrapped() is called only with INT.
#[test]
fn a_wrap_without_int_sets_the_status_bit_only() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(0), ALL_ON);
    cpu.write(ctr(0), LAST);
    let overflow = cpu.instructions(Class::GuestKernel, 5);
    assert_eq!((overflow.counters, overflow.pmi), (1, false));
    assert_eq!(cpu.read(ctr(0)), 4);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 1);
}

// Break: PerfCntrGlobalStatus takes writes, or Clr and Set read as the status.
#[test]
fn the_status_changes_through_set_and_clear_only() {
    let mut cpu = Cpu::new();
    cpu.write(MSR_GLOBAL_STATUS_SET, 0b11_0101);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b11_0101);
    cpu.write(MSR_GLOBAL_STATUS, 0b00_1010);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b11_0101);
    cpu.write(MSR_GLOBAL_STATUS_SET, 0b00_0010);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b11_0111);
    cpu.write(MSR_GLOBAL_STATUS_CLR, 0b01_0101);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b10_0010);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS_SET), 0);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS_CLR), 0);
}

// Break: any of the registers stores the value as it comes.
#[test]
fn undefined_bits_are_dropped_without_a_fault() {
    let mut cpu = Cpu::new();
    for n in 0..6 {
        cpu.write(ctl(n), u64::MAX);
        assert_eq!(cpu.read(ctl(n)), 0x0000_030f_ffd7_ffff);
        cpu.write(ctl(n), 0);
        cpu.write(ctr(n), u64::MAX);
        assert_eq!(cpu.read(ctr(n)), LAST);
    }
    cpu.write(MSR_GLOBAL_CTL, u64::MAX);
    assert_eq!(cpu.read(MSR_GLOBAL_CTL), 0x3f);
    cpu.write(MSR_GLOBAL_STATUS_SET, u64::MAX);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), PMCF | LBRSF | 0x3f);
    cpu.write(MSR_GLOBAL_STATUS_CLR, u64::MAX);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0);
}

const LBRSF: u64 = 1 << 58;
const PMCF: u64 = 1 << 59;
const FLBRI: u64 = 1 << 11;
const FPMCI: u64 = 1 << 12;

// Break: pmi() takes FLBRI for FPMCI, or counting() does not look at PMCF.
#[test]
fn a_pmi_freezes_what_debugctl_asks_for() {
    for (debugctl, frozen, counted) in [
        (0, 0, 7),
        (FLBRI, LBRSF, 7),
        (FPMCI, PMCF, 0),
        (FLBRI | FPMCI, LBRSF | PMCF, 0),
    ] {
        let mut cpu = Cpu::new();
        cpu.0.map_mut().set_debugctl(debugctl);
        cpu.write(ctl(0), ALL_ON | INT);
        cpu.write(ctr(0), LAST);
        cpu.write(ctl(1), ALL_ON);
        assert!(cpu.instructions(Class::HostUser, 1).pmi);
        assert_eq!(cpu.read(MSR_GLOBAL_STATUS), frozen | 1, "{debugctl:#x}");
        assert_eq!(cpu.read(MSR_GLOBAL_CTL), 0x3f);
        let _ = cpu.instructions(Class::HostUser, 7);
        assert_eq!([cpu.read(ctr(0)), cpu.read(ctr(1))], [counted, counted + 1]);
        cpu.write(MSR_GLOBAL_STATUS_CLR, PMCF);
        let _ = cpu.instructions(Class::HostUser, 1);
        assert_eq!(cpu.read(ctr(0)), counted + 1, "they count on");
    }
}

// Break: wrapped() freezes, or the set register takes no PMCF.
#[test]
fn only_a_pmi_or_software_freezes() {
    let mut cpu = Cpu::new();
    cpu.0.map_mut().set_debugctl(FLBRI | FPMCI);
    cpu.write(ctl(0), ALL_ON);
    cpu.write(ctr(0), LAST);
    let _ = cpu.instructions(Class::HostUser, 1);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 1, "no interrupt was asked for");
    cpu.write(MSR_GLOBAL_STATUS_SET, 0b10);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b11);
    let _ = cpu.instructions(Class::HostUser, 1);
    assert_eq!(cpu.read(ctr(0)), 1);
    cpu.write(MSR_GLOBAL_STATUS_SET, PMCF);
    let _ = cpu.instructions(Class::HostUser, 1);
    assert_eq!(cpu.read(ctr(0)), 1);
}

// Break: rdpmc() accepts one index more.
#[test]
fn rdpmc_of_a_counter_that_does_not_exist_faults() {
    let mut cpu = Cpu::new();
    for index in [16, 17, 0x4000_0000, u32::MAX] {
        assert_eq!(cpu.0.rdpmc(index, HOST), Err(Fault::GeneralProtection));
    }
    assert!((0..16).all(|index| cpu.0.rdpmc(index, HOST).is_ok()));
}

// Break: LEGACY_COUNTERS is 3.
#[test]
fn the_first_four_counters_have_a_second_name() {
    let mut cpu = Cpu::new();
    for n in 0..4 {
        cpu.write(MSR_PERF_LEGACY_CTL0 + n, u64::from(n) + 1);
        cpu.write(MSR_PERF_LEGACY_CTR0 + n, u64::from(n) + 11);
        assert_eq!(cpu.read(ctl(n)), u64::from(n) + 1);
        assert_eq!(cpu.read(ctr(n)), u64::from(n) + 11);
    }
    for msr in [
        0xc000_ffff,
        0xc001_0008,
        0xc001_01ff,
        0xc001_020c,
        0xc000_02ff,
        0xc000_0304,
    ] {
        assert!(cpu.0.register(msr).is_none(), "{msr:#x}");
        assert!(!is_pmu_msr(msr), "{msr:#x}");
    }
}

// Break: counters() says 6 always, RDPMC 4 reads the data fabric, or a bit of a counter that is not there
// can be set.
#[test]
fn there_can_be_four_counters() {
    let mut cpu = Cpu(Pmu::new(Amd::new(Version::PerfMonV2).with_counters(4)));
    assert_eq!(cpu.0.counters().len(), 4);
    for msr in [ctl(4), ctr(4), ctl(5), ctr(5)] {
        assert!(cpu.0.register(msr).is_none(), "{msr:#x}");
        assert!(is_pmu_msr(msr), "so an access faults");
    }
    let last_ones_and_first_of_the_data_fabric = [3, 4, 5, 6];
    let exist = last_ones_and_first_of_the_data_fabric.map(|n| cpu.0.rdpmc(n, HOST).is_ok());
    assert_eq!(exist, [true, false, false, true]);
    for (msr, written) in [
        (MSR_GLOBAL_CTL, MSR_GLOBAL_CTL),
        (MSR_GLOBAL_STATUS, MSR_GLOBAL_STATUS_SET),
    ] {
        cpu.write(written, !0);
        assert_eq!(cpu.read(msr) & 0x3f, 0xf, "{msr:#x}");
    }
    cpu.0.reset(Reset::Reset);
    assert_eq!(cpu.read(MSR_GLOBAL_CTL), 0xf);
    assert_eq!(cpu.0.counters().len(), 4);
    cpu.0.power_on(PowerOn::Random(1), 0);
    assert_eq!(cpu.read(MSR_GLOBAL_CTL) & !0xf, 0);
}

// Break: register() does not look at the version.
#[test]
fn before_perfmonv2_there_are_no_global_registers_and_no_status() {
    let mut cpu = Cpu::before_v2();
    for msr in MSR_GLOBAL_STATUS..=MSR_GLOBAL_STATUS_SET {
        assert!(cpu.0.register(msr).is_none());
        assert!(is_pmu_msr(msr), "so an access faults");
    }
    cpu.write(ctl(5), ALL_ON | INT);
    cpu.write(ctr(5), LAST);
    assert!(cpu.instructions(Class::HostUser, 1).pmi);
    assert_eq!(cpu.read(ctr(5)), 0);
}

// Break: reset() clears the selectors on INIT, or leaves the counters on RESET.
#[test]
fn reset_clears_the_pmu_and_init_leaves_it() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(1), ALL_ON | HOST_ONLY);
    cpu.write(ctr(1), 5);
    cpu.write(MSR_GLOBAL_CTL, 0b10);
    cpu.write(MSR_GLOBAL_STATUS_SET, 0b11);
    cpu.0.map_mut().set_svme(true);
    cpu.0.reset(Reset::Init);
    assert_eq!(cpu.read(ctl(1)), ALL_ON | HOST_ONLY);
    assert_eq!(cpu.read(ctr(1)), 5);
    assert_eq!(cpu.read(MSR_GLOBAL_CTL), 0b10);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0b11);
    let _ = cpu.instructions(Class::HostUser, 1);
    assert_eq!(cpu.read(ctr(1)), 5, "INIT clears EFER.SVME");
    cpu.0.reset(Reset::Reset);
    assert_eq!(cpu.read(ctl(1)), 0);
    assert_eq!(cpu.read(ctr(1)), 0);
    assert_eq!(cpu.read(MSR_GLOBAL_CTL), 0x3f);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0);
}

// Break: budget() is off by one, or limits counters that ask for no interrupt.
#[test]
fn the_budget_of_one_accumulator_ends_with_the_overflow() {
    let mut cpu = Cpu::new();
    cpu.write(ctl(0), INSTRUCTIONS | USR | EN | INT);
    cpu.write(ctr(0), LAST - 99);
    cpu.write(ctl(1), BRANCHES | OS | EN);
    cpu.write(ctr(1), LAST);
    let budget = cpu.0.budget();
    for class in [Class::HostUser, Class::GuestUser] {
        assert_eq!(
            budget.get(Source::Instructions, class),
            50,
            "two classes share 100"
        );
    }
    for (source, class) in [
        (Source::Instructions, Class::HostKernel),
        (Source::Branches, Class::HostKernel),
        (Source::Loads, Class::HostUser),
    ] {
        assert_eq!(budget.get(source, class), Budget::UNLIMITED);
    }
    cpu.0.map_mut().set_svme(true);
    cpu.write(ctl(0), INSTRUCTIONS | USR | EN | INT | HOST_ONLY);
    let left = cpu.0.budget().get(Source::Instructions, Class::HostUser);
    assert_eq!(left, 100);
    assert!(!cpu.instructions(Class::HostUser, left - 1).pmi);
    assert!(cpu.instructions(Class::HostUser, 1).pmi);
}

// Break: limit() gives each part the whole.
#[test]
fn below_the_budget_of_every_accumulator_nothing_overflows() {
    for left in [1, 2, 7, 23, 24, 25, 1000] {
        let mut cpu = Cpu::new();
        cpu.write(ctl(0), LS_DISPATCH | 0x700 | USR | OS | EN | INT);
        cpu.write(ctr(0), LAST + 1 - left);
        let budget = cpu.0.budget();
        let mut deltas = Deltas::default();
        for source in [Source::Loads, Source::Stores, Source::LoadStores] {
            for class in Class::ALL {
                deltas.add(source, class, budget.get(source, class) - 1);
            }
        }
        assert!(!cpu.0.fold(&deltas).pmi, "{left}");
    }
}

// Break: operations_mut() counts everything for the host.
#[test]
fn operations_are_counted_for_the_mode_that_does_them() {
    let mut cpu = Cpu::new();
    let register = cpu.0.register(ctr(0)).unwrap();
    assert!(cpu.0.read(register, HOST).is_ok());
    assert!(cpu.0.write(register, 1, GUEST).is_ok());
    assert!(cpu.0.write(register, 2, GUEST).is_ok());
    assert!(cpu.0.rdpmc(0, GUEST).is_ok());
    assert!(cpu.0.rdpmc(16, GUEST).is_err());
    let stats = cpu.0.stats();
    assert_eq!(
        [stats.host.rdmsr, stats.host.wrmsr, stats.host.rdpmc],
        [1, 0, 0]
    );
    assert_eq!(
        [stats.guest.rdmsr, stats.guest.wrmsr, stats.guest.rdpmc],
        [0, 2, 1],
        "a fault is no operation"
    );
}

// Break: let INIT scramble, or RESET clear.
#[test]
fn what_firmware_has_left_is_there_after_reset_and_stays_over_init() {
    let mut cpu = Cpu::new();
    cpu.0.power_on(PowerOn::Random(3), 1);
    let all = |cpu: &mut Cpu| -> Vec<u64> {
        let registers = (0..6).flat_map(|n| [ctl(n), ctr(n)]);
        registers.map(|msr| cpu.read(msr)).collect()
    };
    let first = all(&mut cpu);
    assert!(first.iter().filter(|value| **value != 0).count() >= 11);
    cpu.0.reset(Reset::Init);
    assert_eq!(all(&mut cpu), first);
    cpu.0.reset(Reset::Reset);
    let second = all(&mut cpu);
    assert_ne!(second, first);
    assert!(second.iter().any(|value| *value != 0));
}

// Break: give cycles the weight of the reference clock.
#[test]
fn with_weights_cycles_are_not_instructions() {
    let weights = "3:2".parse().unwrap();
    let mut cpu = Cpu(Pmu::new(Amd::new(Version::PerfMonV2).with_weights(weights)));
    cpu.0.reset(Reset::Reset);
    cpu.write(ctl(0), ALL_ON);
    cpu.write(ctl(1), CYCLES | USR | OS | EN | INT);
    cpu.write(ctl(2), 1 << 32 | 0x120 | USR | OS | EN);
    cpu.write(ctr(1), LAST - 29);
    assert!(!cpu.instructions(Class::HostUser, 9).pmi);
    assert!(cpu.instructions(Class::HostUser, 1).pmi);
    assert_eq!(
        [cpu.read(ctr(0)), cpu.read(ctr(1)), cpu.read(ctr(2))],
        [10, 0, 20]
    );
}

// Break: let a counter of the L3 count by the selector of one of the data fabric.
#[test]
fn counters_of_the_fabric_and_the_l3_count_all_of_the_cpu() {
    let mut cpu = Cpu::new();
    cpu.write(MSR_DF_PERF_CTL0, EN);
    cpu.write(MSR_L3_PERF_CTL0 + 2, EN);
    cpu.write(MSR_DF_PERF_CTL0 + 1, LAST);
    for class in Class::ALL {
        let _ = cpu.instructions(class, 3);
    }
    let read = |n| cpu.0.clone().rdpmc(n, GUEST).unwrap();
    assert_eq!(
        (6..16).map(read).collect::<Vec<_>>(),
        [11, 0, 0, 0, 0, 12, 0, 0, 0, 0]
    );
    assert_eq!(cpu.read(MSR_L3_PERF_CTL0 + 3), 12);
    assert_eq!(cpu.read(MSR_GLOBAL_STATUS), 0);
}

// Break: with_uncore() changes nothing.
#[test]
fn cpus_share_the_fabric_and_the_l3() {
    let uncore = Uncore::default();
    let cpu = || {
        Cpu(Pmu::new(
            Amd::new(Version::PerfMonV2).with_uncore(uncore.clone()),
        ))
    };
    let (mut first, mut second) = (cpu(), cpu());
    first.write(MSR_DF_PERF_CTL0, EN);
    let _ = second.instructions(Class::GuestUser, 3);
    let _ = first.instructions(Class::HostKernel, 4);
    assert_eq!(first.0.rdpmc(6, HOST), Ok(7));
    assert_eq!(second.0.rdpmc(6, GUEST), Ok(7));
    first.0.reset(Reset::Init);
    assert_eq!(second.read(MSR_DF_PERF_CTL0 + 1), 7);
    first.0.reset(Reset::Reset);
    assert_eq!(second.read(MSR_DF_PERF_CTL0 + 1), 0);
}

// Break: leave a source out of the taken branches.
#[test]
fn kinds_of_branches_are_events_of_their_own() {
    let mut cpu = Cpu::new();
    for (n, event) in [0xd1, 0xc4, 0xc8, 0xcc, 0xc6, 0x0964]
        .into_iter()
        .enumerate()
    {
        cpu.write(ctl(n as u32), event | USR | OS | EN);
    }
    let sources = [
        Source::Taken,
        Source::NotTaken,
        Source::Jumps,
        Source::Calls,
        Source::Returns,
        Source::FarBranches,
        Source::Indirect,
        Source::Flushes,
    ];
    for (n, source) in sources.into_iter().enumerate() {
        let _ = cpu.run(source, Class::HostKernel, 1 << n);
    }
    let counts = [0, 1, 2, 3, 4, 5].map(|n| cpu.read(ctr(n)));
    assert_eq!(
        counts,
        [
            0b11,
            0b11_1101,
            0b1_0000,
            0b100_0000,
            0b10_0000,
            0b1000_0000
        ]
    );
}
