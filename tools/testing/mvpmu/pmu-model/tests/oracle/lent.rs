// SPDX-License-Identifier: GPL-2.0
//! A PMU whose interrupts go to the guest's vector is lent to a guest, and what the host writes to it
//! is the guest's.

use crate::cpu::*;

// Break: wrote() takes what the host writes for the host's.
#[test]
fn what_was_loaded_is_the_guests_before_it_is_entered() {
    let loaded = || {
        let mut cpu = amd_cpu(&SharedVcpus::default());
        cpu.load(100, GUEST_RUNS);
        cpu.is_clean();
        cpu
    };
    let mut cpu = loaded();
    cpu.pmu.user();
    let finding = cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    assert_eq!((finding.value, finding.mark), (100, Mark::Lent));

    let mut cpu = loaded();
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));

    let mut cpu = loaded();
    assert_eq!(cpu.pmu.rdpmc(0, USER), Ok(100));
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));

    let mut cpu = loaded();
    cpu.put();
    cpu.pmu.user();
    assert_eq!(cpu.pmu.rdpmc(0, USER), Ok(0));
    cpu.is_clean();
}

// Break: wrote() does not look at the status (the LVTPC, the control of the fixed counters).
#[test]
fn everything_that_was_loaded_is_the_guests() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.lvtpc(GUEST_VECTOR);
    cpu.write(amd::MSR_GLOBAL_STATUS_SET, 1);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Status);
    cpu.write(amd::MSR_GLOBAL_STATUS_CLR, 1);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Lvtpc);
    cpu.lvtpc(NMI);
    cpu.write(amd::MSR_GLOBAL_STATUS_SET, 1);
    cpu.pmu.user();
    cpu.is_clean();

    let mut cpu = intel_cpu();
    cpu.write(msr::GLOBAL_CTRL, 0);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.write(msr::FIXED_CTR_CTRL, 0b0011);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::FixedControl);
}

// Break: check_others() looks at what was loaded, too.
#[test]
fn what_is_loaded_for_one_thread_is_not_left_by_another() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    let other = Entry {
        guest: VMCB02,
        stack: OTHER_STACK,
        ..REACH
    };
    // As KVM's C code does it: cleared before the LVTPC goes back.
    cpu.write(ctr(0), 0);
    cpu.write(ctl(0), 0);
    cpu.lvtpc(NMI);
    cpu.load(7, GUEST_RUNS);
    cpu.write(amd::MSR_GLOBAL_STATUS_SET, 1);
    cpu.enter(other);
    cpu.is_clean();
    cpu.exit();
    cpu.pmu.user();
    let finding = cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    assert_eq!(finding.mark, Mark::Guest(VMCB02));
}

// Break: counted() asks for the reach only.
#[test]
fn a_counter_that_runs_for_a_guest_that_cannot_read_it_is_the_guests() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.load((1 << 48) - 10, GUEST_RUNS);
    cpu.enter(NO_REACH);
    cpu.run(17);
    cpu.exit();
    cpu.is_clean();
    assert_eq!(cpu.pmu.rdpmc(0, USER), Ok(7));
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.write(ctr(0), 0);
    cpu.write(ctl(0), 0);
    cpu.lvtpc(NMI);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Status);
}

// Break: INIT makes a new oracle.
#[test]
fn init_takes_nothing_out_of_the_registers() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.pmu.reset(Reset::Init);
    assert!(cpu.pmu.has_left());
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.write(ctr(0), 0);
    cpu.write(ctl(0), 0);
    cpu.pmu.user();
    cpu.is_clean();

    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.pmu.reset(Reset::Reset);
    cpu.pmu.user();
    cpu.is_clean();
}

// Break: is_foreign() is always false.
#[test]
fn no_code_of_the_kernel_but_kvms_reads_a_value_of_the_guest() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    assert_eq!(cpu.read_as(ctr(0), HOST), 150);
    cpu.is_clean();
    cpu.at(KERNEL);
    assert_eq!(cpu.read_as(ctr(1), HOST), 0);
    cpu.is_clean();
    assert_eq!(cpu.read_as(ctr(0), HOST), 150);
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    assert_eq!(cpu.pmu.rdpmc(0, HOST), Ok(150));
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.read_as(ctl(0), HOST);
    cpu.violates(Invariant::LeakOut, Cell::Selector(0));
    // What the guest has left is still its own when the LVTPC is the host's again.
    cpu.lvtpc(NMI);
    cpu.read_as(ctr(0), HOST);
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.write(ctr(0), 12345);
    cpu.read_as(ctr(0), HOST);
    cpu.is_clean();
}

// Break: check_read() ignores the status.
#[test]
fn no_code_of_the_kernel_but_kvms_reads_the_guests_status() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.load((1 << 48) - 1, GUEST_RUNS);
    cpu.enter(REACH);
    cpu.run(1);
    cpu.exit();
    cpu.at(KERNEL);
    assert_eq!(cpu.read_as(amd::MSR_GLOBAL_STATUS, HOST), 1);
    cpu.violates(Invariant::LeakOut, Cell::Status);
}

// Break: wrote() does not ask who writes.
#[test]
fn no_code_of_the_kernel_but_kvms_changes_a_pmu_that_is_lent() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.at(KERNEL);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3f);
    cpu.is_clean();
    cpu.write(amd::MSR_GLOBAL_CTL, 0);
    let finding = cpu.violates(Invariant::Exact, Cell::Control);
    assert_eq!(finding.mark, Mark::Guest(VMCB));
    cpu.write(ctr(2), 7);
    cpu.violates(Invariant::Exact, Cell::Counter(2));
    cpu.lvtpc(NMI);
    cpu.write(ctr(2), 9);
    cpu.is_clean();
}

// Break: check_pmi() does nothing; it does not ask for the owner (whether there is a PMI).
#[test]
fn no_event_of_the_host_overflows_into_the_guests_vector() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctr(1), (1 << 48) - 5);
    cpu.write(ctl(1), RUNS | INT | HOST_ONLY);
    cpu.run(1);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.run(3);
    cpu.is_clean();
    cpu.run(1);
    cpu.violates(Invariant::HostExact, Cell::Counter(1));

    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctr(1), (1 << 48) - 5);
    cpu.write(ctl(1), RUNS | HOST_ONLY);
    cpu.run(1);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.run(4);
    cpu.is_clean();

    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.load((1 << 48) - 5, GUEST_RUNS | INT);
    cpu.enter(REACH);
    cpu.run(5);
    cpu.is_clean();
}

/// A CPU of which the host has a trace.
fn tracing_cpu() -> Cpu<Intel> {
    let mut cpu = Cpu::new(Intel::new(Config::SKYLAKE), &SharedVcpus::default());
    cpu.pmu.map_mut().set_debugctl(TR | BTS);
    cpu.pmu.trace_changed();
    cpu
}

const TR: u64 = 1 << 6;
const BTS: u64 = 1 << 7;

// Break: lvtpc() (enter(), Pmu::trace_changed()) does not check the trace.
#[test]
fn no_trace_of_the_host_is_on_while_the_pmu_is_lent() {
    let mut cpu = tracing_cpu();
    cpu.is_clean();
    cpu.lvtpc(GUEST_VECTOR);
    let finding = cpu.violates(Invariant::HostExact, Cell::Trace);
    assert_eq!((finding.value, finding.mark), (TR | BTS, Mark::Event));
    cpu.enter(REACH);
    cpu.violates(Invariant::HostExact, Cell::Trace);

    let mut cpu = tracing_cpu();
    cpu.pmu.map_mut().set_debugctl(0);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.enter(REACH);
    cpu.exit();
    cpu.is_clean();
    // As KVM restores it after a VM exit.
    cpu.pmu.map_mut().set_debugctl(TR | BTS);
    cpu.pmu.trace_changed();
    cpu.violates(Invariant::HostExact, Cell::Trace);
}

// Break: check_trace() does not ask whether the PMU is lent, or whether both bits are set.
#[test]
fn a_trace_of_the_host_is_no_matter_else() {
    let mut cpu = tracing_cpu();
    cpu.lvtpc(NMI);
    cpu.enter(NO_REACH);
    cpu.exit();
    cpu.pmu.trace_pmi();
    cpu.pmu.map_mut().set_debugctl(TR);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.enter(REACH);
    cpu.is_clean();
}

// Break: trace_pmi() asks no oracle.
#[test]
fn no_trace_of_the_host_raises_its_pmi_in_the_guests_vector() {
    let mut cpu = tracing_cpu();
    cpu.lvtpc(GUEST_VECTOR);
    cpu.violates(Invariant::HostExact, Cell::Trace);
    cpu.pmu.trace_pmi();
    cpu.violates(Invariant::HostExact, Cell::Trace);
}
