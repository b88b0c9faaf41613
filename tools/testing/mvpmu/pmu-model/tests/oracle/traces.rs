// SPDX-License-Identifier: GPL-2.0
//! Intel PT: whose registers they are, and whose trace.

use crate::traced::*;

// Break: entry_failed() reports nothing, or anything else.
#[test]
fn no_entry_fails_of_trace_en() {
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.host_begins(HOST_BASE, TRACES);
    cpu.is_clean();
    cpu.pmu.entry_failed_of_trace();
    let finding = cpu.violates(Invariant::Stray, CONTROL);
    assert_eq!((finding.value, finding.mark), (TRACES, Mark::Event));
    assert_eq!(finding.register, "IA32_RTIT_CTL");
}

// Break: enter_trace() leaves the control the host's, or traced() does not ask where the bytes go.
#[test]
fn what_a_guest_traces_goes_through_ept() {
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.load_trace(BEGINNING);
    cpu.enter_tracing(TRACING);
    cpu.jumps(true);
    cpu.is_clean();
    cpu.jumps(false);
    let finding = cpu.violates(Invariant::LeakOut, BASE);
    assert_eq!(
        (finding.value, finding.mark),
        (GUEST_BASE, Mark::Guest(VMCB))
    );
    cpu.leave_tracing();
    cpu.is_clean();
    // One of the host, which traces its guests too.
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.host_begins(HOST_BASE, TRACES);
    cpu.enter(SYSTEM);
    cpu.jumps(false);
    cpu.exit();
    cpu.jumps(false);
    cpu.is_clean();
}

// Break: exit_trace() takes the control for the host's, or traced() does not ask where it is.
#[test]
fn nothing_of_the_host_is_traced_for_a_guest() {
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.load_trace(BEGINNING);
    cpu.enter_tracing(TRACING);
    cpu.exit();
    cpu.is_clean();
    cpu.jumps(true);
    let finding = cpu.violates(Invariant::Stray, BASE);
    assert_eq!(finding.mark, Mark::Guest(VMCB));
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.host_begins(HOST_BASE, TRACES);
    cpu.jumps(false);
    cpu.is_clean();
}

// Break: wrote_trace() takes what any code writes for loaded, or what the one function writes for the host's.
#[test]
fn a_guest_traces_with_nothing_of_the_host() {
    for (name, cell) in [
        (msr::RTIT_OUTPUT_BASE, BASE),
        (msr::RTIT_OUTPUT_MASK_PTRS, MASK),
    ] {
        let mut cpu = pt_cpu(0, &SharedVcpus::default());
        cpu.load_trace(BEGINNING);
        cpu.write(name, GUEST_BASE);
        cpu.enter_tracing(TRACING);
        let finding = cpu.violates(Invariant::LeakIn, cell);
        assert_eq!((finding.value, finding.mark), (GUEST_BASE, Mark::Event));
    }
    // Not written by a function that only saves.
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.at(SAVE);
    cpu.write(msr::RTIT_OUTPUT_BASE, GUEST_BASE);
    cpu.enter_tracing(TRACING);
    cpu.violates(Invariant::LeakIn, BASE);
    // What the host's trace has come to is the host's.
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.host_begins(HOST_BASE, TRACES);
    cpu.jumps(false);
    cpu.host_stops();
    cpu.enter_tracing(Entry {
        trace: TraceEntry {
            reads: 0b1000,
            ..SILENT.trace
        },
        ..SILENT
    });
    cpu.violates(Invariant::LeakIn, MASK);
    // One that neither traces nor reads has nothing to do with it.
    cpu.leave_tracing();
    cpu.enter_tracing(SILENT);
    cpu.is_clean();
}

// Break: enter_trace() asks for registers that the trace does not use, or not for those that it uses.
#[test]
fn filters_are_asked_for_if_they_filter() {
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.write(msr::RTIT_ADDR0_A, 0x1000);
    cpu.load_trace(BEGINNING);
    cpu.visit_tracing(TRACING);
    cpu.is_clean();
    let filters = Entry {
        trace: TraceEntry {
            control: Some(FILTERS),
            ..TRACING.trace
        },
        ..TRACING
    };
    cpu.enter_tracing(filters);
    let finding = cpu.violates(Invariant::LeakIn, ADDR0);
    assert_eq!((finding.value, finding.mark), (0x1000, Mark::Event));
    cpu.leave_tracing();
    cpu.at(LOAD);
    cpu.write(msr::RTIT_ADDR0_A, 0x1000);
    cpu.at(KERNEL);
    cpu.enter_tracing(filters);
    cpu.is_clean();
}

// Break: may_read() is true of another guest's.
#[test]
fn a_guest_traces_with_nothing_of_another() {
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.enter_tracing(FOREIGN);
    let finding = cpu.violates(Invariant::LeakIn, STATUS);
    assert_eq!(finding.mark, Mark::Guest(VMCB));
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.load_trace([0, HOST_BASE, PAGE]);
    cpu.visit_tracing(FOREIGN);
    cpu.is_clean();
}

// Break: check_trace_read() passes what a guest reads, or what code of the host does.
#[test]
fn registers_are_read_by_their_owner() {
    let mut cpu = after_a_trace();
    cpu.read_as(msr::RTIT_OUTPUT_BASE, HOST);
    let finding = cpu.violates(Invariant::LeakOut, BASE);
    assert_eq!(
        (finding.value, finding.mark),
        (GUEST_BASE, Mark::Guest(VMCB))
    );
    for place in [LOAD, SAVE, BEHIND - 1, MODULE] {
        cpu.at(place);
        cpu.read_as(msr::RTIT_OUTPUT_BASE, HOST);
        cpu.is_clean();
    }
    cpu.at(BEHIND);
    cpu.read_as(msr::RTIT_OUTPUT_MASK_PTRS, HOST);
    cpu.violates(Invariant::LeakOut, MASK);
    // Of a guest that should not reach them.
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.host_begins(HOST_BASE, TRACES);
    cpu.host_stops();
    cpu.enter_tracing(SILENT);
    cpu.is_clean();
    cpu.read_as(msr::RTIT_OUTPUT_BASE, GUEST);
    let finding = cpu.violates(Invariant::LeakIn, BASE);
    assert_eq!((finding.value, finding.mark), (HOST_BASE, Mark::Event));
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.load_trace(BEGINNING);
    cpu.enter_tracing(TRACING);
    assert_eq!(cpu.read_as(msr::RTIT_OUTPUT_BASE, GUEST), GUEST_BASE);
    cpu.is_clean();
}

// Break: check_begin() is not called, asks for what the trace does not use, or for what the host had there anyway.
#[test]
fn a_trace_of_the_host_begins_with_its_own_registers() {
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.write(msr::RTIT_STATUS, 0);
    cpu.host_starts(TRACES);
    let finding = cpu.violates(Invariant::HostExact, BASE);
    assert_eq!(
        (finding.value, finding.mark),
        (GUEST_BASE, Mark::Guest(VMCB))
    );
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.write(msr::RTIT_STATUS, 0);
    cpu.write(msr::RTIT_OUTPUT_BASE, HOST_BASE);
    cpu.host_starts(TRACES);
    cpu.violates(Invariant::HostExact, MASK);
    // A range, if it filters by it.
    for (control, is_found) in [(TRACES, false), (FILTERS, true)] {
        let mut cpu = after_a_trace();
        cpu.save_trace();
        cpu.at(LOAD);
        cpu.write(msr::RTIT_ADDR0_A, 0x2000);
        cpu.at(KERNEL);
        cpu.host_begins(HOST_BASE, control);
        assert_eq!(cpu.finding().is_some(), is_found);
    }
    // The guest has loaded what was there.
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.host_begins(HOST_BASE, TRACES);
    cpu.host_stops();
    let saved = cpu.save_trace();
    cpu.load_trace(saved);
    cpu.host_starts(TRACES);
    cpu.is_clean();
}

// Break: wrote_trace() does not ask for what is unread, or has_read() takes one register for all.
#[test]
fn what_a_guest_was_left_with_is_read_before_it_is_gone() {
    let mut cpu = after_a_trace();
    cpu.write(msr::RTIT_STATUS, 0);
    let finding = cpu.violates(Invariant::Exact, STATUS);
    assert_eq!(finding.mark, Mark::Guest(VMCB));
    let mut cpu = after_a_trace();
    cpu.at(SAVE);
    cpu.read_as(msr::RTIT_STATUS, HOST);
    cpu.read_as(msr::RTIT_OUTPUT_BASE, HOST);
    cpu.at(KERNEL);
    cpu.write(msr::RTIT_STATUS, 0);
    cpu.is_clean();
    cpu.write(msr::RTIT_OUTPUT_MASK_PTRS, PAGE);
    cpu.violates(Invariant::Exact, MASK);
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.load_trace([0, HOST_BASE, PAGE]);
    cpu.is_clean();
}

// Break: explains() passes any value, exit_trace() keeps none, or check_left_trace() does not ask for the CPU.
#[test]
fn a_guest_comes_back_with_what_it_had() {
    let mut cpu = after_a_trace();
    let saved = cpu.save_trace();
    assert_ne!(saved[2], PAGE);
    cpu.load_trace(saved);
    cpu.visit_tracing(TRACING);
    cpu.is_clean();
    // An output that is no memory.
    let [status, base, mask] = cpu.save_trace();
    cpu.load_trace([status | 1 << 4, base, mask]);
    cpu.visit_tracing(TRACING);
    cpu.is_clean();
    // Something old.
    cpu.save_trace();
    cpu.load_trace(saved);
    cpu.enter_tracing(TRACING);
    let finding = cpu.finding().expect("a violation is reported");
    assert_eq!(finding.invariant, Invariant::Exact);
    // User space has been there.
    let mut cpu = after_a_trace();
    cpu.save_trace();
    cpu.goes_to_user_mode();
    cpu.load_trace(BEGINNING);
    cpu.visit_tracing(TRACING);
    cpu.is_clean();
}

// Break: asks_trace() forgets, or explains() does not look at it.
#[test]
fn a_guest_has_what_it_has_asked_for() {
    let asks = |cpu: &mut Cpu<Intel>, number, value| {
        let register = cpu.pmu.register(number).expect("it is there");
        cpu.pmu.asks(VMCB, register, value);
    };
    let mut cpu = after_a_trace();
    cpu.save_trace();
    asks(&mut cpu, msr::RTIT_STATUS, 0);
    asks(&mut cpu, msr::RTIT_OUTPUT_BASE, HOST_BASE);
    asks(&mut cpu, msr::RTIT_OUTPUT_MASK_PTRS, 0);
    // It does not trace at first.
    cpu.enter_tracing(SILENT);
    cpu.leave_tracing();
    cpu.load_trace([0, HOST_BASE, 0x7f]);
    cpu.visit_tracing(TRACING);
    cpu.is_clean();
    // It was used up.
    cpu.save_trace();
    cpu.load_trace([0, GUEST_BASE, 0x7f]);
    cpu.enter_tracing(TRACING);
    assert!(cpu.finding().is_some());
}

// Break: released() does nothing, or check_left_trace() does not ask for the CPU.
#[test]
fn a_guest_leaves_nothing_in_another_cpu() {
    let vcpus = SharedVcpus::default();
    let mut cpus = [pt_cpu(0, &vcpus), pt_cpu(1, &vcpus)];
    cpus[0].load_trace(BEGINNING);
    cpus[0].visit_tracing(TRACING);
    cpus[0].goes_to_user_mode();
    cpus[1].load_trace(BEGINNING);
    cpus[1].enter_tracing(TRACING);
    cpus[1].violates(Invariant::Exact, MASK);

    let vcpus = SharedVcpus::default();
    let mut cpus = [pt_cpu(0, &vcpus), pt_cpu(1, &vcpus)];
    cpus[0].load_trace(BEGINNING);
    cpus[0].visit_tracing(TRACING);
    let saved = cpus[0].save_trace();
    cpus[1].load_trace(saved);
    cpus[1].visit_tracing(TRACING);
    cpus[1].is_clean();
}

// Break: follows_traces() is always true.
#[test]
fn without_the_functions_nothing_is_known() {
    let mut cpu = Cpu::new(Intel::new(Config::SAPPHIRE_RAPIDS), &SharedVcpus::default());
    cpu.at(KERNEL);
    cpu.write(msr::RTIT_OUTPUT_BASE, GUEST_BASE);
    cpu.enter_tracing(TRACING);
    cpu.jumps(false);
    cpu.exit();
    cpu.jumps(false);
    cpu.is_clean();
}
