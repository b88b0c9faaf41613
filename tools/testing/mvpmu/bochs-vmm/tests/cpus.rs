// SPDX-License-Identifier: GPL-2.0

//! Two CPUs, as programs on them see each other.
//!
//! These need the Bochs core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

guests! { "guest/pmu.s", "guest/cpus_setup.s", "guest/cpus.s":
    guest_start_up guest_place guest_ipi guest_ioapic guest_code_of_other guest_tsc guest_two_counters
    guest_pmi_of_other guest_two_timers guest_halt_wakes guest_both_halt guest_halt guest_trace_of_other
    guest_debugctl_of_other
}

const TWO: [&str; 2] = ["--cpus", "2"];
/// Instructions that stop the counters, all counted.
const STOP: u64 = 4;

// Has to fail when a second start-up IPI starts it, or INIT does not stop it.
#[test]
#[ignore = "needs the Bochs core"]
fn a_cpu_starts_by_a_start_up_ipi_after_init() {
    assert_eq!(guest_start_up().values(&TWO), [1, 0, 2]);
}

// Has to fail when the other CPU has the number of the first one, or is the bootstrap processor.
#[test]
#[ignore = "needs the Bochs core"]
fn each_cpu_knows_its_place() {
    let x2apic_base = 0xfee0_0c00;
    let (id, two_ids, is_multiple) = (1, 1 << 8 | 2, 1);
    let (threads, shift, cores) = (1, 1, 2);
    let expected = [
        id,
        x2apic_base,
        two_ids,
        is_multiple,
        threads,
        id,
        shift,
        cores,
        0,
        0,
    ];
    assert_eq!(guest_place().values(&TWO), expected);
}

// Has to fail when a message goes to another CPU, or to none.
#[test]
#[ignore = "needs the Bochs core"]
fn interrupts_go_where_they_are_sent() {
    let (own, irqs, nmis) = (1, 10, 2);
    assert_eq!(guest_ipi().values(&TWO), [own, irqs, nmis]);
}

// Has to fail when the IOAPIC knows the first CPU only.
#[test]
#[ignore = "needs the Bochs core"]
fn the_ioapic_sends_interrupts_to_either_cpu() {
    assert_eq!(guest_ioapic().values(&TWO), [3]);
}

// Has to fail when a CPU forgets only what it has decoded itself.
#[test]
#[ignore = "needs the Bochs core"]
fn code_that_another_cpu_writes_is_what_runs() {
    assert_eq!(guest_code_of_other().values(&TWO), [2, 3]);
}

// Has to fail when each CPU has a time of its own.
#[test]
#[ignore = "needs the Bochs core"]
fn the_tsc_never_goes_back_between_cpus() {
    let (backwards, is_exchanged) = (0, 1);
    assert_eq!(guest_tsc().values(&TWO), [backwards, is_exchanged]);
}

// Has to fail when something of the PMU is not exchanged with the turn.
#[test]
#[ignore = "needs the Bochs core"]
fn each_cpu_counts_its_own_instructions() {
    let counted = |loops: u64| 1 + 2 * loops + STOP;
    let expected = [
        counted(100_000),
        100_000,
        counted(100_000),
        counted(50_000),
        50_000,
    ];
    assert_eq!(guest_two_counters().values(&TWO), expected);
}

// Has to fail when a PMI comes to the CPU that has the turn by then.
#[test]
#[ignore = "needs the Bochs core"]
fn a_pmi_is_that_of_the_cpu_whose_counter_overflows() {
    // Of at once, and after the end of the turn.
    for delay in ["0", "15000"] {
        let options = [&TWO[..], &["--pmi-delay", delay]].concat();
        assert_eq!(guest_pmi_of_other().values(&options), [0, 1]);
    }
}

// Has to fail when what one CPU says of its branches is said of those of all.
#[test]
#[ignore = "needs the Bochs core"]
fn each_cpu_stores_its_own_branches() {
    let (taken, debugctl) = (15_000, 0);
    let options = [&TWO[..], &["--cpu", "skylake"]].concat();
    let found = guest_trace_of_other().values(&options);
    assert_eq!(found, [24 * taken, debugctl]);
}

// Has to fail when IA32_DEBUGCTL is not exchanged with the turn, with a PMU or without.
#[test]
#[ignore = "needs the Bochs core"]
fn each_cpu_has_its_debugctl() {
    for pmu in ["on", "off"] {
        let options = [&TWO[..], &["--pmu", pmu]].concat();
        assert_eq!(guest_debugctl_of_other().values(&options), [0]);
    }
}

// Has to fail when a timer is that of the CPU whose turn it is, or time stands still while all CPUs
// are halted.
#[test]
#[ignore = "needs the Bochs core"]
fn each_cpu_has_its_timer_and_time_passes_while_all_wait() {
    let (has_passed, of_first, of_other, late) = (1, 1, 7, 0);
    let expected = [has_passed, of_first, of_other, late];
    assert_eq!(guest_two_timers().values(&TWO), expected);
}

// Has to fail when the first CPU that halts with interrupts off ends the run, and when both do not.
#[test]
#[ignore = "needs the Bochs core"]
fn the_machine_is_halted_for_good_when_all_its_cpus_are() {
    assert_eq!(guest_halt_wakes().values(&TWO), [1]);
    for guest in [guest_both_halt(), guest_halt()] {
        let outcome = guest.run(&TWO);
        assert_eq!(outcome.status, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("halted-for-good at 0x"));
    }
}

#[test]
#[ignore = "needs the Bochs core"]
fn two_runs_of_two_cpus_are_equal_to_the_instruction() {
    let run = || {
        let outcome = guest_tsc().run(&TWO);
        assert_eq!(outcome.stats["cpus"].as_array().unwrap().len(), 2);
        (outcome.values, outcome.stats)
    };
    assert_eq!(run(), run());
}

#[test]
#[ignore = "needs the Bochs core"]
fn what_wants_one_cpu_says_so_in_one_line() {
    let outcome = guest_tsc().run(&["--cpus", "2", "--sweep", "nmi"]);
    assert_eq!(outcome.status, 2);
    let said = "--sweep wants one CPU, and there are 2";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
}
