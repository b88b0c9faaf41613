// SPDX-License-Identifier: GPL-2.0
//! I1: no counter runs in host mode under a selector of a guest, and the other way round.

use crate::cpu::*;

// Break: check_stray() only looks at counters that have counted.
#[test]
fn a_selector_of_a_guest_that_runs_in_host_mode_is_reported_at_once() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.load(0, RUNS);
    cpu.enter(REACH);
    cpu.violates(Invariant::Stray, Cell::Selector(0));

    let mut cpu = Cpu::<Intel>::after_a_run();
    cpu.write(msr::GLOBAL_CTRL, 1);
    cpu.violates(Invariant::Stray, Cell::Selector(0));
    cpu.run(1);
    cpu.violates(Invariant::Stray, Cell::Selector(0));
}

// Break: settle() takes a host event for unclaimed.
#[test]
fn no_event_of_the_host_counts_in_a_guest_that_can_read_it() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctl(2), RUNS);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3f);
    cpu.enter(NO_REACH);
    cpu.run(10);
    cpu.exit();
    cpu.is_clean();
    cpu.write(ctr(2), 0);
    cpu.enter(REACH);
    cpu.violates(Invariant::Stray, Cell::Selector(2));
}
