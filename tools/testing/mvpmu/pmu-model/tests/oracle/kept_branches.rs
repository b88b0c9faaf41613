// SPDX-License-Identifier: GPL-2.0
//! Last branch records that stay in hardware: nobody reads or spoils those of somebody else.

use pmu_model::intel::BranchKind;
use pmu_model::intel::LbrRegister;

use crate::keeps::*;

// Break: check_branch_read() passes all that the host reads, moves_branches() is true of more, or
// is_foreign_to_branches() of less.
#[test]
fn only_functions_for_guests_read_what_a_guest_has_recorded() {
    let mut cpu = after_a_jump();
    for place in [MODULE, FUNCTION, BEHIND - 1] {
        cpu.at(place);
        assert_eq!(cpu.read_as(msr::LBR_FROM0, HOST), 0x1000);
        cpu.is_clean();
    }
    for place in [KERNEL, FUNCTION - 1, BEHIND] {
        cpu.at(place);
        cpu.read_as(msr::LBR_FROM0, HOST);
        let finding = cpu.violates(Invariant::LeakOut, FROM0);
        assert_eq!((finding.value, finding.mark), (0x1000, Mark::Guest(VMCB)));
        assert_eq!(finding.register, "IA32_LBR_0_FROM_IP");
    }
    cpu.read_as(msr::LBR_TO0, HOST);
    cpu.violates(Invariant::LeakOut, Cell::Lbr(BranchRegister::To(0)));
    cpu.read_as(msr::LBR_INFO0, HOST);
    cpu.violates(Invariant::LeakOut, Cell::Lbr(BranchRegister::Info(0)));
    // 0 is nobody's, and no secret are the others.
    for register in [msr::LBR_FROM0 + 1, msr::LBR_CTL, msr::LBR_DEPTH] {
        cpu.read_as(register, HOST);
    }
    cpu.is_clean();
}

// Break: recorded() marks nothing, or set_mark() leaves the entries' marks for a write of the depth.
#[test]
fn what_the_host_records_once_they_are_saved_is_its_own() {
    let mut cpu = after_a_jump();
    let saved = cpu.save();
    assert_eq!(saved[0][..2], [0x1000, 0x2000]);
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.jump(0x3000);
    assert_eq!(cpu.read_as(msr::LBR_FROM0, HOST), 0x3000);
    cpu.is_clean();
    cpu.enter(PASSES);
    let finding = cpu.violates(Invariant::LeakIn, FROM0);
    assert_eq!((finding.value, finding.mark), (0x3000, Mark::Event));
}

// Break: recorded() does not ask for what it displaces, or asks where VM exit saves them.
#[test]
fn the_host_records_nothing_where_branches_of_a_guest_are() {
    let mut cpu = after_a_jump();
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.is_clean();
    cpu.jump(0x3000);
    let finding = cpu.violates(Invariant::Exact, CONTROL);
    assert_eq!((finding.value, finding.mark), (RECORDS, Mark::Event));
    // Nor is one of the guest's recorded for the host.
    let mut cpu = after_a_jump();
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.enter(NO_REACH);
    cpu.jump(0x1001);
    cpu.violates(Invariant::Exact, CONTROL);
    // Nor taken off.
    let mut cpu = after_a_jump();
    cpu.write(msr::LBR_CTL, CALL_STACK);
    cpu.goes(BranchKind::Return, 0x3000);
    cpu.violates(Invariant::Exact, CONTROL);
}

// Break: wrote_branches() passes all, or asks also for what is saved or 0, for the control, or for
// KVM's code.
#[test]
fn the_host_writes_to_no_branches_of_a_guest() {
    let mut cpu = after_a_jump();
    cpu.write(msr::LBR_FROM0, 7);
    let finding = cpu.violates(Invariant::Exact, FROM0);
    assert_eq!((finding.value, finding.mark), (7, Mark::Guest(VMCB)));
    let mut cpu = after_a_jump();
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.write(msr::LBR_CTL, 0);
    cpu.at(MODULE);
    cpu.write(msr::LBR_FROM0 + 1, 1);
    cpu.save();
    cpu.at(KERNEL);
    cpu.write(msr::LBR_DEPTH, ALL);
    cpu.write(msr::LBR_FROM0, 7);
    cpu.write(msr::LBR_FROM0, 0);
    cpu.is_clean();
    // What the guest has made 0 is nobody's.
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.enter_with(PASSES, RECORDS);
    cpu.jump(0x1001);
    for register in registers(0) {
        cpu.write_as(register, 0, GUEST);
    }
    cpu.leave();
    cpu.write(msr::LBR_FROM0, 7);
    cpu.is_clean();
}

// Break: recorded() does not ask where the branch was, or the control is a secret.
#[test]
fn a_guest_has_no_branch_of_the_host_recorded() {
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.enter_with(PASSES, RECORDS);
    cpu.jump(0x1000);
    cpu.exit();
    // It is no secret.
    assert_eq!(cpu.read_as(msr::LBR_CTL, HOST), RECORDS);
    cpu.is_clean();
    cpu.jump(0x3000);
    let finding = cpu.violates(Invariant::Stray, CONTROL);
    assert_eq!((finding.value, finding.mark), (RECORDS, Mark::Guest(VMCB)));
    cpu.goes(BranchKind::Return, 0x3000);
    cpu.violates(Invariant::Stray, CONTROL);
    // One that has written it, and whose exit does not clear it either.
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.enter(PASSES);
    cpu.write_as(msr::LBR_CTL, RECORDS, GUEST);
    cpu.exit();
    cpu.jump(0x3000);
    cpu.violates(Invariant::Stray, CONTROL);
    // The host's own, which VM entry loads from a list.
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.lvtpc(GUEST_VECTOR);
    cpu.enter(NO_REACH);
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.jump(0x1000);
    cpu.exit();
    cpu.jump(0x3000);
    cpu.is_clean();
    // With the control of VM exit.
    let mut cpu = after_a_jump();
    cpu.jump(0x3000);
    cpu.is_clean();
    cpu.save();
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.jump(0x3000);
    cpu.is_clean();
}

// Break: enter_branches() looks at nothing, or at what the guest cannot read.
#[test]
fn a_guest_is_entered_with_no_branch_of_the_host_within_its_reach() {
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.write(msr::LBR_TO0 + 3, 7);
    let cell = BranchRegister::To(3);
    cpu.enter(Entry {
        branches: !cell.bit(),
        ..PASSES
    });
    cpu.exit();
    cpu.is_clean();
    cpu.enter(Entry {
        branches: cell.bit(),
        ..PASSES
    });
    let finding = cpu.violates(Invariant::LeakIn, Cell::Lbr(cell));
    assert_eq!((finding.value, finding.mark), (7, Mark::Event));
    // The control, if it is not loaded.
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.enter_with(PASSES, RECORDS);
    cpu.leave();
    cpu.is_clean();
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.enter(Entry {
        branches: BranchRegister::Control.bit(),
        ..PASSES
    });
    cpu.violates(Invariant::LeakIn, CONTROL);
}

// Break: may_read() takes all guests for one, or each VMCS for a vCPU.
#[test]
fn a_guest_is_entered_with_no_branch_of_another_vcpu_within_its_reach() {
    let mut cpu = after_a_jump();
    // It may run where the records are, without them.
    cpu.enter(Entry {
        branches: 0,
        ..FOREIGN
    });
    cpu.exit();
    // A guest of the guest, by the same thread.
    cpu.visit_and_jump(PASSES, 0x1001);
    cpu.visit_and_jump(
        Entry {
            guest: 0x3000,
            ..PASSES
        },
        0x1002,
    );
    cpu.visit_and_jump(PASSES, 0x1003);
    cpu.is_clean();
    cpu.enter(FOREIGN);
    let finding = cpu.violates(Invariant::LeakIn, FROM0);
    assert_eq!((finding.value, finding.mark), (0x1003, Mark::Guest(VMCB)));
}

// Break: check_branch_read() passes all that guests read.
#[test]
fn a_guest_reads_its_own_branches_only() {
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.enter_with(PASSES, RECORDS);
    cpu.jump(0x1000);
    for register in [msr::LBR_FROM0, msr::LBR_CTL, msr::LBR_DEPTH] {
        cpu.read_as(register, GUEST);
    }
    cpu.leave();
    cpu.is_clean();
    // The bitmap changes while the guest runs.
    cpu.save();
    cpu.write(msr::LBR_FROM0, 7);
    cpu.enter(NO_REACH);
    cpu.read_as(msr::LBR_FROM0, GUEST);
    cpu.violates(Invariant::LeakIn, FROM0);
    cpu.write_as(msr::LBR_FROM0, 8, GUEST);
    cpu.read_as(msr::LBR_FROM0, GUEST);
    cpu.is_clean();
}

// Break: wrote_branches() does not ask who writes, or enter_branches() claims nothing, or for any guest.
#[test]
fn what_is_loaded_is_that_of_the_next_guest_that_has_it_within_reach() {
    let mut cpu = after_a_jump();
    let saved = cpu.save();
    cpu.load_branches(&saved);
    cpu.is_clean();
    cpu.read_as(msr::LBR_FROM0, HOST);
    assert_eq!(cpu.violates(Invariant::LeakOut, FROM0).mark, Mark::Lent);
    cpu.enter(Entry {
        branches: 0,
        ..FOREIGN
    });
    cpu.exit();
    cpu.visit_and_jump(PASSES, 0x1001);
    cpu.is_clean();
    cpu.enter(FOREIGN);
    cpu.violates(Invariant::LeakIn, Cell::Lbr(BranchRegister::From(0)));
}

// Break: record() does not move the marks, or leaves the last one when a return takes the first.
#[test]
fn marks_move_with_their_entries() {
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.write(msr::LBR_FROM0, 0x3000);
    cpu.enter_with(NO_REACH, CALL_STACK);
    cpu.goes(BranchKind::CallRelative, 0x1000);
    cpu.goes(BranchKind::CallRelative, 0x1001);
    cpu.goes(BranchKind::Return, 0x1002);
    cpu.leave();
    // The guest's call, the host's.
    cpu.read_as(msr::LBR_FROM0 + 1, HOST);
    cpu.is_clean();
    cpu.read_as(msr::LBR_FROM0, HOST);
    cpu.violates(Invariant::LeakOut, FROM0);
    cpu.enter_with(NO_REACH, CALL_STACK);
    cpu.goes(BranchKind::Return, 0x1003);
    cpu.leave();
    cpu.read_as(msr::LBR_FROM0, HOST);
    cpu.is_clean();
    // With a depth of 8 the ninth pushes the first out, and a return brings none back.
    cpu.write(msr::LBR_DEPTH, 8);
    cpu.enter_with(NO_REACH, CALL_STACK);
    for from in 0x1000..0x1009 {
        cpu.goes(BranchKind::CallRelative, from);
    }
    for from in 0x1009..0x1011 {
        cpu.goes(BranchKind::Return, from);
    }
    cpu.leave();
    cpu.write(msr::LBR_CTL, RECORDS);
    cpu.jump(0x3000);
    cpu.is_clean();
}

// Break: find() looks at the records.
#[test]
fn branches_may_stay_when_the_host_goes_on() {
    let mut cpu = after_a_jump();
    assert!(!cpu.pmu.has_left());
    cpu.goes_to_user_mode();
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.enter(NO_REACH);
    cpu.exit();
    cpu.visit_and_jump(PASSES, 0x1001);
    cpu.is_clean();
}

// Break: Oracle::new() takes what is there for nobody's, or a reset forgets the functions.
#[test]
fn what_firmware_has_left_is_the_hosts() {
    let mut cpu = kept_cpu(0, &SharedVcpus::default());
    cpu.pmu.power_on(PowerOn::Random(1), 0);
    cpu.pmu.reset(Reset::Reset);
    cpu.at(KERNEL);
    cpu.read_as(msr::LBR_FROM0, HOST);
    cpu.is_clean();
    cpu.enter(PASSES);
    let finding = cpu.violates(Invariant::LeakIn, FROM0);
    assert_eq!(finding.mark, Mark::Event);
    cpu.exit();
    cpu.save();
    cpu.visit_and_jump(FOREIGN, 0x1000);
    cpu.save();
    cpu.is_clean();
}

// Break: cell() of a register is None, or two have one bit.
#[test]
fn each_register_has_a_cell_and_a_bit() {
    let cpu = kept_cpu(0, &SharedVcpus::default());
    let bits = BranchRegister::all().fold(0, |bits, register| {
        assert_eq!(bits & register.bit(), 0);
        assert_eq!(register.bit().count_ones(), 1);
        bits | register.bit()
    });
    assert_eq!(bits.count_ones(), 98);
    let entries = BranchRegister::of_entries().fold(0, |bits, register| bits | register.bit());
    assert_eq!(entries, BranchRegister::BITS_OF_ENTRIES);
    for (number, register) in [
        (msr::LBR_CTL, LbrRegister::Control),
        (msr::LBR_DEPTH, LbrRegister::Depth),
        (msr::LBR_INFO0 + 31, LbrRegister::Info(31)),
    ] {
        let found = cpu.pmu.register(number).unwrap();
        let cell = cpu.pmu.map().cell(found);
        assert_eq!(cell, Some(Cell::Lbr(register.into())));
    }
}
