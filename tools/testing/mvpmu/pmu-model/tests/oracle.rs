// SPDX-License-Identifier: GPL-2.0
//! The oracle: each check passes what a right host does and reports what a wrong one does.
//!
//! The argument for the rules stands in `oracle.rs`. The comment above a test names a change to
//! the oracle that makes the test fail.

use pmu_model::amd;
use pmu_model::amd::Amd;
use pmu_model::amd::Version;
use pmu_model::intel::msr;
use pmu_model::intel::Config;
use pmu_model::intel::Intel;
use pmu_model::oracle::Entry;
use pmu_model::oracle::Finding;
use pmu_model::oracle::Invariant;
use pmu_model::oracle::Oracle;
use pmu_model::oracle::SharedVcpus;
use pmu_model::Access;
use pmu_model::Cell;
use pmu_model::Class;
use pmu_model::Deltas;
use pmu_model::Owner;
use pmu_model::Pmu;
use pmu_model::Source;
use pmu_model::Watched;

const USR: u64 = 1 << 16;
const OS: u64 = 1 << 17;
const INT: u64 = 1 << 20;
const EN: u64 = 1 << 22;
const GUEST_ONLY: u64 = 1 << 40;
const HOST_ONLY: u64 = 1 << 41;
const INSTRUCTIONS: u64 = 0xc0;
const RUNS: u64 = INSTRUCTIONS | USR | OS | EN;
const GUEST_RUNS: u64 = RUNS | GUEST_ONLY;

const NMI: u32 = 0x400;
const GUEST_VECTOR: u32 = 0xf5;
const STACK: u64 = 0xffff_c900_0001_3e00;
const OTHER_STACK: u64 = 0xffff_c900_0002_3e00;
const VMCB: u64 = 0x1000;
const VMCB02: u64 = 0x2000;

const HOST: Access = Access {
    owner: Owner::Host,
    cpl: 0,
};
const USER: Access = Access {
    owner: Owner::Host,
    cpl: 3,
};
const GUEST: Access = Access {
    owner: Owner::Guest(VMCB),
    cpl: 0,
};

/// Everything within reach.
const REACH: Entry = Entry {
    guest: VMCB,
    fresh: false,
    stack: STACK,
    counters: u64::MAX,
    status: true,
};
/// Nothing within reach.
const NO_REACH: Entry = Entry {
    counters: 0,
    status: false,
    ..REACH
};

struct Cpu<M: Watched> {
    pmu: Pmu<M>,
    guest: bool,
}

impl<M: Watched> Cpu<M> {
    fn new(map: M, vcpus: &SharedVcpus) -> Self {
        let mut pmu = Pmu::new(map);
        pmu.watch(Oracle::new(0, vcpus.clone()));
        Cpu { pmu, guest: false }
    }

    fn write_as(&mut self, msr: u32, value: u64, access: Access) {
        let register = self.pmu.register(msr).expect("the register exists");
        self.pmu.write(register, value, access).expect("it can be");
    }

    fn write(&mut self, msr: u32, value: u64) {
        self.write_as(msr, value, HOST);
    }

    fn read_as(&mut self, msr: u32, access: Access) -> u64 {
        let register = self.pmu.register(msr).expect("the register exists");
        self.pmu.read(register, access).expect("it can be")
    }

    fn run(&mut self, instructions: u64) {
        let mut deltas = Deltas::default();
        let class = Class::new(self.guest, false);
        deltas.add(Source::Instructions, class, instructions);
        let _ = self.pmu.fold(&deltas);
    }

    fn enter(&mut self, entry: Entry) {
        self.guest = true;
        self.pmu.enter(entry);
    }

    fn exit(&mut self) {
        self.guest = false;
        self.pmu.exit();
    }

    fn lvtpc(&mut self, value: u32) {
        self.pmu.oracle_mut().unwrap().lvtpc(value, Owner::Host);
    }

    fn finding(&mut self) -> Option<Finding> {
        self.pmu.oracle_mut().unwrap().take_finding().map(|f| *f)
    }

    fn is_clean(&mut self) {
        if let Some(finding) = self.finding() {
            panic!("{finding}");
        }
    }

    fn violates(&mut self, invariant: Invariant, cell: Cell) -> Finding {
        let finding = self.finding().expect("a violation is reported");
        assert_eq!((finding.invariant, finding.cell), (invariant, cell));
        finding
    }
}

const fn ctl(n: u32) -> u32 {
    amd::MSR_PERF_CTL0 + 2 * n
}

const fn ctr(n: u32) -> u32 {
    amd::MSR_PERF_CTR0 + 2 * n
}

fn amd_cpu(vcpus: &SharedVcpus) -> Cpu<Amd> {
    let mut cpu = Cpu::new(Amd::new(Version::PerfMonV2), vcpus);
    cpu.pmu.map_mut().set_svme(true);
    cpu
}

impl Cpu<Amd> {
    fn load(&mut self, counter: u64, selector: u64) {
        self.write(amd::MSR_GLOBAL_CTL, 0);
        self.lvtpc(GUEST_VECTOR);
        self.write(ctr(0), counter);
        self.write(ctl(0), selector);
        self.write(amd::MSR_GLOBAL_CTL, 0x3f);
    }

    fn put(&mut self) {
        self.write(amd::MSR_GLOBAL_CTL, 0);
        self.write(amd::MSR_GLOBAL_STATUS_CLR, 0x3f);
        self.write(ctr(0), 0);
        self.write(ctl(0), 0);
        self.lvtpc(NMI);
        self.write(amd::MSR_GLOBAL_CTL, 0x3f);
    }

    /// A guest has counted and was left.
    fn after_a_run() -> Cpu<Amd> {
        let mut cpu = amd_cpu(&SharedVcpus::default());
        cpu.load(100, GUEST_RUNS);
        cpu.enter(REACH);
        cpu.run(50);
        cpu.exit();
        cpu.run(5);
        cpu.is_clean();
        cpu
    }
}

fn intel_cpu() -> Cpu<Intel> {
    Cpu::new(Intel::new(Config::V5), &SharedVcpus::default())
}

impl Cpu<Intel> {
    fn global(&mut self, value: u64) {
        self.pmu.map_mut().set_global_ctrl(value).unwrap();
    }

    fn load(&mut self) {
        self.write(msr::GLOBAL_CTRL, 0);
        self.lvtpc(GUEST_VECTOR);
        self.write(msr::A_PMC0, 100);
        self.write(msr::PERFEVTSEL0, RUNS);
        self.write(msr::FIXED_CTR_CTRL, 0b0011);
    }

    fn after_a_run() -> Cpu<Intel> {
        let mut cpu = intel_cpu();
        cpu.load();
        cpu.global(1 << 32 | 1);
        cpu.enter(REACH);
        cpu.run(50);
        cpu.global(0);
        cpu.exit();
        cpu.run(5);
        cpu.is_clean();
        cpu
    }
}

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

// Break: compare VMCBs rather than stacks; do not join them.
#[test]
fn a_nested_guest_is_the_same_vcpu() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    let nested = Entry {
        guest: VMCB02,
        ..REACH
    };
    cpu.enter(nested);
    cpu.run(5000);
    cpu.exit();
    cpu.enter(REACH);
    cpu.run(5000);
    cpu.exit();
    cpu.is_clean();
    // Both names know the value.
    cpu.put();
    cpu.load(10_150, GUEST_RUNS);
    cpu.enter(nested);
    cpu.is_clean();
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

// Break: other_with() finds nothing.
#[test]
fn the_state_of_another_vcpu_is_not_loaded() {
    let vcpus = SharedVcpus::default();
    let mut cpu = amd_cpu(&vcpus);
    let other = Entry {
        guest: VMCB02,
        fresh: true,
        stack: OTHER_STACK,
        ..REACH
    };
    for (entry, counter) in [(REACH, 1_000_000), (other, 2_000_000)] {
        cpu.load(counter, GUEST_RUNS);
        cpu.enter(entry);
        cpu.run(7);
        cpu.exit();
        cpu.put();
    }
    // Its own, an instruction later; and what user space has written.
    for counter in [1_000_008, 555_555] {
        cpu.load(counter, GUEST_RUNS);
        cpu.enter(REACH);
        cpu.exit();
        cpu.put();
    }
    cpu.is_clean();
    cpu.load(2_000_007, GUEST_RUNS);
    cpu.enter(REACH);
    cpu.violates(Invariant::LeakIn, Cell::Counter(0));
    cpu.exit();
    cpu.put();
    // A new vCPU may be given the state of an old one: migration.
    cpu.load(1_000_007, GUEST_RUNS);
    cpu.enter(Entry {
        fresh: true,
        ..REACH
    });
    cpu.is_clean();
}

// Break: left_with() takes every value for the vCPU's own.
#[test]
fn two_vcpus_may_be_given_the_same_value() {
    let mut cpu = amd_cpu(&SharedVcpus::default());
    let other = Entry {
        guest: VMCB02,
        stack: OTHER_STACK,
        ..REACH
    };
    for (entry, counter) in [(REACH, 1000), (other, 5000), (REACH, 5000)] {
        cpu.load(counter, GUEST_RUNS);
        cpu.enter(entry);
        cpu.exit();
        cpu.put();
    }
    cpu.is_clean();
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

// Break: EMULATED is 0.
#[test]
fn an_emulated_instruction_leaves_the_counter_the_guests() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    cpu.write(ctr(0), 151);
    cpu.write(ctl(0), 0);
    cpu.pmu.user();
    cpu.violates(Invariant::LeakOut, Cell::Counter(0));
    cpu.write(ctr(0), 1);
    cpu.lvtpc(NMI);
    cpu.pmu.user();
    cpu.is_clean();
    // 0 is nobody's, and what the host makes of it the host's.
    cpu.write(ctr(0), 0);
    cpu.write(ctr(0), 9);
    cpu.pmu.user();
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

// Break: leave the address or the operations out.
#[test]
fn a_report_says_what_has_happened() {
    let mut cpu = Cpu::<Amd>::after_a_run();
    let rip = 0xffff_ffff_8100_1234;
    cpu.pmu.oracle_mut().unwrap().at(rip, 0);
    cpu.pmu.user();
    let text = cpu
        .violates(Invariant::LeakOut, Cell::Counter(0))
        .to_string();
    for part in [
        "violation of I2 (no leak out): the host goes to user mode",
        "PERF_CTR0 holds 0x96, owner the guest of VMCB/VMCS 0x1000",
        "CPU 0, CPL 0, at 0xffffffff81001234",
        "WRMSR Ctl(0) = 0x100004300c0",
        "VM entry of 0x1000",
        "VM exit of 0x1000",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.starts_with("oracle:")));
}
