// SPDX-License-Identifier: GPL-2.0
//! Last branch records that stay in hardware until somebody moves them: a vCPU comes back with its own.

use crate::keeps::*;

// Break: lbr_origin() says of everything that it was kept, or exit_branches() does nothing.
#[test]
fn a_vcpu_comes_back_with_the_branches_it_was_left_with() {
    let mut cpu = after_a_jump();
    cpu.visit_and_jump(PASSES, 0x1001);
    let mut saved = cpu.save();
    cpu.load_branches(&saved);
    cpu.visit_and_jump(PASSES, 0x1002);
    cpu.is_clean();
    for (n, register) in [
        BranchRegister::From(1),
        BranchRegister::To(1),
        BranchRegister::Info(1),
    ]
    .into_iter()
    .enumerate()
    {
        saved = cpu.save();
        saved[1][n] ^= 1;
        cpu.load_branches(&saved);
        cpu.enter_with(PASSES, RECORDS);
        cpu.violates(Invariant::Exact, Cell::Lbr(register));
        cpu.leave();
    }
    // Loaded too late: it comes with none.
    cpu.save();
    cpu.enter_with(PASSES, RECORDS);
    cpu.violates(Invariant::Exact, FROM0);
}

// Break: enters_lbr() or asks_lbr() does nothing.
#[test]
fn branches_may_be_changed_by_user_space_by_the_guest_and_for_a_nested_one() {
    let changes: [fn(&mut Cpu<Intel>); 3] = [
        Cpu::goes_to_user_mode,
        |cpu| {
            let register = cpu.pmu.register(msr::LBR_DEPTH).unwrap();
            cpu.pmu.asks(VMCB, register, ALL);
        },
        |cpu| {
            cpu.enter(Entry {
                guest: 0x3000,
                ..NO_REACH
            });
            cpu.exit();
        },
    ];
    for change in changes {
        let mut cpu = after_a_jump();
        change(&mut cpu);
        cpu.save();
        cpu.visit_and_jump(PASSES, 0x1001);
        cpu.is_clean();
    }
}

// Break: released_lbr() loses nothing, also what was asked for, or what another vCPU has had;
// changed_by_guest() is not called, or for the host and the control; or check_branch_read() notes no read, or all.
#[test]
fn branches_that_nobody_has_read_are_not_cleared() {
    let back_from_user_mode = |cpu: &mut Cpu<Intel>| {
        cpu.goes_to_user_mode();
        cpu.enter_with(PASSES, RECORDS);
        cpu.leave();
    };
    // Without a save.
    let mut cpu = after_a_jump();
    cpu.load_branches(&Saved::new());
    cpu.is_clean();
    back_from_user_mode(&mut cpu);
    cpu.violates(Invariant::Exact, FROM0);
    // With one that is too old.
    let mut cpu = after_a_jump();
    let saved = cpu.save();
    cpu.load_branches(&saved);
    cpu.visit_and_jump(PASSES, 0x1001);
    cpu.load_branches(&saved);
    back_from_user_mode(&mut cpu);
    cpu.violates(Invariant::Exact, FROM0);
    // Of the newest only.
    let mut cpu = after_a_jump();
    cpu.visit_and_jump(PASSES, 0x1001);
    cpu.at(FUNCTION);
    cpu.read_as(msr::LBR_FROM0, HOST);
    cpu.load_branches(&saved);
    back_from_user_mode(&mut cpu);
    cpu.violates(Invariant::Exact, FROM0);
    // Of what the guest has written since.
    let mut cpu = after_a_jump();
    let saved = cpu.save();
    cpu.load_branches(&saved);
    cpu.enter_with(PASSES, RECORDS);
    cpu.write_as(msr::LBR_FROM0, 0x1001, GUEST);
    cpu.leave();
    cpu.load_branches(&saved);
    back_from_user_mode(&mut cpu);
    cpu.violates(Invariant::Exact, FROM0);
    // What was loaded is in memory.
    let mut cpu = after_a_jump();
    let saved = cpu.save();
    cpu.load_branches(&saved);
    cpu.enter_with(PASSES, RECORDS);
    cpu.write_as(msr::LBR_CTL, RECORDS, GUEST);
    cpu.leave();
    cpu.load_branches(&Saved::new());
    back_from_user_mode(&mut cpu);
    cpu.is_clean();
    // The guest has wanted it so.
    let mut cpu = after_a_jump();
    let register = cpu.pmu.register(msr::LBR_DEPTH).unwrap();
    cpu.pmu.asks(VMCB, register, ALL);
    cpu.load_branches(&Saved::new());
    back_from_user_mode(&mut cpu);
    cpu.is_clean();
    // It has wanted something else.
    let mut cpu = after_a_jump();
    let register = cpu.pmu.register(msr::LBR_CTL).unwrap();
    cpu.pmu.asks(VMCB, register, 0);
    cpu.load_branches(&Saved::new());
    back_from_user_mode(&mut cpu);
    cpu.violates(Invariant::Exact, FROM0);
    // It is another vCPU's loss.
    let mut cpu = after_a_jump();
    cpu.save();
    cpu.visit_and_jump(FOREIGN, 0x1001);
    cpu.load_branches(&Saved::new());
    cpu.pmu.switch(OTHER_STACK, STACK);
    cpu.goes_to_user_mode();
    cpu.enter_with(PASSES, RECORDS);
    cpu.leave();
    cpu.is_clean();
}

// Break: lbr_cpu() is None, or the CPU's own; released_lbr() releases nothing or all; an empty stack is kept, or what
// was there before a reset.
#[test]
fn a_vcpu_does_not_leave_its_branches_in_another_cpu() {
    let vcpus = SharedVcpus::default();
    let [mut cpu, mut other, mut third] = [0, 1, 2].map(|n| kept_cpu(n, &vcpus));
    cpu.enter_with(PASSES, RECORDS);
    cpu.leave();
    other.visit_and_jump(PASSES, 0x1000);
    other.is_clean();
    let empty = third.save();
    cpu.goes_to_user_mode();
    cpu.enter_with(PASSES, RECORDS);
    let finding = cpu.violates(Invariant::Exact, FROM0);
    assert_eq!((finding.value, finding.mark), (1, Mark::Guest(VMCB)));
    cpu.leave();
    cpu.load_branches(&empty);
    // As an interrupt from the new CPU does.
    other.visit_and_jump(PASSES, 0x1001);
    other.finding();
    let saved = other.save();
    cpu.load_branches(&saved);
    cpu.visit_and_jump(PASSES, 0x1002);
    cpu.is_clean();
    other.is_clean();
    // Power has gone.
    cpu.pmu.reset(Reset::Reset);
    other.goes_to_user_mode();
    other.visit_and_jump(PASSES, 0x1003);
    other.is_clean();
}

// Break: lbr_origin() asks for no other vCPU, or asks also for those of the process when user space may have given
// them.
#[test]
fn a_vcpu_does_not_come_with_branches_of_another_one() {
    let sibling = Entry {
        process: PROCESS,
        ..FOREIGN
    };
    for (other, goes, is_wrong) in [
        (sibling, false, true),
        (sibling, true, false),
        (FOREIGN, true, true),
    ] {
        let mut cpu = after_a_jump();
        cpu.save();
        cpu.visit_and_jump(other, 0x1001);
        let theirs = cpu.save();
        if goes {
            cpu.pmu.switch(OTHER_STACK, STACK);
            cpu.goes_to_user_mode();
        }
        cpu.is_clean();
        cpu.load_branches(&theirs);
        cpu.enter_with(PASSES, RECORDS);
        match is_wrong {
            true => {
                let finding = cpu.violates(Invariant::LeakIn, FROM0);
                assert_eq!(finding.mark, Mark::Guest(other.guest));
            }
            false => cpu.is_clean(),
        }
    }
}
