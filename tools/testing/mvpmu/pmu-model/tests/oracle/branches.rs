// SPDX-License-Identifier: GPL-2.0
//! The last branch record stack: nobody reads a branch of somebody else.

use pmu_model::amd::Branch;
use pmu_model::amd::BranchKind;
use pmu_model::amd::HostLbr;
use pmu_model::amd::SavedLbr;
use pmu_model::amd::LBRSE;
use pmu_model::amd::LBR_ENTRIES;
use pmu_model::amd::MSR_DEBUG_EXTN_CTL;
use pmu_model::amd::MSR_LBR_FROM0;
use pmu_model::amd::MSR_LBR_SELECT;

use crate::cpu::*;

const FROM0: Cell = Cell::Lbr(BranchRegister::From(0));
const TO0: Cell = Cell::Lbr(BranchRegister::To(0));
const SELECT: Cell = Cell::Lbr(BranchRegister::Filter);
const CONTROL: Cell = Cell::Lbr(BranchRegister::Control);
/// Suppresses conditional branches, which these are not.
const FILTER: u64 = 1 << 2;
/// It has LBR virtualization: nothing that is not loaded can be read.
const SWITCHED: Entry = Entry {
    branches: 0,
    ..NO_REACH
};
/// It has not, and its MSRs of the stack pass through.
const PASSES: Entry = Entry {
    branches: u128::MAX,
    ..NO_REACH
};
/// Another vCPU, of another VM.
const FOREIGN: Entry = Entry {
    guest: VMCB02,
    process: OTHER_PROCESS,
    stack: OTHER_STACK,
    ..SWITCHED
};
const RECORDS: SavedLbr = SavedLbr {
    debugctl: 0,
    control: LBRSE,
    select: FILTER,
    entries: [[0; 2]; LBR_ENTRIES],
};

fn from(n: usize) -> u32 {
    MSR_LBR_FROM0 + 2 * n as u32
}

impl Cpu<Amd> {
    fn jump(&mut self, from: u64) {
        self.pmu.branch(Branch {
            from,
            to: 0x2000,
            kind: BranchKind::JumpRelative,
            user: false,
        });
    }

    fn enter_with(&mut self, entry: Entry, saved: &SavedLbr) -> HostLbr {
        self.enter(entry);
        self.pmu.lbr_enter(saved).expect("it has a stack")
    }

    fn leave(&mut self, host: &HostLbr) -> SavedLbr {
        let saved = self.pmu.lbr_exit(host).expect("it has a stack");
        self.exit();
        saved
    }

    /// The guest is entered with LBR virtualization, and jumps there.
    fn visit_and_jump(&mut self, entry: Entry, saved: &SavedLbr, from: u64) -> SavedLbr {
        let host = self.enter_with(entry, saved);
        self.jump(from);
        self.leave(&host)
    }

    /// As perf does.
    fn clear(&mut self) {
        for n in 0..LBR_ENTRIES {
            self.write(from(n), 0);
            self.write(from(n) + 1, 0);
        }
        self.write(MSR_LBR_SELECT, 0);
    }

    /// A guest has recorded a branch and was left.
    fn after_a_jump() -> (Cpu<Amd>, SavedLbr) {
        let mut cpu = lbr_cpu(&SharedVcpus::default());
        let saved = cpu.visit_and_jump(SWITCHED, &RECORDS, 0x1000);
        cpu.is_clean();
        (cpu, saved)
    }
}

// Break: check_branch_read() passes all that the host reads, or loaded_branches() marks nothing.
#[test]
fn the_kernel_reads_no_branch_that_a_guest_has_left() {
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.at(KERNEL);
    assert_eq!(cpu.read_as(from(0), HOST), 0x1000);
    let finding = cpu.violates(Invariant::LeakOut, FROM0);
    assert_eq!((finding.value, finding.mark), (0x1000, Mark::Guest(VMCB)));
    assert_eq!(finding.register, "LastBranchStackFromIp0");
    cpu.read_as(MSR_LBR_SELECT, HOST);
    cpu.violates(Invariant::LeakOut, SELECT);
    // 0 is nobody's.
    cpu.read_as(from(1), HOST);
    cpu.is_clean();
}

// Break: check_branch_read() does not ask whose code it is.
#[test]
fn kvm_may_read_it() {
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.at(MODULE);
    cpu.read_as(from(0), HOST);
    cpu.is_clean();
}

// Break: wrote_branches() does nothing, or marks both halves of an entry.
#[test]
fn what_the_host_writes_is_its_own() {
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.at(KERNEL);
    cpu.write(from(0), 0x5000);
    cpu.read_as(from(0), HOST);
    cpu.is_clean();
    cpu.read_as(from(0) + 1, HOST);
    cpu.violates(Invariant::LeakOut, TO0);
    cpu.clear();
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.jump(0x3000);
    assert_eq!(cpu.read_as(from(0), HOST), 0x3000);
    cpu.is_clean();
}

// Break: record() does not move the marks.
#[test]
fn branches_of_the_host_move_those_of_a_guest_on() {
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.at(KERNEL);
    cpu.write(from(1), 0);
    cpu.write(MSR_LBR_SELECT, 0);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.jump(0x3000);
    assert_eq!(cpu.read_as(from(0), HOST), 0x3000);
    cpu.is_clean();
    assert_eq!(cpu.read_as(from(1), HOST), 0x1000);
    cpu.violates(Invariant::LeakOut, Cell::Lbr(BranchRegister::From(1)));
}

// Break: recorded() asks for no filter.
#[test]
fn a_branch_of_the_host_behind_the_filter_of_a_guest_is_no_record_of_the_hosts() {
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.at(KERNEL);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.jump(0x3000);
    cpu.is_clean();
    cpu.read_as(from(0), HOST);
    cpu.violates(Invariant::LeakOut, FROM0);
    // A filter of 0 is nobody's.
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    let unfiltered = SavedLbr {
        select: 0,
        ..RECORDS
    };
    cpu.visit_and_jump(SWITCHED, &unfiltered, 0x1000);
    cpu.at(KERNEL);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.jump(0x3000);
    cpu.read_as(from(0), HOST);
    cpu.is_clean();
}

// Break: left_branches() leaves the control to the guest.
#[test]
fn a_host_that_records_goes_on_after_an_exit() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    cpu.at(KERNEL);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.visit_and_jump(SWITCHED, &RECORDS, 0x1000);
    cpu.write(MSR_LBR_SELECT, 0);
    cpu.jump(0x3000);
    cpu.read_as(from(0), HOST);
    cpu.is_clean();
}

// Break: unloaded_branches() does nothing.
#[test]
fn a_guest_that_was_not_entered_has_left_nothing() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    cpu.at(KERNEL);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.jump(0x3000);
    let host = cpu.enter_with(SWITCHED, &RECORDS);
    cpu.pmu.lbr_not_entered(host);
    cpu.exit();
    cpu.read_as(from(0), HOST);
    cpu.jump(0x3000);
    cpu.is_clean();
}

// Break: recorded() takes branches of all guests for those of the guest.
#[test]
fn what_the_host_has_recorded_of_a_guest_is_the_hosts() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    cpu.at(KERNEL);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.enter(NO_REACH);
    cpu.jump(0x1000);
    cpu.exit();
    cpu.read_as(from(0), HOST);
    cpu.is_clean();
    cpu.enter(PASSES);
    cpu.violates(Invariant::LeakIn, FROM0);
}

// Break: recorded() does not ask where the branch was.
#[test]
fn a_guest_has_no_branch_of_the_host_recorded() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    cpu.enter(PASSES);
    cpu.write_as(MSR_DEBUG_EXTN_CTL, LBRSE, GUEST);
    cpu.jump(0x1000);
    cpu.exit();
    cpu.is_clean();
    cpu.jump(0x3000);
    let finding = cpu.violates(Invariant::Stray, CONTROL);
    assert_eq!((finding.value, finding.mark), (LBRSE, Mark::Guest(VMCB)));
    // The host's again.
    cpu.at(KERNEL);
    cpu.write(MSR_DEBUG_EXTN_CTL, LBRSE);
    cpu.jump(0x3000);
    cpu.is_clean();
}

// Break: enter_branches() looks at nothing, or at what the guest cannot read.
#[test]
fn a_guest_is_entered_with_no_branch_of_the_host_within_its_reach() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    cpu.enter(PASSES);
    cpu.exit();
    cpu.write(from(3) + 1, 7);
    cpu.enter(Entry {
        branches: !BranchRegister::To(3).bit(),
        ..PASSES
    });
    cpu.exit();
    cpu.is_clean();
    cpu.enter(Entry {
        branches: BranchRegister::To(3).bit(),
        ..PASSES
    });
    let finding = cpu.violates(Invariant::LeakIn, Cell::Lbr(BranchRegister::To(3)));
    assert_eq!((finding.value, finding.mark), (7, Mark::Event));
}

// Break: may_read() takes all guests for one, or each VMCB for a vCPU.
#[test]
fn a_guest_is_entered_with_no_branch_of_another_vcpu_within_its_reach() {
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.enter(PASSES);
    cpu.exit();
    // A guest of the guest, by the same thread.
    cpu.enter(Entry {
        guest: 0x3000,
        ..PASSES
    });
    cpu.exit();
    cpu.is_clean();
    cpu.enter(Entry {
        branches: u128::MAX,
        ..FOREIGN
    });
    let finding = cpu.violates(Invariant::LeakIn, FROM0);
    assert_eq!(finding.mark, Mark::Guest(VMCB));
}

// Break: check_branch_read() passes all that guests read.
#[test]
fn a_guest_reads_its_own_branches_only() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    let host = cpu.enter_with(SWITCHED, &RECORDS);
    cpu.jump(0x1000);
    cpu.read_as(from(0), GUEST);
    cpu.read_as(MSR_DEBUG_EXTN_CTL, GUEST);
    cpu.leave(&host);
    cpu.is_clean();
    // The bitmap changes while the guest runs.
    cpu.clear();
    cpu.write(from(0), 7);
    cpu.enter(SWITCHED);
    cpu.read_as(from(0), GUEST);
    cpu.violates(Invariant::LeakIn, FROM0);
    cpu.write_as(from(0), 8, GUEST);
    cpu.read_as(from(0), GUEST);
    cpu.is_clean();
}

// Break: wrote_branches() does not ask whether the PMU is lent, or enter_branches() claims nothing.
#[test]
fn what_kvm_loads_while_the_pmu_is_lent_is_the_guests() {
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    cpu.lvtpc(GUEST_VECTOR);
    cpu.at(MODULE);
    cpu.write(from(0), 7);
    cpu.enter(PASSES);
    cpu.exit();
    cpu.is_clean();
    cpu.lvtpc(NMI);
    cpu.enter(Entry {
        branches: u128::MAX,
        ..FOREIGN
    });
    cpu.violates(Invariant::LeakIn, FROM0);
}

// Break: lbr_origin() says of everything that it was kept.
#[test]
fn a_vcpu_comes_back_with_the_branches_it_was_left_with() {
    let (mut cpu, saved) = Cpu::after_a_jump();
    let saved = cpu.visit_and_jump(SWITCHED, &saved, 0x1001);
    cpu.is_clean();
    let mut changed = saved;
    changed.entries[1][0] += 1;
    cpu.visit_and_jump(SWITCHED, &changed, 0x1002);
    cpu.violates(Invariant::Exact, Cell::Lbr(BranchRegister::From(1)));
    // #DB that KVM injects clears LBRSE.
    let (mut cpu, mut saved) = Cpu::after_a_jump();
    saved.control = 0;
    let saved = cpu.visit_and_jump(SWITCHED, &saved, 0x1001);
    cpu.is_clean();
    let host = cpu.enter_with(SWITCHED, &SavedLbr { select: 0, ..saved });
    cpu.violates(Invariant::Exact, SELECT);
    cpu.leave(&host);
}

// Break: enters_lbr() or asks_lbr() does nothing.
#[test]
fn branches_may_be_changed_by_user_space_by_the_guest_and_for_a_nested_one() {
    let changed = SavedLbr::default();
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.goes_to_user_mode();
    cpu.visit_and_jump(SWITCHED, &changed, 0);
    cpu.is_clean();

    // Also if it was entered without them since.
    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.goes_to_user_mode();
    cpu.enter(NO_REACH);
    cpu.exit();
    cpu.visit_and_jump(SWITCHED, &changed, 0);
    cpu.is_clean();

    let (mut cpu, _) = Cpu::after_a_jump();
    let register = cpu.pmu.register(from(0)).unwrap();
    cpu.pmu.asks(VMCB, register, 0);
    cpu.visit_and_jump(SWITCHED, &changed, 0);
    cpu.is_clean();

    let (mut cpu, _) = Cpu::after_a_jump();
    cpu.enter(Entry {
        guest: 0x3000,
        ..NO_REACH
    });
    cpu.exit();
    cpu.visit_and_jump(SWITCHED, &changed, 0);
    cpu.is_clean();
}

// Break: lbr_origin() asks for no other vCPU, takes what it was given or nothing at all for its own, or asks
// also for those of the process when user space may have given them.
#[test]
fn a_vcpu_does_not_come_with_branches_of_another_one() {
    let vcpus = SharedVcpus::default();
    let sibling = Entry {
        process: PROCESS,
        ..FOREIGN
    };
    for (other, goes, invariant) in [
        (sibling, false, Some(Invariant::LeakIn)),
        (sibling, true, None),
        (FOREIGN, true, Some(Invariant::LeakIn)),
    ] {
        let fresh = |entry| Entry {
            fresh: true,
            ..entry
        };
        let mut cpu = lbr_cpu(&vcpus);
        cpu.visit_and_jump(fresh(SWITCHED), &RECORDS, 0x1000);
        let left = cpu.visit_and_jump(fresh(other), &RECORDS, 0x1001);
        if goes {
            cpu.pmu.switch(OTHER_STACK, STACK);
            cpu.goes_to_user_mode();
        }
        cpu.is_clean();
        cpu.visit_and_jump(SWITCHED, &left, 0x1002);
        match invariant {
            Some(invariant) => {
                let finding = cpu.violates(invariant, FROM0);
                assert_eq!(finding.mark, Mark::Guest(other.guest));
            }
            None => cpu.is_clean(),
        }
    }
    // Both were given the same, for example by a snapshot.
    let mut cpu = lbr_cpu(&SharedVcpus::default());
    let mut given = RECORDS;
    given.entries[0] = [7, 7];
    cpu.visit_and_jump(SWITCHED, &RECORDS, 0x1000);
    let host = cpu.enter_with(FOREIGN, &given);
    cpu.leave(&host);
    cpu.goes_to_user_mode();
    let host = cpu.enter_with(SWITCHED, &given);
    cpu.leave(&host);
    cpu.is_clean();
    // One has cleared its own.
    let host = cpu.enter_with(FOREIGN, &given);
    for msr in [from(0), from(0) + 1] {
        let owner = Owner::Guest(FOREIGN.guest);
        cpu.write_as(msr, 0, Access { owner, cpl: 0 });
    }
    cpu.leave(&host);
    cpu.goes_to_user_mode();
    cpu.visit_and_jump(SWITCHED, &RECORDS, 0x1001);
    cpu.is_clean();
}

// Break: find() looks at the stack.
#[test]
fn branches_may_stay_when_the_host_goes_on() {
    let (mut cpu, _) = Cpu::after_a_jump();
    assert!(!cpu.pmu.has_left());
    cpu.goes_to_user_mode();
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.visit_and_jump(FOREIGN, &RECORDS, 0x1000);
    cpu.is_clean();
}
