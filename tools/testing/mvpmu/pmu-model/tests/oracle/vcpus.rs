// SPDX-License-Identifier: GPL-2.0
//! I3, I4: a vCPU comes back with what it was left with.

use crate::cpu::*;

const OTHER: Entry = Entry {
    guest: VMCB02,
    stack: OTHER_STACK,
    ..REACH
};
/// The VMCB with which KVM runs a guest of the guest.
const NESTED: Entry = Entry {
    guest: VMCB02,
    ..REACH
};

impl Cpu<Amd> {
    /// The thread of `entry` runs its guest with this in counter 0, and puts it.
    fn visit(&mut self, entry: Entry, counter: u64, instructions: u64) {
        self.load(counter, GUEST_RUNS);
        self.enter(entry);
        self.run(instructions);
        self.exit();
        self.put();
    }

    fn asks(&mut self, entry: Entry, msr: u32, value: u64) {
        let register = self.pmu.register(msr).expect("the register exists");
        self.pmu.asks(entry.guest, register, value);
    }
}

// Break: join nothing.
#[test]
fn a_nested_guest_is_the_same_vcpu() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.enter(NESTED);
    cpu.run(5000);
    cpu.exit();
    cpu.enter(REACH);
    cpu.run(5000);
    cpu.exit();
    cpu.is_clean();
    // Both names know the value.
    cpu.put();
    cpu.load(10_150, GUEST_RUNS);
    cpu.enter(NESTED);
    cpu.is_clean();
    cpu.exit();
    cpu.put();
    cpu.visit(REACH, 77, 0);
    cpu.violates(Invariant::Exact, Cell::Counter(0));
}

// Break: join only what a guest has left something for.
#[test]
fn a_nested_guest_is_the_same_vcpu_also_if_each_exit_puts() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.visit(REACH, 100, 5000);
    cpu.visit(NESTED, 5100, 5000);
    cpu.visit(REACH, 10_100, 5000);
    cpu.goes_to_user_mode();
    cpu.visit(NESTED, 15_100, 5000);
    cpu.is_clean();
}

// Break: left_counter() only for what is within reach.
#[test]
fn a_counter_runs_on_in_a_nested_guest_that_cannot_read_it() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.enter(Entry {
        guest: VMCB02,
        ..NO_REACH
    });
    cpu.run(5000);
    cpu.exit();
    cpu.enter(REACH);
    cpu.is_clean();
    cpu.exit();
    cpu.put();
    cpu.visit(REACH, 150, 0);
    cpu.violates(Invariant::Exact, Cell::Counter(0));
}

// Break: do not count exits without reach, or count them twice, or not from 0 again.
#[test]
fn each_exit_of_a_guest_that_waits_may_have_been_an_emulated_instruction() {
    let waits = |cpu: &mut Cpu<Amd>, exits: u64| {
        for _ in 0..exits {
            cpu.enter(NO_REACH);
            cpu.exit();
        }
    };
    const FEW: u64 = 16;
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.visit(REACH, 100, 5000);
    waits(&mut cpu, 50);
    cpu.visit(REACH, 5100 + FEW + 50, 0);
    cpu.is_clean();
    cpu.visit(REACH, 5100 + 50 + 2 * FEW + 1, 0);
    cpu.violates(Invariant::Exact, Cell::Counter(0));

    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.visit(REACH, 100, 5000);
    waits(&mut cpu, 50);
    cpu.visit(REACH, 5100 + FEW + 51, 0);
    cpu.violates(Invariant::Exact, Cell::Counter(0));
}

// Break: origin() asks for no other; Other is not near it.
#[test]
fn the_state_of_another_vcpu_is_not_loaded() {
    for counter in [2_000_007, 2_000_009] {
        let mut cpu = amd_cpu(&SharedVcpus::default());
        cpu.visit(REACH, 1_000_000, 7);
        cpu.visit(OTHER, 2_000_000, 7);
        cpu.is_clean();
        cpu.visit(REACH, counter, 0);
        cpu.violates(Invariant::LeakIn, Cell::Counter(0));
    }
}

// Break: origin() compares counters of the same number.
#[test]
fn another_counter_of_another_vcpu_is_not_loaded() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.visit(REACH, 1_000_000, 7);
    cpu.visit(OTHER, 2_000_000, 7);
    cpu.write(amd::MSR_GLOBAL_CTL, 0);
    cpu.lvtpc(GUEST_VECTOR);
    cpu.write(ctr(0), 1_000_007);
    cpu.write(ctr(3), 2_000_007);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3f);
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Counter(3));
}

// Break: changed() does nothing; origin() compares vCPUs of a process.
#[test]
fn user_space_may_give_a_vcpu_any_value_of_its_vm_but_of_no_other() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    let foreign = Entry {
        guest: 0x3000,
        process: OTHER_PROCESS,
        stack: OTHER_STACK + 0x8000,
        ..REACH
    };
    cpu.visit(REACH, 1_000_000, 7);
    cpu.visit(OTHER, 2_000_000, 7);
    cpu.visit(foreign, 3_000_000, 7);
    for counter in [555_555, 2_000_007] {
        cpu.goes_to_user_mode();
        cpu.visit(REACH, counter, 0);
        cpu.is_clean();
    }
    cpu.goes_to_user_mode();
    cpu.visit(REACH, 3_000_007, 0);
    cpu.violates(Invariant::LeakIn, Cell::Counter(0));
    // A new vCPU may be given the state of an old one: migration.
    let fresh = Entry {
        fresh: true,
        ..REACH
    };
    cpu.visit(fresh, 3_000_007, 0);
    cpu.is_clean();
}

// Break: changed() marks no counter, or not the control; left_counter() or left_control() keeps the mark.
#[test]
fn what_user_space_writes_comes_with_the_registers_which_may_be_later() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.visit(REACH, 1000, 7);
    cpu.goes_to_user_mode();
    // The guest waits for the PMU.
    for _ in 0..2 {
        cpu.enter(NO_REACH);
        cpu.exit();
    }
    cpu.load(555_555, GUEST_RUNS);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x1);
    cpu.enter(REACH);
    cpu.exit();
    cpu.is_clean();
    cpu.put();
    cpu.load(555_555, GUEST_RUNS);
    cpu.enter(REACH);
    cpu.violates(Invariant::Exact, Cell::Control);
    cpu.exit();
    cpu.put();
    cpu.visit(REACH, 1000, 0);
    cpu.violates(Invariant::Exact, Cell::Counter(0));
}

// Break: left_counter() takes every value for the vCPU's own.
#[test]
fn two_vms_may_be_given_the_same_value() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    let foreign = Entry {
        process: OTHER_PROCESS,
        ..OTHER
    };
    cpu.visit(REACH, 1000, 0);
    cpu.visit(foreign, 5000, 0);
    cpu.goes_to_user_mode();
    cpu.visit(REACH, 5000, 0);
    cpu.is_clean();
}

// Break: origin() never says that nothing explains a value; it says so of nothing but 0.
#[test]
fn a_counter_is_what_it_was_at_the_last_exit() {
    for (counter, is_right) in [(1007, true), (1010, true), (1006, false), (0, false)] {
        let mut cpu = amd_cpu(&SharedVcpus::default());
        cpu.visit(REACH, 1000, 7);
        cpu.visit(REACH, counter, 7);
        if is_right {
            cpu.is_clean();
        } else {
            cpu.violates(Invariant::Exact, Cell::Counter(0));
        }
    }
}

// Break: switch() does not say whose user mode it was; user() forgets all threads.
#[test]
fn what_other_threads_do_in_user_mode_changes_no_vcpu() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    cpu.visit(REACH, 1000, 7);
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.goes_to_user_mode();
    cpu.pmu.switch(OTHER_STACK, STACK);
    cpu.visit(REACH, 500, 7);
    cpu.violates(Invariant::Exact, Cell::Counter(0));

    cpu.goes_to_user_mode();
    cpu.pmu.switch(STACK, OTHER_STACK);
    cpu.pmu.switch(OTHER_STACK, STACK);
    cpu.visit(REACH, 300, 7);
    cpu.is_clean();
}

// Break: asks() does nothing; it forgets the other values.
#[test]
fn what_the_guest_asks_kvm_to_write_is_its_own() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    let copied = Entry {
        fresh: true,
        ..OTHER
    };
    cpu.visit(REACH, 1000, 7);
    cpu.visit(copied, 0, 50);
    // perf in the guest moves an event to the other vCPU. Also if KVM refuses a later write.
    cpu.asks(OTHER, ctr(0), 1007);
    cpu.asks(OTHER, ctr(0), 9999);
    cpu.visit(OTHER, 1007, 5);
    cpu.visit(REACH, 1007, 5);
    cpu.asks(REACH, ctr(0), 400);
    cpu.visit(REACH, 401, 5);
    cpu.is_clean();
    // It was asked for before.
    cpu.visit(REACH, 400, 5);
    cpu.violates(Invariant::Exact, Cell::Counter(0));
}

// Break: asks() does not extend the sign.
#[test]
fn the_legacy_names_of_counters_take_half_of_a_value() {
    let mut cpu = Cpu::<Intel>::after_a_run();
    let register = cpu.pmu.register(msr::PMC0).unwrap();
    cpu.pmu.asks(VMCB, register, 0xffff_0000);
    cpu.write(msr::A_PMC0, 0xffff_ffff_0000);
    cpu.enter(REACH);
    cpu.is_clean();
}

// Break: enter() keeps what was known of a vCPU in real mode.
#[test]
fn init_clears_a_vcpu() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    let initial = Entry {
        initial: true,
        ..REACH
    };
    cpu.visit(REACH, 1000, 7);
    cpu.visit(initial, 0, 0);
    cpu.is_clean();
}

// Break: check_entry() does not look at the control; Intel's is compared, too.
#[test]
fn the_global_control_is_what_the_guest_has_made_it() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3e);
    cpu.enter(REACH);
    cpu.violates(Invariant::Exact, Cell::Control);
    cpu.write_as(amd::MSR_GLOBAL_CTL, 0x1, GUEST);
    cpu.exit();
    cpu.enter(REACH);
    cpu.is_clean();
    cpu.exit();
    cpu.asks(REACH, amd::MSR_GLOBAL_CTL, 0x3);
    cpu.write(amd::MSR_GLOBAL_CTL, 0x3);
    cpu.enter(REACH);
    cpu.is_clean();
    cpu.exit();
    // A nested guest may have another one.
    cpu.write(amd::MSR_GLOBAL_CTL, 0x7);
    cpu.enter(NESTED);
    cpu.is_clean();

    let mut cpu = Cpu::<Intel>::after_a_run();
    cpu.global(3);
    cpu.enter(REACH);
    cpu.is_clean();
}
