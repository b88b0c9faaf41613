// SPDX-License-Identifier: GPL-2.0

//! The sweep, with programs of which is known what an event after which instruction changes.
//!
//! These need the Bochs core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

guests! { "guest/sweep.s":
    guest_sweep guest_sweep_indifferent guest_sweep_hang guest_sweep_place guest_sweep_no_place
}

/// What the machine says of a sweep. The machine itself must end as without.
fn sweep(guest: machine::Guest, options: &[&str]) -> Vec<String> {
    let outcome = guest.run(options);
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    assert_eq!(outcome.stats["end"], "exit-port");
    let lines = outcome.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix("sweep: "))
        .map(str::to_owned)
        .collect()
}

/// "INSTRUCTIONS instructions, CASES cases, FAILED failed"
fn numbers(lines: &[String]) -> Vec<u64> {
    let words = lines[0].split(' ').filter_map(|word| word.parse().ok());
    words.collect()
}

// Has to fail when an event comes one instruction later or earlier, or not at all.
#[test]
#[ignore = "needs the Bochs core"]
fn each_event_that_changes_the_result_is_found() {
    let found = sweep(guest_sweep(), &["--sweep", "nmi"]);
    assert_eq!(numbers(&found), [14, 14, 10]);
    assert_eq!(found[1], "expected: result: 0");
    assert!(found[2].starts_with("failed: nmi after instruction 1, at 0x"));
    assert!(found[2].ends_with(" and 9 more: status 0x0"));
    assert_eq!(found[3], "  result: 1");
    assert_eq!(found.len(), 4);
}

#[test]
#[ignore = "needs the Bochs core"]
fn without_the_option_the_marks_mean_nothing() {
    assert_eq!(guest_sweep().values(&[]), [0u64; 0]);
    assert!(sweep(guest_sweep(), &[]).is_empty());
}

#[test]
#[ignore = "needs the Bochs core"]
fn what_changes_nothing_passes_for_each_kind() {
    let kinds = "nmi,pmi,timer,byte";
    let found = sweep(guest_sweep_indifferent(), &["--sweep", kinds]);
    assert_eq!(numbers(&found), [14, 4 * 14, 0]);
    // LVTPC is masked, and nobody waits for a byte.
    let found = sweep(guest_sweep(), &["--sweep", "pmi,timer,byte"]);
    assert_eq!(numbers(&found), [14, 3 * 14, 0]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_sample_takes_every_nth_instruction_from_one_to_another() {
    let found = sweep(guest_sweep(), &["--sweep", "nmi", "--sweep-every", "4"]);
    assert_eq!(numbers(&found), [14, 3, 2]);
    let range = ["--sweep", "nmi", "--sweep-from", "9", "--sweep-to", "12"];
    assert_eq!(numbers(&sweep(guest_sweep(), &range)), [14, 4, 2]);
}

// Has to fail when what a place calls is left out, or what comes after its return is not.
#[test]
#[ignore = "needs the Bochs core"]
fn a_place_is_swept_from_entry_to_return() {
    let found = sweep(guest_sweep_place(), &["--sweep", "nmi"]);
    assert_eq!(numbers(&found), [10, 10, 10]);
    let once = ["--sweep", "nmi", "--sweep-times", "1"];
    assert_eq!(numbers(&sweep(guest_sweep_place(), &once)), [10, 5, 5]);
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_place_that_is_not_entered_is_found() {
    let found = sweep(guest_sweep_no_place(), &["--sweep", "pmi"]);
    assert_eq!(numbers(&found), [10, 10, 1]);
    let failed: Vec<_> = found.iter().filter(|l| l.starts_with("failed: ")).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].starts_with("failed: nothing has run at 0x"));
}

#[test]
#[ignore = "needs the Bochs core"]
fn a_machine_that_does_not_come_to_the_end_is_found() {
    let found = sweep(
        guest_sweep_hang(),
        &["--sweep", "nmi", "--sweep-every", "10"],
    );
    assert_eq!(numbers(&found), [13, 1, 1]);
    assert!(found.iter().any(|line| line.contains("instruction-limit")));
}
