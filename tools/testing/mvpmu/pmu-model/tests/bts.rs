// SPDX-License-Identifier: GPL-2.0
//! The branch trace store, whose rules stand in `intel/bts.rs`.

use std::collections::BTreeMap;

use pmu_model::intel::Branch;
use pmu_model::intel::Config;
use pmu_model::intel::Intel;
use pmu_model::intel::Memory;

const TR: u64 = 1 << 6;
const BTS: u64 = 1 << 7;
const BTINT: u64 = 1 << 8;
const BTS_OFF_OS: u64 = 1 << 9;
const BTS_OFF_USR: u64 = 1 << 10;

const AREA: u64 = 0x1000;
const BUFFER: u64 = 0x2000;
const RECORD: u64 = 24;

/// Words at multiples of 8 from the area on, some of them set.
#[derive(Default)]
struct Words(BTreeMap<u64, u64>);

impl Memory for Words {
    fn read(&mut self, linear: u64) -> Option<u64> {
        (linear >= AREA).then(|| self.0.get(&linear).copied().unwrap_or(0))
    }

    fn write(&mut self, linear: u64, value: u64) -> Option<()> {
        (linear >= AREA).then(|| self.0.insert(linear, value))?;
        Some(())
    }
}

impl Words {
    /// A buffer of three records, with the threshold behind the second.
    fn with_buffer() -> Words {
        let fields = [BUFFER, BUFFER, BUFFER + 3 * RECORD, BUFFER + 2 * RECORD];
        let at = |n: usize| AREA + 8 * n as u64;
        Words(
            fields
                .into_iter()
                .enumerate()
                .map(|(n, f)| (at(n), f))
                .collect(),
        )
    }

    fn stored(&self) -> u64 {
        (self.0[&(AREA + 8)] - BUFFER) / RECORD
    }

    fn from(&self, record: u64) -> u64 {
        self.0
            .get(&(BUFFER + record * RECORD))
            .copied()
            .unwrap_or(0)
    }
}

fn cpu(debugctl: u64) -> Intel {
    let mut cpu = Intel::new(Config::SKYLAKE);
    cpu.set_ds_area(AREA);
    cpu.set_debugctl(debugctl);
    cpu
}

fn branch(from: u64) -> Branch {
    Branch {
        from,
        to: from + 0x100,
        user: false,
    }
}

// Has to fail when TR alone is enough, or BTS.
#[test]
fn a_branch_is_stored_with_both_bits() {
    for (debugctl, stored) in [(0, 0), (TR, 0), (BTS, 0), (TR | BTS, 1)] {
        let mut words = Words::with_buffer();
        assert!(!cpu(debugctl).branched(branch(0x10), &mut words));
        assert_eq!(words.stored(), stored, "{debugctl:#x}");
        assert_eq!(cpu(debugctl).stores_branches(), stored == 1);
    }
    let mut words = Words::with_buffer();
    let _ = cpu(TR | BTS).branched(branch(0x10), &mut words);
    let record = [0, 8, 16].map(|offset| words.0[&(BUFFER + offset)]);
    assert_eq!(record, [0x10, 0x110, 0]);
}

// Has to fail when the two bits are exchanged.
#[test]
fn privilege_levels_can_be_left_out() {
    for (off, user, stored) in [
        (BTS_OFF_OS, false, 0),
        (BTS_OFF_OS, true, 1),
        (BTS_OFF_USR, false, 1),
        (BTS_OFF_USR, true, 0),
    ] {
        let mut words = Words::with_buffer();
        let branch = Branch {
            user,
            ..branch(0x10)
        };
        let _ = cpu(TR | BTS | off).branched(branch, &mut words);
        assert_eq!(words.stored(), stored, "{off:#x} {user}");
    }
}

// Has to fail when each record behind the threshold asks for a PMI, or one is stored behind the maximum.
#[test]
fn at_the_threshold_there_is_one_pmi_and_at_the_maximum_an_end() {
    let mut words = Words::with_buffer();
    let cpu = cpu(TR | BTS | BTINT);
    let due: Vec<_> = (1..=5)
        .map(|n| cpu.branched(branch(n), &mut words))
        .collect();
    assert_eq!(due, [false, true, false, false, false]);
    assert_eq!(words.stored(), 3);
    assert_eq!([0, 1, 2, 3].map(|n| words.from(n)), [1, 2, 3, 0]);
}

// Has to fail when a ring asks for PMIs, or ends.
#[test]
fn without_interrupts_the_buffer_is_a_ring() {
    let mut words = Words::with_buffer();
    let cpu = cpu(TR | BTS);
    assert!((1..=5).all(|n| !cpu.branched(branch(n), &mut words)));
    assert_eq!([0, 1, 2, 3].map(|n| words.from(n)), [4, 5, 3, 0]);
}

// Has to fail when what is not mapped is a panic, or a PMI.
#[test]
fn without_memory_nothing_is_stored() {
    let mut words = Words::with_buffer();
    let mut cpu = cpu(TR | BTS | BTINT);
    cpu.set_ds_area(0);
    assert!((1..=5).all(|n| !cpu.branched(branch(n), &mut words)));
    assert_eq!(words.stored(), 0);
}

// Has to fail when a CPU without it has the bits.
#[test]
fn there_are_bits_for_it_where_it_exists() {
    let sapphire_rapids = Intel::new(Config::SAPPHIRE_RAPIDS);
    assert_eq!(sapphire_rapids.debugctl_of_trace(), 0);
    assert_eq!(sapphire_rapids.ds_area(), None);
    for config in [Config::SKYLAKE, Config::ICELAKE] {
        let cpu = Intel::new(config);
        let all = TR | BTS | BTINT | BTS_OFF_OS | BTS_OFF_USR;
        assert_eq!((cpu.debugctl_of_trace(), cpu.ds_area()), (all, Some(0)));
    }
}
