// SPDX-License-Identifier: GPL-2.0

//! Last branch records as a program on the machine sees them, in host and guest.
//!
//! The comment above a test names a change to the machine that makes the test fail. These need the Bochs
//! core: `MVPMU_BOCHS=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

use serde_json::json;

guests! { "guest/vmx_setup.s", "guest/lbr.s":
    guest_lbr_cpuid guest_lbr_kinds guest_lbr_user guest_lbr_kernel guest_lbr_calls guest_lbr_debug
    guest_lbr_vmx guest_lbr_control guest_lbr_injected
}

/// IA32_LBR_CTL.
const LBREN: u64 = 1 << 0;
const OS: u64 = 1 << 1;
const USR: u64 = 1 << 2;
const CALL_STACK: u64 = 1 << 3;
const ALL: u64 = LBREN | OS | USR | 0x7f << 16;

/// IA32_LBR_x_INFO.
const MISPRED: u64 = 1 << 63;
const fn br_type(kind: u64) -> u64 {
    kind << 56
}
const OTHER: u64 = br_type(8);

/// Exit reasons.
const HLT: u64 = 12;
const INVALID_GUEST_STATE: u64 = 1 << 31 | 33;
/// FROM_IP of what is not recorded where it begins.
const ELSEWHERE: u64 = u64::MAX;
/// An entry with nothing in it.
const NONE: (u64, u64, u64) = (0, 0, 0);

/// From, to and more of entries, the oldest first.
fn entries(values: &[u64]) -> Vec<(u64, u64, u64)> {
    let entries = values.chunks_exact(3);
    entries
        .map(|entry| (entry[0], entry[1], entry[2]))
        .collect()
}

/// The same of branches between these places, with these things said about them.
fn expected(places: &[u64], infos: &[u64]) -> Vec<(u64, u64, u64)> {
    let places = places.chunks_exact(2);
    let with_infos = places.zip(infos);
    with_infos
        .map(|(place, info)| (place[0], place[1], *info))
        .collect()
}

// Break: adjust() leaves a leaf as the core has it, or takes no notice of the option.
#[test]
#[ignore = "needs the Bochs core"]
fn cpuid_announces_them_where_they_are() {
    let there = [1, 0b1011, 0b111, 0b101, 0, 0];
    assert_eq!(guest_lbr_cpuid().values(&[]), there);
    for without in [["--lbr", "off"], ["--cpu", "icelake"], ["--pmu", "off"]] {
        let none = [0, 0, 0, 0, 0, 1];
        assert_eq!(guest_lbr_cpuid().values(&without), none, "{without:?}");
    }
}

// Break: a hook records another kind, INT is recorded twice, or a fault from behind the instruction.
#[test]
#[ignore = "needs the Bochs core"]
fn each_branch_is_recorded_as_what_it_is() {
    let values = guest_lbr_kinds().values(&[]);
    let (found, places) = values.split_at(3 * 12);
    let infos = [
        br_type(0),
        br_type(2),
        br_type(4),
        br_type(5),
        br_type(1) | MISPRED,
        br_type(3) | MISPRED,
        br_type(5),
        OTHER,
        OTHER,
        OTHER,
        OTHER,
        OTHER,
    ];
    assert_eq!(entries(found), expected(places, &infos));
}

// Break: record() takes the level where it ends for the one where it begins.
#[test]
#[ignore = "needs the Bochs core"]
fn a_level_that_is_not_recorded_shows_no_address() {
    let values = guest_lbr_user().values(&[]);
    let (found, places) = values.split_at(3 * 4);
    let [entry, head, jump, _] = places[..] else {
        panic!("{places:?}");
    };
    let back = (jump, head, br_type(0));
    let expected = [NONE, (ELSEWHERE, entry, OTHER), back, back];
    assert_eq!(entries(found), expected);

    let values = guest_lbr_kernel().values(&[]);
    let (found, places) = values.split_at(3 * 2);
    assert_eq!(entries(found), [NONE, (ELSEWHERE, places[3], OTHER)]);
}

// Break: returns are told of as something else.
#[test]
#[ignore = "needs the Bochs core"]
fn what_has_returned_is_not_on_a_call_stack() {
    let values = guest_lbr_calls().values(&[]);
    let (found, places) = values.split_at(3 * 3);
    let calls = expected(places, &[br_type(4); 2]);
    assert_eq!(entries(found), [&[NONE], &calls[..]].concat());
}

// Break: interrupt() records #DB, or does not tell of it.
#[test]
#[ignore = "needs the Bochs core"]
fn a_debug_exception_disables_them_and_is_none() {
    let values = guest_lbr_debug().values(&[]);
    assert_eq!(values[0], ALL & !LBREN);
    assert_eq!(entries(&values[1..]), [NONE]);
}

// Break: has_lbr() is true always, or never.
#[test]
#[ignore = "needs the Bochs core"]
fn vmx_has_what_is_about_them_where_they_are() {
    assert_eq!(guest_lbr_vmx().values(&[]), [1 << 26, 1 << 21, 1]);
    assert_eq!(guest_lbr_vmx().values(&["--lbr", "off"]), [0, 0, 0]);
}

// Break: VM entry loads no IA32_LBR_CTL or does not check it, VM exit does not save or clear it; or either
// records itself.
#[test]
#[ignore = "needs the Bochs core"]
fn vm_entry_loads_the_control_and_vm_exit_saves_and_clears_it() {
    let (first, rest) = ([0, HLT, ALL, 0, LBREN | CALL_STACK], 3 * 4);
    let values = guest_lbr_control().values(&[]);
    let (found, values) = values.split_at(first.len());
    assert_eq!(found, first);
    let (found, values) = values.split_at(rest);
    let (places, values) = values.split_at(2 * 3);
    let branches = expected(places, &[br_type(4), br_type(5), br_type(2)]);
    assert_eq!(entries(found), [&[NONE], &branches[..]].concat());
    // Without the controls the register is carried over, and saved nevertheless.
    let carried = [USR, LBREN | CALL_STACK, LBREN | CALL_STACK];
    assert_eq!(values, [&[INVALID_GUEST_STATE], &carried[..]].concat());
}

// Break: an injected interrupt is not recorded; an injected #DB is, or disables them.
#[test]
#[ignore = "needs the Bochs core"]
fn an_injected_event_is_recorded_unless_it_is_a_debug_exception() {
    let outcome = guest_lbr_injected().run(&[]);
    assert_eq!(outcome.stats["exit_reasons"], json!({"12": 2}));
    let (interrupt, values) = outcome.values.split_at(3 * 2);
    let (control, values) = (values[0], &values[1..]);
    let (debug, places) = values.split_at(3 * 2);
    let branches = expected(places, &[OTHER; 3]);
    assert_eq!(entries(interrupt), branches[..2]);
    assert_eq!(control, ALL);
    assert_eq!(entries(debug), [NONE, branches[2]]);
}
