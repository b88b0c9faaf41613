// SPDX-License-Identifier: GPL-2.0
//! I2: nothing of a guest is where others of the host could read it.

use crate::cpu::*;

// Break: check_left() at has_left(), or forget to clear the marks in wrote().
#[test]
fn a_switch_that_clears_everything_is_clean() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.put();
    cpu.pmu.user();
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.load(150, GUEST_RUNS);
    cpu.enter(REACH);
    cpu.is_clean();
}

// Break: left() ignores selectors (counters, the status, the LVTPC).
#[test]
fn whatever_a_guest_leaves_is_reported_at_user_mode() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.write(ctr(0), 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Selector(0));

    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.write(ctl(0), 0);
    cpu.pmu.user();
    let finding = cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    assert_eq!(finding.value, 150);

    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.write(ctr(0), 0);
    cpu.write(ctl(0), 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Lvtpc);

    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.load((1 << 48) - 1, GUEST_RUNS);
    cpu.enter(REACH);
    cpu.run(1);
    cpu.exit();
    cpu.write(ctl(0), 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Status);
}

// Break: claim() takes each selector within reach that is not an event (is_stopped_guest_only() is false).
#[test]
fn what_perf_leaves_of_an_emulated_counter_is_no_guests() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctl(0), GUEST_RUNS);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3f);
    cpu.enter(NO_REACH);
    cpu.exit();
    cpu.write(ctl(0), GUEST_RUNS & !EN);
    cpu.enter(REACH);
    cpu.exit();
    cpu.pmu.user();
    cpu.is_clean();
}

// Break: claim() leaves out each selector with GuestOnly.
#[test]
fn what_runs_in_a_guest_that_can_read_it_is_the_guests() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctl(0), GUEST_RUNS);
    cpu.enter(REACH);
    cpu.exit();
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Selector(0));
}

// Break: left() does not look at the fixed counters.
#[test]
fn a_fixed_control_and_a_fixed_counter_that_are_left_are_reported() {
    let mut cpu = Cpu::<Intel>::after_a_run();
    cpu.write(msr::A_PMC0, 0);
    cpu.write(msr::PERFEVTSEL0, 0);
    cpu.write(msr::FIXED_CTR_CTRL, 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Counter(8));
    cpu.write(msr::FIXED_CTR0, 0);
    cpu.lvtpc(NMI);
    cpu.pmu.user();
    cpu.is_clean();

    let mut cpu = Cpu::<Intel>::after_a_run();
    cpu.write(msr::A_PMC0, 0);
    cpu.write(msr::PERFEVTSEL0, 0);
    cpu.write(msr::FIXED_CTR0, 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::FixedControl);
}

// Break: check at VM exit.
#[test]
fn the_kernel_may_keep_what_is_stopped_until_the_next_entry() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.run(1000);
    assert_eq!(cpu.read_as(ctr(0), HOST), 150);
    cpu.enter(REACH);
    cpu.run(10);
    cpu.exit();
    cpu.is_clean();
}

// Break: switch() does not compare the stacks; it does not check.
#[test]
fn no_other_task_runs_with_a_value_of_the_guest() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.pmu.switch(STACK, STACK - 0x100);
    cpu.is_clean();
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    assert_eq!(cpu.pmu.oracle().unwrap().counts().switches, 1);
}

// Break: enter() does not compare the stacks.
#[test]
fn another_threads_guest_is_not_entered_with_a_value_of_this_one() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.enter(Entry {
        guest: VMCB02,
        stack: OTHER_STACK,
        ..REACH
    });
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
}

// Break: check_read() takes the host's kernel for a process.
#[test]
fn a_process_never_reads_a_value_of_the_guest() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    assert_eq!(cpu.pmu.rdpmc(0, HOST), Ok(150));
    cpu.is_clean();
    assert_eq!(cpu.pmu.rdpmc(0, USER), Ok(150));
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.put();
    assert_eq!(cpu.pmu.rdpmc(0, USER), Ok(0));
    cpu.is_clean();
    let counts = cpu.pmu.oracle().unwrap().counts();
    assert_eq!((counts.user_rdpmc, counts.kernel_reads), (2, 1));
}

// Break: wrote() takes what the host writes for the host's.
#[test]
fn an_emulated_instruction_leaves_the_counter_the_guests() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.write(ctr(0), 151);
    cpu.write(ctl(0), 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.lvtpc(NMI);
    cpu.write(ctr(0), 1);
    cpu.pmu.user();
    cpu.is_clean();
    // 0 is nobody's, and what the host makes of it the host's.
    cpu.write(ctr(0), 0);
    cpu.write(ctr(0), 9);
    cpu.pmu.user();
    cpu.is_clean();
}

// Break: a count in a guest is the guest's whatever its reach.
#[test]
fn what_kvm_counts_with_perf_for_an_emulated_pmu_is_the_hosts() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctl(0), GUEST_RUNS);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3f);
    cpu.enter(NO_REACH);
    cpu.run(10);
    cpu.exit();
    cpu.pmu.user();
    cpu.pmu.switch(STACK, OTHER_STACK);
    assert_eq!(cpu.pmu.rdpmc(0, USER), Ok(10));
    cpu.is_clean();
}
