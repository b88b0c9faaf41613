// SPDX-License-Identifier: GPL-2.0

//! The PMU as a program on the machine sees it, to the instruction.
//!
//! These need the Bochs core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

guests! { "guest/pmu.s":
    guest_loop guest_nothing guest_rdpmc guest_fault guest_rep guest_pmi guest_freeze guest_masked
    guest_rdpmc_gp guest_self_branch guest_rings guest_events guest_skid guest_absent guest_triple_fault guest_halt guest_spin guest_tpause guest_late guest_cycles
    guest_power_on guest_branches guest_interrupts guest_trace guest_no_trace guest_own_code
}

const GLOBAL_STATUS_FROZEN: u64 = 1 << 59;
const LVTPC_MASKED: u64 = 1 << 16;
const NMI: u64 = 0x400;
/// Instructions that stop the counters, all counted.
const STOP: u64 = 4;

#[test]
#[ignore = "needs the Bochs core"]
fn a_loop_is_counted_to_the_instruction() {
    let counted = 1 + 2000 + STOP;
    assert_eq!(guest_loop().values(&[]), [counted, 1000, counted]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn the_write_that_starts_is_not_counted_and_the_one_that_stops_is() {
    assert_eq!(guest_nothing().values(&[]), [STOP, 0, STOP]);
}

// Has to fail when a write that misses the TLB leaves what was decoded.
#[test]
#[ignore = "needs the Bochs core"]
fn code_that_is_written_is_what_runs() {
    assert_eq!(guest_own_code().values(&[]), [1, 2]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn rdpmc_does_not_see_itself() {
    assert_eq!(guest_rdpmc().values(&[]), [1, 3]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn an_instruction_that_faults_is_not_counted() {
    let counted = 3 + 4 + STOP;
    assert_eq!(guest_fault().values(&[]), [1, counted, 1, counted]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn an_interrupted_string_instruction_is_one_instruction() {
    let values = guest_rep().values(&[]);
    let [instructions, branches, fixed, interrupts] = values[..] else {
        panic!("{values:?}");
    };
    assert!(interrupts > 10, "the timer interrupted {interrupts} times");
    // The handler: INC, 3 PUSH, MOV, MOV, MOV, WRMSR, 3 POP, IRETQ.
    assert_eq!(instructions, 4 + STOP + 12 * interrupts);
    assert_eq!((branches, fixed), (interrupts, instructions));
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_change_of_ring_counts_where_it_comes_from() {
    assert_eq!(guest_rings().values(&[]), [1 + 200 + 1, 3 + STOP]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn memory_flushes_mispredictions_and_slots_are_counted() {
    let (reads, writes, both, flushes, branches) = (3, 2, 4, 2, 32);
    // MOV to ECX, then those of `stop`.
    let instructions = reads + writes + both + flushes + branches + 1 + STOP;
    let expected = [
        reads + both,
        writes + both,
        reads + writes + both,
        flushes,
        // The predictor expects that the loop goes on.
        1,
        4 * instructions,
    ];
    assert_eq!(guest_events().values(&[]), expected);
}

// Has to fail when two kinds are exchanged.
#[test]
#[ignore = "needs the Bochs core"]
fn kinds_of_branches_are_told_apart() {
    let (taken, not_taken, jumps, calls, returns, far, indirect) = (1, 2, 2, 3, 3, 1, 2);
    let expected = [
        taken,
        not_taken,
        taken + not_taken,
        calls,
        returns,
        taken + jumps + calls + returns,
        far,
        indirect,
    ];
    assert_eq!(guest_branches().values(&[]), expected);
}

// Has to fail when INT is one, or an NMI is none.
#[test]
#[ignore = "needs the Bochs core"]
fn interrupts_are_those_from_outside() {
    let (nmis, handled) = (1, 2);
    assert_eq!(guest_interrupts().values(&[]), [nmis, handled, 2]);
}

// Has to fail when `from` is where it goes, or there is no PMI.
#[test]
#[ignore = "needs the Bochs core"]
fn branches_are_stored_in_memory_where_the_cpu_can_do_it() {
    let (interrupts, taken, returns) = (1, 9, 1);
    let (from, to, status) = (2, 0, 0);
    for cpu in ["skylake", "icelake"] {
        let expected = [interrupts, 24 * (taken + returns), from, to, status];
        assert_eq!(guest_trace().values(&["--cpu", cpu]), expected, "{cpu}");
        assert_eq!(guest_no_trace().values(&["--cpu", cpu]), [0, 0], "{cpu}");
    }
    assert_eq!(guest_no_trace().values(&[]), [1, 1]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_branch_to_itself_is_counted_each_time() {
    let counted = 1 + 100 + STOP;
    assert_eq!(guest_self_branch().values(&[]), [counted, 100, counted]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn the_pmi_comes_before_the_instruction_after_the_overflow() {
    let expected: Vec<u64> = (1..=16).collect();
    assert_eq!(guest_skid().values(&[]), expected);
}

// Has to fail when the instruction that overflows is one of those that are waited for.
#[test]
#[ignore = "needs the Bochs core"]
fn a_delayed_pmi_comes_so_many_instructions_later() {
    for delay in [1, 3] {
        let option = delay.to_string();
        let expected: Vec<u64> = (1..=16).map(|n| n + delay).collect();
        assert_eq!(guest_skid().values(&["--pmi-delay", &option]), expected);
    }
}

// Has to fail when LVTPC is looked at when the counter overflows.
#[test]
#[ignore = "needs the Bochs core"]
fn a_late_pmi_comes_as_lvtpc_is_by_then() {
    let (nmi, interrupt) = ([1, 0, 1], [0, 1, 1]);
    assert_eq!(guest_late().values(&[]), nmi);
    assert_eq!(guest_late().values(&["--pmi-delay", "1"]), nmi);
    assert_eq!(guest_late().values(&["--pmi-delay", "200"]), interrupt);
}

#[test]
#[ignore = "needs the Bochs core"]
fn cycles_and_reference_cycles_have_weights() {
    assert_eq!(guest_cycles().values(&[]), [4, 4, 4, 4, 4, 16]);
    let weighted = guest_cycles().values(&["--weights", "3:2"]);
    assert_eq!(weighted, [12, 8, 4, 12, 8, 48]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn firmware_leaves_the_same_for_the_same_seed() {
    assert_eq!(guest_power_on().values(&[])[..4], [0, 0, 0xff, 0]);
    let of = |seed: &str| guest_power_on().values(&["--power-on", seed]);
    assert_eq!(of("random:1"), of("random:1"));
    assert_ne!(of("random:1"), of("random:2"));
    assert!(of("random:1").iter().all(|value| *value != 0));
}

#[test]
#[ignore = "needs the Bochs core"]
fn an_overflow_gives_one_nmi_and_masks_lvtpc() {
    let counted = 1 + 2000 + STOP;
    // The handler: INC, IRETQ.
    let after = counted + 2 - 100;
    assert_eq!(guest_pmi().values(&[]), [1, 1, NMI | LVTPC_MASKED, after]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_pmi_freezes_all_counters_when_asked_to() {
    let status = GLOBAL_STATUS_FROZEN | 1;
    assert_eq!(guest_freeze().values(&[]), [1, status, 0, 100]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn below_version_4_a_pmi_freezes_through_global_ctrl() {
    assert_eq!(guest_freeze().values(&["--pmu", "old"]), [1, 1, 0, 100]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_masked_lvtpc_gives_no_interrupt() {
    assert_eq!(guest_masked().values(&[]), [0, 1]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn rdpmc_of_a_counter_that_does_not_exist_is_a_general_protection_fault() {
    assert_eq!(guest_rdpmc_gp().values(&[]), [1, 0]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn without_a_pmu_its_registers_fault_and_cpuid_says_so() {
    assert_eq!(guest_absent().values(&["--pmu", "off"]), [1, 0]);
    assert_eq!(guest_absent().values(&["--pmu", "old"]), [0, 0x0730_0803]);
    assert_eq!(guest_absent().values(&[]), [0, 0x0830_0805]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn two_runs_are_equal_to_the_instruction() {
    let run = || {
        let outcome = guest_rep().run(&[]);
        (outcome.values, outcome.stats)
    };
    assert_eq!(run(), run());
}

#[test]
#[ignore = "needs the Bochs core"]
fn each_bad_end_has_its_exit_status_and_a_line_that_says_why() {
    for (guest, options, status, said) in [
        (guest_triple_fault(), &[][..], 3, "triple-fault at 0x"),
        (guest_halt(), &[], 3, "halted-for-good at 0x"),
        (
            guest_spin(),
            &["--max-instructions", "1000000"],
            6,
            "instruction-limit at 0x",
        ),
    ] {
        let outcome = guest.run(options);
        assert_eq!(outcome.status, status, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}

#[test]
#[ignore = "needs the Bochs core"]
fn another_file_in_place_of_the_core_is_refused_with_one_line() {
    let exe = env!("CARGO_BIN_EXE_bochs-vmm");
    let outcome = guest_spin().run(&["--bochs", exe]);
    assert_eq!(outcome.status, 2);
    let said = "not the Bochs core this machine was written for";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1);
}

// A work-around of quirks.rs: when the second half fails, the bug is gone.
#[test]
#[ignore = "needs the Bochs core"]
fn quirk_tpause_is_hlt() {
    /// Exit status of the machine when it is halted for good.
    const HALTED: i32 = 3;
    let guest = guest_tpause();
    assert_eq!(guest.values(&[]), [1]);
    let without = guest.run(&["--without-quirk", "tpause-is-hlt"]);
    assert_eq!(without.status, HALTED, "the bug is gone");
}
