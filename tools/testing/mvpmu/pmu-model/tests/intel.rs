// SPDX-License-Identifier: GPL-2.0
//! The Intel PMU, register by register. The rules and where they come from stand in `intel.rs`.

use pmu_model::intel::msr::*;
use pmu_model::intel::Codes;
use pmu_model::intel::Config;
use pmu_model::intel::Intel;
use pmu_model::Access;
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
const EDGE: u64 = 1 << 18;
const INT: u64 = 1 << 20;
const ANY_THREAD: u64 = 1 << 21;
const EN: u64 = 1 << 22;
const INV: u64 = 1 << 23;
const INSTRUCTIONS: u64 = 0xc0;
const BRANCHES: u64 = 0xc4;
const ALL_CTRL: u64 = 0x1_000f_0000_00ff;
const CTR_FRZ: u64 = 1 << 59;
const LBR_FRZ: u64 = 1 << 58;
const OVF_UNCORE: u64 = 1 << 61;
const OVF_BUF: u64 = 1 << 62;
const COND_CHGD: u64 = 1 << 63;
const FREEZE_LBRS_ON_PMI: u64 = 1 << 11;
const FREEZE_PERFMON_ON_PMI: u64 = 1 << 12;
const GP: Fault = Fault::GeneralProtection;

fn cmask(value: u64) -> u64 {
    value << 24
}

struct Cpu(Pmu<Intel>);

impl Cpu {
    fn new(config: Config) -> Cpu {
        Cpu(Pmu::new(Intel::new(config)))
    }

    fn v5() -> Cpu {
        Cpu::new(Config::SAPPHIRE_RAPIDS)
    }

    const ACCESS: Access = Access {
        owner: Owner::Host,
        cpl: 0,
    };

    fn has(&self, msr: u32) -> bool {
        self.0.register(msr).is_some()
    }

    fn read(&mut self, msr: u32) -> u64 {
        let register = self.0.register(msr).expect("the register exists");
        self.0.read(register, Cpu::ACCESS).expect("it can be read")
    }

    fn try_write(&mut self, msr: u32, value: u64) -> Result<(), Fault> {
        let register = self.0.register(msr).expect("the register exists");
        self.0.write(register, value, Cpu::ACCESS)
    }

    fn write(&mut self, msr: u32, value: u64) {
        self.try_write(msr, value).expect("the value is allowed");
    }

    fn happens(&mut self, source: Source, class: Class, events: u64) -> Overflow {
        let mut deltas = Deltas::default();
        deltas.add(source, class, events);
        self.0.fold(&deltas)
    }

    fn execute(&mut self, instructions: u64) -> Overflow {
        self.happens(Source::Instructions, Class::HostKernel, instructions)
    }

    /// One cycle with so many branches.
    fn cycle(&mut self, branches: u64) {
        let mut deltas = Deltas::default();
        deltas.add(Source::Instructions, Class::HostKernel, 1);
        deltas.add(Source::Branches, Class::HostKernel, branches);
        assert_eq!(self.0.fold(&deltas), Overflow::default());
    }

    /// Both a general purpose and a fixed counter, so many instructions before their wrap.
    fn near_the_wrap(config: Config, left: u64, int: bool) -> Cpu {
        let mut cpu = Cpu::new(config);
        let wrap = 1 << 48;
        cpu.write(
            PERFEVTSEL0,
            INSTRUCTIONS | OS | EN | if int { INT } else { 0 },
        );
        cpu.write(FIXED_CTR_CTRL, if int { 0b1001 } else { 0b0001 });
        cpu.write(A_PMC0, wrap - left);
        cpu.write(FIXED_CTR0, wrap - left);
        cpu.write(GLOBAL_CTRL, 1 << 32 | 1);
        cpu
    }
}

#[test]
fn cpuid_describes_version_5_with_8_and_4_counters_of_48_bits() {
    let leaf = Config::SAPPHIRE_RAPIDS.cpuid_leaf_a();
    assert_eq!(leaf.eax, 0x0830_0805);
    assert_eq!((leaf.ebx, leaf.ecx), (0, 0xf));
    assert_eq!(leaf.edx, 1 << 15 | 48 << 5 | 4);
}

#[test]
fn cpuid_below_version_5_has_no_map_of_fixed_counters_and_keeps_any_thread() {
    let leaf = Config::BROADWELL.cpuid_leaf_a();
    assert_eq!(leaf.eax & 0xff, 3);
    assert_eq!((leaf.ecx, leaf.edx), (0, 48 << 5 | 3));
}

#[test]
fn capabilities_claim_full_width_writes_and_metrics_and_nothing_else() {
    assert_eq!(Cpu::v5().read(PERF_CAPABILITIES), 1 << 15 | 1 << 13);
    assert_eq!(Cpu::new(Config::SKYLAKE).read(PERF_CAPABILITIES), 1 << 13);
    let narrow = Config {
        full_width_writes: false,
        ..Config::SAPPHIRE_RAPIDS
    };
    assert_eq!(Cpu::new(narrow).read(PERF_CAPABILITIES), 1 << 15);
    assert!(!Cpu::new(narrow).has(A_PMC0));
    assert!(Cpu::v5().has(A_PMC0));
}

#[test]
fn there_are_as_many_registers_as_counters() {
    let cpu = Cpu::v5();
    for first in [PMC0, PERFEVTSEL0, A_PMC0] {
        assert!(cpu.has(first + 7) && !cpu.has(first + 8));
    }
    assert!(cpu.has(FIXED_CTR0 + 3) && !cpu.has(FIXED_CTR0 + 4));
    assert!(!Cpu::new(Config::BROADWELL).has(FIXED_CTR0 + 3));
}

#[test]
fn below_version_4_status_cannot_be_set_and_in_use_is_not_told() {
    let cpu = Cpu::new(Config::BROADWELL);
    assert!(!cpu.has(GLOBAL_STATUS_SET) && !cpu.has(GLOBAL_INUSE));
    assert!(cpu.has(GLOBAL_STATUS_RESET));
    assert!(Cpu::new(Config::SKYLAKE).has(GLOBAL_STATUS_SET));
}

#[test]
fn a_general_purpose_counter_runs_with_its_enable_and_its_global_bit() {
    for (own, global, counted) in [(0, 0, 0), (EN, 0, 0), (0, 1, 0), (EN, 0xfe, 0), (EN, 1, 5)] {
        let mut cpu = Cpu::v5();
        cpu.write(GLOBAL_CTRL, global);
        cpu.write(PERFEVTSEL0, INSTRUCTIONS | OS | own);
        let _ = cpu.execute(5);
        assert_eq!(cpu.read(PMC0), counted, "own {own:#x}, global {global:#x}");
    }
}

#[test]
fn a_fixed_counter_runs_with_its_field_and_its_global_bit() {
    for (field, global, counted) in [(0, 1 << 33, 0), (0b0001 << 4, 1, 0), (1 << 4, 1 << 33, 5)] {
        let mut cpu = Cpu::v5();
        cpu.write(GLOBAL_CTRL, global);
        cpu.write(FIXED_CTR_CTRL, field);
        let _ = cpu.execute(5);
        assert_eq!(cpu.read(FIXED_CTR0 + 1), counted, "field {field:#x}");
    }
}

#[test]
fn rings_are_chosen_for_each_counter() {
    for (os, usr, kernel, user) in [(0, 0, 0, 0), (1, 0, 3, 0), (0, 1, 0, 3), (1, 1, 3, 3)] {
        for (class, expected) in [
            (Class::HostKernel, kernel),
            (Class::HostUser, user),
            (Class::GuestKernel, kernel),
            (Class::GuestUser, user),
        ] {
            let mut cpu = Cpu::v5();
            cpu.write(GLOBAL_CTRL, ALL_CTRL);
            cpu.write(PERFEVTSEL0 + 7, INSTRUCTIONS | EN | (os * OS) | (usr * USR));
            cpu.write(FIXED_CTR_CTRL, os | usr << 1);
            let _ = cpu.happens(Source::Instructions, class, 3);
            assert_eq!(cpu.read(PMC0 + 7), expected, "{class:?}");
            assert_eq!(cpu.read(FIXED_CTR0), expected, "{class:?}");
        }
    }
}

#[test]
fn the_old_name_of_a_counter_takes_32_bits_and_extends_their_sign() {
    let mut cpu = Cpu::v5();
    cpu.write(PMC0, 0xdead_beef_7fff_ffff);
    assert_eq!(cpu.read(PMC0), 0x7fff_ffff);
    cpu.write(PMC0, 0x8000_0000);
    assert_eq!(cpu.read(PMC0), 0xffff_8000_0000);
    assert_eq!(cpu.read(A_PMC0), 0xffff_8000_0000);
}

#[test]
fn the_full_width_name_takes_48_bits_and_refuses_more() {
    let mut cpu = Cpu::v5();
    cpu.write(A_PMC0, 0xffff_ffff_ffff);
    assert_eq!(cpu.read(PMC0), 0xffff_ffff_ffff);
    assert_eq!(cpu.try_write(A_PMC0, 1 << 48), Err(GP));
    assert_eq!(cpu.read(PMC0), 0xffff_ffff_ffff);
}

// Has to fail when a write that is refused counts as one, or does not count.
#[test]
fn a_refused_write_counts_as_refused() {
    let mut cpu = Cpu::v5();
    cpu.write(A_PMC0, 1);
    assert_eq!(cpu.try_write(A_PMC0, 1 << 48), Err(GP));
    let register = cpu.0.register(A_PMC0).unwrap();
    assert_eq!(cpu.0.refuses(register, 1 << 48, Owner::Host), Some(GP));
    assert_eq!(cpu.0.refuses(register, 1, Owner::Host), None);
    let host = cpu.0.stats().host;
    assert_eq!((host.wrmsr, host.refused), (1, 2));
}

#[test]
fn a_fixed_counter_takes_48_bits_and_refuses_more() {
    let mut cpu = Cpu::v5();
    cpu.write(FIXED_CTR0 + 3, 0xffff_ffff_ffff);
    assert_eq!(cpu.try_write(FIXED_CTR0 + 3, 1 << 48), Err(GP));
    assert_eq!(cpu.read(FIXED_CTR0 + 3), 0xffff_ffff_ffff);
}

#[test]
fn a_selector_takes_its_low_half_without_any_thread() {
    let mut cpu = Cpu::v5();
    cpu.write(PERFEVTSEL0, 0xffff_ffff & !ANY_THREAD);
    assert_eq!(cpu.read(PERFEVTSEL0), 0xffff_ffff & !ANY_THREAD);
    for bit in (32..64).chain([21]) {
        assert_eq!(cpu.try_write(PERFEVTSEL0, 1 << bit), Err(GP), "bit {bit}");
    }
}

#[test]
fn any_thread_exists_in_versions_3_and_4() {
    for config in [Config::BROADWELL, Config::SKYLAKE] {
        let mut cpu = Cpu::new(config);
        cpu.write(PERFEVTSEL0, ANY_THREAD);
        cpu.write(FIXED_CTR_CTRL, 0b0100);
    }
    assert_eq!(Cpu::v5().try_write(FIXED_CTR_CTRL, 0b0100), Err(GP));
}

#[test]
fn fixed_ctr_ctrl_has_four_bits_for_each_counter_without_any_thread() {
    let mut cpu = Cpu::v5();
    cpu.write(FIXED_CTR_CTRL, 0xbbbb);
    for bit in (16..64).chain([2, 6, 10, 14]) {
        assert_eq!(
            cpu.try_write(FIXED_CTR_CTRL, 1 << bit),
            Err(GP),
            "bit {bit}"
        );
    }
    assert_eq!(cpu.read(FIXED_CTR_CTRL), 0xbbbb);
}

#[test]
fn global_ctrl_has_a_bit_for_each_counter_and_no_other() {
    let mut cpu = Cpu::v5();
    cpu.write(GLOBAL_CTRL, ALL_CTRL);
    for bit in (0..64).filter(|bit| ALL_CTRL >> bit & 1 == 0) {
        assert_eq!(cpu.try_write(GLOBAL_CTRL, 1 << bit), Err(GP), "bit {bit}");
    }
    assert_eq!(cpu.read(GLOBAL_CTRL), ALL_CTRL);
}

#[test]
fn a_vm_entry_cannot_load_reserved_bits_of_global_ctrl() {
    let mut cpu = Cpu::v5();
    assert_eq!(cpu.0.map_mut().set_global_ctrl(1 << 32), Ok(()));
    assert_eq!(cpu.0.map_mut().set_global_ctrl(1 << 49), Err(GP));
    assert_eq!(cpu.0.map().global_ctrl(), 1 << 32);
}

#[test]
fn status_in_use_and_capabilities_are_read_only() {
    let mut cpu = Cpu::v5();
    for msr in [GLOBAL_STATUS, GLOBAL_INUSE, PERF_CAPABILITIES] {
        assert_eq!(cpu.try_write(msr, 0), Err(GP), "{msr:#x}");
    }
}

#[test]
fn status_is_set_and_cleared_by_ones_through_registers_that_read_0() {
    let mut cpu = Cpu::v5();
    cpu.write(GLOBAL_STATUS_SET, 1 << 32 | 0b11);
    cpu.write(GLOBAL_STATUS_SET, 1 << 2);
    assert_eq!(cpu.read(GLOBAL_STATUS), 1 << 32 | 0b111);
    cpu.write(GLOBAL_STATUS_RESET, 1 << 32 | 1);
    assert_eq!(cpu.read(GLOBAL_STATUS), 0b110);
    assert_eq!(cpu.read(GLOBAL_STATUS_SET), 0);
    assert_eq!(cpu.read(GLOBAL_STATUS_RESET), 0);
}

#[test]
fn cond_chgd_can_be_cleared_but_not_set() {
    let mut cpu = Cpu::v5();
    cpu.write(GLOBAL_STATUS_RESET, COND_CHGD);
    assert_eq!(cpu.try_write(GLOBAL_STATUS_SET, COND_CHGD), Err(GP));
}

#[test]
fn status_registers_refuse_bits_of_counters_that_do_not_exist() {
    let mut cpu = Cpu::v5();
    // 60 would be that of SGX; 55 is that of PT.
    for bit in [8, 31, 36, 54, 56, 57, 60] {
        assert_eq!(cpu.try_write(GLOBAL_STATUS_SET, 1 << bit), Err(GP));
        assert_eq!(cpu.try_write(GLOBAL_STATUS_RESET, 1 << bit), Err(GP));
    }
    let mut old = Cpu::new(Config::BROADWELL);
    assert_eq!(old.try_write(GLOBAL_STATUS_RESET, CTR_FRZ), Err(GP));
}

// Has to fail when version 3 has what froze, or version 2 an overflow of the uncore; when version 4
// lacks one.
#[test]
fn each_version_has_its_bits_of_the_status() {
    let of = |version| Config {
        version,
        ..Config::SKYLAKE
    };
    let frozen = LBR_FRZ | CTR_FRZ;
    for (version, there, not_there) in [
        (2, OVF_BUF, OVF_UNCORE),
        (3, OVF_BUF | OVF_UNCORE, frozen),
        (4, OVF_BUF | OVF_UNCORE | frozen, 1 << 57),
        (5, OVF_BUF | OVF_UNCORE | frozen, 1 << 57),
    ] {
        let mut cpu = Cpu::new(of(version));
        for bit in (0..64).map(|n| 1 << n) {
            let defined = match bit {
                _ if bit & there != 0 => Ok(()),
                _ if bit & not_there != 0 => Err(GP),
                _ => continue,
            };
            assert_eq!(cpu.try_write(GLOBAL_STATUS_RESET, bit), defined, "{bit:#x}");
            if version >= 4 {
                assert_eq!(cpu.try_write(GLOBAL_STATUS_SET, bit), defined, "{bit:#x}");
            }
        }
        assert_eq!(
            cpu.read(GLOBAL_STATUS),
            if version >= 4 { there } else { 0 }
        );
    }
}

// Has to fail when LBRs freeze counters, or the LBR bit stays below version 4.
#[test]
fn a_pmi_freezes_last_branch_records_as_the_version_does() {
    const LBR: u64 = 1 << 0;
    for (config, frozen, left) in [
        (Config::SKYLAKE, LBR_FRZ, LBR),
        (Config::ICELAKE, LBR_FRZ, LBR),
        // There is none of those that it enables.
        (Config::SAPPHIRE_RAPIDS, LBR_FRZ, 0),
        (Config::BROADWELL, 0, 0),
    ] {
        let mut cpu = Cpu::near_the_wrap(config, 1, true);
        cpu.0.map_mut().set_debugctl(FREEZE_LBRS_ON_PMI | LBR);
        assert!(cpu.execute(1).pmi);
        assert_eq!(cpu.read(GLOBAL_STATUS), frozen | 1 << 32 | 1);
        assert_eq!(cpu.0.map().debugctl(), FREEZE_LBRS_ON_PMI | left);
        let _ = cpu.execute(7);
        assert_eq!((cpu.read(PMC0), cpu.read(FIXED_CTR0)), (7, 7));
    }
}

#[test]
fn in_use_tells_selected_counters_and_wanted_pmis() {
    let mut cpu = Cpu::v5();
    assert_eq!(cpu.read(GLOBAL_INUSE), 0);
    cpu.write(PERFEVTSEL0 + 2, INSTRUCTIONS);
    cpu.write(FIXED_CTR_CTRL, 0b0010 << 8);
    assert_eq!(cpu.read(GLOBAL_INUSE), 1 << 34 | 1 << 2);
    cpu.write(PERFEVTSEL0 + 2, INT);
    assert_eq!(cpu.read(GLOBAL_INUSE), COND_CHGD | 1 << 34);
    cpu.write(PERFEVTSEL0 + 2, 0);
    cpu.write(FIXED_CTR_CTRL, 0b1000);
    assert_eq!(cpu.read(GLOBAL_INUSE), COND_CHGD);
}

#[test]
fn a_wrap_sets_the_status_bit_with_and_without_a_pmi() {
    for int in [false, true] {
        let mut cpu = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 5, int);
        assert_eq!(cpu.execute(4), Overflow::default());
        assert_eq!(cpu.read(GLOBAL_STATUS), 0);
        let overflow = cpu.execute(3);
        assert_eq!((overflow.counters, overflow.pmi), (1 << 8 | 1, int));
        assert_eq!(cpu.read(GLOBAL_STATUS), 1 << 32 | 1);
        assert_eq!((cpu.read(PMC0), cpu.read(FIXED_CTR0)), (2, 2));
    }
}

#[test]
fn from_version_4_a_pmi_freezes_through_the_status_register() {
    for config in [Config::SKYLAKE, Config::SAPPHIRE_RAPIDS] {
        let mut cpu = Cpu::near_the_wrap(config, 1, true);
        cpu.0.map_mut().set_debugctl(FREEZE_PERFMON_ON_PMI);
        assert!(cpu.execute(1).pmi);
        assert_eq!(cpu.read(GLOBAL_STATUS), CTR_FRZ | 1 << 32 | 1);
        assert_eq!(cpu.read(GLOBAL_CTRL), 1 << 32 | 1);
        let _ = cpu.execute(7);
        assert_eq!((cpu.read(PMC0), cpu.read(FIXED_CTR0)), (0, 0));
        cpu.write(GLOBAL_STATUS_RESET, CTR_FRZ);
        let _ = cpu.execute(7);
        assert_eq!((cpu.read(PMC0), cpu.read(FIXED_CTR0)), (7, 7));
    }
}

#[test]
fn in_version_3_a_pmi_freezes_by_clearing_global_ctrl() {
    let mut cpu = Cpu::near_the_wrap(Config::BROADWELL, 1, true);
    cpu.0.map_mut().set_debugctl(FREEZE_PERFMON_ON_PMI);
    assert!(cpu.execute(1).pmi);
    assert_eq!(cpu.read(GLOBAL_STATUS), 1 << 32 | 1);
    assert_eq!(cpu.read(GLOBAL_CTRL), 0);
}

#[test]
fn nothing_freezes_without_the_bit_or_without_a_pmi() {
    let mut unasked = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 1, true);
    assert!(unasked.execute(1).pmi);
    assert_eq!(unasked.read(GLOBAL_STATUS) & CTR_FRZ, 0);

    let mut silent = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 1, false);
    silent.0.map_mut().set_debugctl(FREEZE_PERFMON_ON_PMI);
    let _ = silent.execute(1);
    assert_eq!(silent.read(GLOBAL_STATUS) & CTR_FRZ, 0);
}

#[test]
fn a_freeze_that_software_sets_stops_the_counters() {
    let mut cpu = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 100, false);
    cpu.write(GLOBAL_STATUS_SET, CTR_FRZ);
    let before = cpu.read(PMC0);
    let _ = cpu.execute(7);
    assert_eq!(cpu.read(PMC0), before);
}

#[test]
fn rdpmc_knows_both_kinds_of_counters_and_no_others() {
    let mut cpu = Cpu::v5();
    cpu.write(PMC0 + 7, 77);
    cpu.write(FIXED_CTR0 + 3, 33);
    assert_eq!(cpu.0.rdpmc(7, Cpu::ACCESS), Ok(77));
    assert_eq!(cpu.0.rdpmc(1 << 30 | 3, Cpu::ACCESS), Ok(33));
    for index in [8, 1 << 30 | 4, 1 << 29 | 1, 1 << 31, u32::MAX] {
        assert_eq!(cpu.0.rdpmc(index, Cpu::ACCESS), Err(GP), "{index:#x}");
    }
}

#[test]
fn cmask_counts_cycles_with_at_least_so_many_events() {
    // One instruction a cycle; slots: four.
    for (event, mask, counted) in [
        (INSTRUCTIONS, 1, 6),
        (INSTRUCTIONS, 2, 0),
        (0x01a4, 0, 24),
        (0x01a4, 4, 6),
        (0x01a4, 5, 0),
        (BRANCHES, 1, 3),
    ] {
        let mut cpu = Cpu::v5();
        cpu.write(PERFEVTSEL0, event | OS | EN | cmask(mask));
        for branches in [0, 1, 1, 0, 1, 0] {
            cpu.cycle(branches);
        }
        assert_eq!(cpu.read(PMC0), counted, "event {event:#x}, cmask {mask}");
    }
}

#[test]
fn inv_counts_the_other_cycles_and_needs_a_cmask() {
    for (mask, counted) in [(1, 3), (2, 6), (0, 3)] {
        let mut cpu = Cpu::v5();
        cpu.write(PERFEVTSEL0, BRANCHES | OS | EN | INV | cmask(mask));
        for branches in [0, 1, 1, 0, 1, 0] {
            cpu.cycle(branches);
        }
        assert_eq!(cpu.read(PMC0), counted, "cmask {mask}");
    }
}

#[test]
fn edge_counts_how_often_the_condition_begins() {
    for (bits, counted) in [(cmask(1), 2), (cmask(1) | INV, 3), (0, 2)] {
        let mut cpu = Cpu::v5();
        cpu.write(PERFEVTSEL0, BRANCHES | OS | EN | EDGE | bits);
        for branches in [0, 1, 1, 0, 1, 0] {
            cpu.cycle(branches);
        }
        assert_eq!(cpu.read(PMC0), counted, "bits {bits:#x}");
    }
}

#[test]
fn the_way_to_the_wrap_of_a_counter_that_asks_for_a_pmi_is_shared_by_its_classes() {
    let budget = |cpu: &Cpu, class| cpu.0.budget().get(Source::Instructions, class);
    let mut cpu = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 5, true);
    assert_eq!(budget(&cpu, Class::HostKernel), 2);
    assert_eq!(budget(&cpu, Class::GuestKernel), 2);
    assert_eq!(budget(&cpu, Class::HostUser), u64::MAX);
    cpu.write(GLOBAL_CTRL, 0);
    assert_eq!(budget(&cpu, Class::HostKernel), u64::MAX);
    let silent = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 5, false);
    assert_eq!(budget(&silent, Class::HostKernel), u64::MAX);
}

#[test]
fn a_condition_on_cycles_wants_a_fold_after_each() {
    let mut cpu = Cpu::v5();
    cpu.write(PERFEVTSEL0, BRANCHES | OS | EN | cmask(1));
    let budget = cpu.0.budget();
    assert_eq!(budget.get(Source::Instructions, Class::HostKernel), 1);
    assert_eq!(budget.get(Source::Instructions, Class::GuestKernel), 1);
    assert_eq!(budget.get(Source::Instructions, Class::HostUser), u64::MAX);
}

#[test]
fn an_access_that_both_reads_and_writes_counts_as_either() {
    for (event, counted) in [(0x81d0, 1 + 4), (0x82d0, 2 + 4), (0x83d0, 1 + 2 + 4)] {
        let mut cpu = Cpu::v5();
        cpu.write(PERFEVTSEL0, event | OS | EN);
        let _ = cpu.happens(Source::Loads, Class::HostKernel, 1);
        let _ = cpu.happens(Source::Stores, Class::HostKernel, 2);
        let _ = cpu.happens(Source::LoadStores, Class::HostKernel, 4);
        assert_eq!(cpu.read(PMC0), counted, "event {event:#x}");
    }
}

/// What an event counts on the CPU with these codes, one of each source having happened.
fn counted_of(event: u64, codes: Codes) -> Vec<Source> {
    let config = Config {
        codes,
        ..Config::SAPPHIRE_RAPIDS
    };
    let counts = |source| {
        let mut cpu = Cpu::new(config);
        cpu.write(PERFEVTSEL0, event | OS | EN);
        let _ = cpu.happens(source, Class::HostKernel, 1);
        cpu.read(PMC0) == 1
    };
    Source::ALL
        .into_iter()
        .filter(|source| counts(*source))
        .collect()
}

// Has to fail when Skylake has 0x11c4, or its 0x01c4 counts taken ones only; when Ice Lake counts
// interrupts; when a return or a taken conditional branch is mispredicted.
#[test]
fn codes_of_branches_and_interrupts_are_those_of_each_cpu() {
    use Codes::*;
    use Source::*;
    let near_taken = &[Taken, Jumps, Calls, Returns][..];
    let missed = &[NotTaken, Indirect][..];
    // On Skylake, Ice Lake and Sapphire Rapids.
    for (event, expected) in [
        (0x00c4, [&[Branches][..]; 3]),
        (0x01c4, [&[Taken, NotTaken], &[Taken], &[Taken]]),
        (0x02c4, [&[Calls]; 3]),
        (0x04c4, [&[Branches], &[], &[]]),
        (0x08c4, [&[Returns]; 3]),
        (0x10c4, [&[NotTaken]; 3]),
        (0x11c4, [&[], &[Taken, NotTaken], &[Taken, NotTaken]]),
        (0x20c4, [near_taken; 3]),
        (0x40c4, [&[FarBranches]; 3]),
        (0x80c4, [&[], &[Indirect], &[Indirect]]),
        (0x00c5, [missed; 3]),
        (0x01c5, [&[NotTaken], &[], &[]]),
        (0x04c5, [missed, &[], &[]]),
        (0x08c5, [&[]; 3]),
        (0x10c5, [&[], &[NotTaken], &[NotTaken]]),
        (0x11c5, [&[], &[NotTaken], &[NotTaken]]),
        (0x20c5, [&[Indirect]; 3]),
        (0x80c5, [&[], &[Indirect], &[Indirect]]),
        (0x01cb, [&[Interrupts], &[], &[Interrupts]]),
    ] {
        let found = [Skylake, IceLake, SapphireRapids].map(|codes| counted_of(event, codes));
        assert_eq!(found, expected, "{event:#06x}");
    }
}

#[test]
fn an_event_that_is_not_modelled_never_happens() {
    let mut cpu = Cpu::v5();
    cpu.write(PERFEVTSEL0, 0x00ff | OS | EN);
    let _ = cpu.execute(100);
    assert_eq!(cpu.read(PMC0), 0);
}

#[test]
fn reset_clears_all_and_enables_the_general_purpose_counters_init_changes_nothing() {
    let mut cpu = Cpu::near_the_wrap(Config::SAPPHIRE_RAPIDS, 5, true);
    cpu.write(GLOBAL_STATUS_SET, 1);
    cpu.0.reset(Reset::Init);
    assert_eq!(cpu.read(PMC0), (1 << 48) - 5);
    assert_eq!(cpu.read(GLOBAL_STATUS), 1);
    cpu.0.reset(Reset::Reset);
    for msr in [PMC0, FIXED_CTR0, PERFEVTSEL0, FIXED_CTR_CTRL, GLOBAL_STATUS] {
        assert_eq!(cpu.read(msr), 0, "{msr:#x}");
    }
    assert_eq!(cpu.read(GLOBAL_CTRL), 0xff);
}

#[test]
fn only_operations_that_are_carried_out_are_counted() {
    let mut cpu = Cpu::v5();
    cpu.write(GLOBAL_CTRL, 0);
    let _ = cpu.read(GLOBAL_CTRL);
    assert_eq!(cpu.try_write(GLOBAL_CTRL, 1 << 63), Err(GP));
    assert_eq!(cpu.0.rdpmc(99, Cpu::ACCESS), Err(GP));
    let host = cpu.0.stats().host;
    assert_eq!((host.rdmsr, host.wrmsr, host.rdpmc), (1, 1, 0));
}

/// Slots and metrics are counted at CPL 0, from these values on.
fn topdown(config: Config, slots: u64, metrics: u64) -> Cpu {
    let mut cpu = Cpu::new(config);
    cpu.write(FIXED_CTR_CTRL, 0b0001 << 12);
    cpu.write(FIXED_CTR0 + 3, slots);
    cpu.write(PERF_METRICS, metrics);
    cpu.write(GLOBAL_CTRL, 1 << 48 | 1 << 35);
    cpu
}

impl Cpu {
    fn runs(&mut self, instructions: u64, branches: u64) -> Overflow {
        let mut deltas = Deltas::default();
        deltas.add(Source::Instructions, Class::HostKernel, instructions);
        deltas.add(Source::Branches, Class::HostKernel, branches);
        self.0.fold(&deltas)
    }
}

const RDPMC_METRICS: u32 = 1 << 29;

#[test]
fn metrics_are_shares_of_the_slots_and_add_up() {
    let mut cpu = topdown(Config::SAPPHIRE_RAPIDS, 0, 0);
    assert!(cpu.0.counts(Source::Branches));
    let _ = cpu.runs(10, 2);
    assert_eq!(cpu.read(FIXED_CTR0 + 3), 40);
    assert_eq!(cpu.read(PERF_METRICS), 51 << 48 | 51 << 16 | 204);
    assert_eq!(
        cpu.0.rdpmc(RDPMC_METRICS, Cpu::ACCESS),
        Ok(51 << 48 | 51 << 16 | 204)
    );
    let _ = cpu.runs(10, 10);
    assert_eq!(cpu.read(PERF_METRICS) & 0xffff_ffff, 153 << 16 | 102);
    let mut old = topdown(Config::ICELAKE, 0, 0);
    let _ = old.runs(10, 2);
    assert_eq!(old.read(PERF_METRICS), 51 << 16 | 204);
}

#[test]
fn metrics_go_on_from_what_is_restored_the_counter_first() {
    let mut cpu = topdown(Config::ICELAKE, 40, 51 << 16 | 204);
    assert_eq!(cpu.read(PERF_METRICS), 51 << 16 | 204);
    let _ = cpu.runs(10, 10);
    assert_eq!(cpu.read(PERF_METRICS), 153 << 16 | 102);
    let mut reversed = Cpu::new(Config::ICELAKE);
    reversed.write(FIXED_CTR_CTRL, 0b0001 << 12);
    reversed.write(PERF_METRICS, 51 << 16 | 204);
    reversed.write(FIXED_CTR0 + 3, 40);
    reversed.write(GLOBAL_CTRL, 1 << 48 | 1 << 35);
    let _ = reversed.runs(10, 10);
    assert_eq!(reversed.read(PERF_METRICS), 255 << 16);
}

#[test]
fn metrics_stand_still_without_their_bit_or_the_counters() {
    for ctrl in [1 << 48, 1 << 35] {
        let mut cpu = topdown(Config::SAPPHIRE_RAPIDS, 40, 255);
        cpu.write(GLOBAL_CTRL, ctrl);
        assert!(!cpu.0.counts(Source::Branches));
        let _ = cpu.runs(10, 10);
        assert_eq!(cpu.read(PERF_METRICS), 255);
    }
}

#[test]
fn metrics_overflow_with_the_slots() {
    let mut cpu = topdown(Config::SAPPHIRE_RAPIDS, (1 << 48) - 4, 255);
    let _ = cpu.runs(1, 0);
    assert_eq!(cpu.read(GLOBAL_STATUS), 1 << 48 | 1 << 35);
    cpu.write(GLOBAL_STATUS_RESET, 1 << 48);
    assert_eq!(cpu.read(GLOBAL_STATUS), 1 << 35);
}

#[test]
fn metrics_that_there_are_not_fault() {
    let mut cpu = Cpu::new(Config::SKYLAKE);
    assert!(!cpu.has(PERF_METRICS));
    assert_eq!(cpu.0.rdpmc(RDPMC_METRICS, Cpu::ACCESS), Err(GP));
    assert_eq!(cpu.try_write(GLOBAL_CTRL, 1 << 48), Err(GP));
    let mut four = Cpu::new(Config::ICELAKE);
    assert_eq!(four.try_write(PERF_METRICS, 1 << 32), Err(GP));
    assert_eq!(Cpu::v5().try_write(PERF_METRICS, 1 << 63), Ok(()));
    assert_eq!(four.0.rdpmc(RDPMC_METRICS | 1, Cpu::ACCESS), Err(GP));
}
