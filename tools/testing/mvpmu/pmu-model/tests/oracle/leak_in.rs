// SPDX-License-Identifier: GPL-2.0
//! I3: what a guest can read is its own.

use crate::cpu::*;

// Break: take every value that the host wrote for the guest's.
#[test]
fn an_event_of_the_host_must_not_be_within_the_guests_reach() {
    // It has counted, and was stopped; nobody wrote the guest's value.
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctr(0), 7);
    cpu.write(ctl(0), RUNS | HOST_ONLY);
    cpu.run(1000);
    cpu.write(ctl(0), RUNS & !EN);
    cpu.enter(NO_REACH);
    cpu.is_clean();
    cpu.exit();
    cpu.enter(REACH);
    let finding = cpu.violates(Invariant::LeakIn, Cell::Counter(0));
    assert_eq!(finding.value, 1007);
}

// Break: settle() does nothing.
#[test]
fn a_period_that_has_not_counted_yet_is_an_event_too() {
    let mut cpu = intel_cpu();
    cpu.write(msr::GLOBAL_CTRL, 0);
    cpu.write(msr::A_PMC0, 12345);
    cpu.write(msr::PERFEVTSEL0, RUNS & !OS);
    cpu.write(msr::GLOBAL_CTRL, 0xff);
    cpu.write(msr::GLOBAL_CTRL, 0);
    cpu.write(msr::PERFEVTSEL0, 0);
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Counter(0));
}

// Break: check_counter() asks nothing of the vCPUs.
#[test]
fn a_value_that_the_guest_had_need_not_be_written() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.put();
    // An event of the host ends with just that value.
    cpu.write(ctl(0), RUNS | HOST_ONLY);
    cpu.run(150);
    cpu.write(ctl(0), GUEST_RUNS);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.enter(REACH);
    cpu.is_clean();
}

// Break: check_entry() ignores the status.
#[test]
fn an_overflow_of_the_host_is_not_the_guests() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctr(1), (1 << 48) - 1);
    cpu.write(ctl(1), RUNS);
    cpu.run(1);
    cpu.write(ctl(1), 0);
    cpu.enter(Entry {
        status: false,
        ..REACH
    });
    cpu.is_clean();
    cpu.exit();
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Status);
    cpu.exit();
    cpu.put();
    cpu.write(amd::MSR_GLOBAL_STATUS_SET, 2);
    cpu.enter(REACH);
    cpu.is_clean();
}

// Break: check_entry() ignores the LVTPC.
#[test]
fn the_guests_pmi_goes_to_the_guests_vector() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.lvtpc(NMI);
    cpu.write(ctl(0), GUEST_RUNS);
    cpu.enter(REACH);
    cpu.exit();
    cpu.is_clean();
    cpu.write(ctl(0), GUEST_RUNS | INT);
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Lvtpc);
    cpu.exit();
    cpu.lvtpc(GUEST_VECTOR);
    cpu.enter(REACH);
    cpu.is_clean();
}

// Break: check_read() accepts all that the guest reads.
#[test]
fn a_guest_reads_no_event_of_the_host() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.write(ctr(3), 1000);
    cpu.write(ctl(3), RUNS);
    cpu.run(1);
    // The bitmap changes while the guest runs.
    cpu.enter(NO_REACH);
    assert_eq!(cpu.read_as(ctr(3), GUEST), 1001);
    cpu.violates(Invariant::LeakIn, Cell::Counter(3));
}

// Break: check_uncore() looks at nothing.
#[test]
fn what_cpus_count_together_must_not_be_within_the_guests_reach() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.enter(REACH);
    cpu.exit();
    cpu.is_clean();
    cpu.write(amd::MSR_L3_PERF_CTL0 + 3, 7);
    cpu.enter(Entry {
        rdpmc: false,
        ..REACH
    });
    cpu.exit();
    cpu.is_clean();
    cpu.enter(REACH);
    let finding = cpu.violates(Invariant::LeakIn, Cell::Uncore(amd::DF_COUNTERS + 1));
    assert_eq!((finding.value, &*finding.register), (7, "L3_PERF_CTR1"));
}

// Break: rdpmc_cell() knows the core's counters only.
#[test]
fn a_guest_reads_nothing_that_cpus_count_together() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.enter(REACH);
    assert_eq!(cpu.pmu.rdpmc(6, GUEST), Ok(0));
    cpu.is_clean();
    // Another CPU starts it.
    cpu.write(amd::MSR_DF_PERF_CTL0, EN);
    cpu.run(10);
    assert_eq!(cpu.pmu.rdpmc(6, GUEST), Ok(10));
    cpu.violates(Invariant::LeakIn, Cell::Uncore(0));
    assert_eq!(cpu.pmu.rdpmc(6, HOST), Ok(10));
    cpu.is_clean();
}

// Break: take what is there after RESET for unclaimed.
#[test]
fn what_firmware_has_left_is_not_the_guests() {
    let scrambled = || {
        let mut cpu = amd_cpu(&SharedVcpus::default());
        cpu.pmu.power_on(PowerOn::Random(1), 0);
        assert_ne!(cpu.pmu.counters().get(0), 0);
        for n in 0..6 {
            cpu.write(ctl(n), 0);
        }
        for n in 0..amd::DF_COUNTERS as u32 {
            cpu.write(amd::MSR_DF_PERF_CTL0 + 2 * n + 1, 0);
        }
        for n in 0..amd::L3_COUNTERS as u32 {
            cpu.write(amd::MSR_L3_PERF_CTL0 + 2 * n + 1, 0);
        }
        cpu
    };
    let mut cpu = scrambled();
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Counter(0));

    let mut cpu = scrambled();
    for n in 0..6 {
        cpu.write(ctr(n), 0);
    }
    cpu.write(amd::MSR_GLOBAL_STATUS_SET, 0x3f);
    cpu.write(amd::MSR_GLOBAL_STATUS_CLR, 0x3e);
    cpu.enter(REACH);
    cpu.is_clean();

    let mut cpu = scrambled();
    for n in 0..6 {
        cpu.write(ctr(n), 0);
    }
    assert_ne!(cpu.read_as(amd::MSR_GLOBAL_STATUS, HOST), 0);
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Status);
}
