// SPDX-License-Identifier: GPL-2.0

//! Intel PT as a program on the machine sees it, in host and guest.
//!
//! The comment above a test names a change to the machine that makes the test fail. These need the Bochs
//! core and the program of scripts/libipt.sh: `MVPMU_BOCHS=FILE MVPMU_PT_FLOW=FILE cargo test -- --include-ignored`.

#[macro_use]
mod machine;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use serde_json::json;

guests! { "guest/vmx_setup.s", "guest/pt.s":
    guest_pt_cpuid guest_pt_vmx guest_pt_control guest_pt_controls guest_pt_kinds guest_pt_user
    guest_pt_kernel guest_pt_both guest_pt_system guest_pt_concealed guest_pt_guest guest_pt_ept guest_pt_topa
}

/// What a trace shows, as libipt decodes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decoded {
    /// The address of each instruction.
    instructions: Vec<u64>,
    /// What is not about one of them.
    events: Vec<String>,
}

fn decoded(guest: &machine::Guest, trace: &[u64]) -> Decoded {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let program = std::env::var("MVPMU_PT_FLOW").expect("MVPMU_PT_FLOW names pt-flow");
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("decode-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (file, image) = (dir.join("trace"), dir.join("image"));
    let bytes: Vec<u8> = trace.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(&file, &bytes).unwrap();
    std::fs::write(&image, guest.image()).unwrap();
    let mut decoder = Command::new(program);
    decoder.arg(&file).arg(&image);
    let output = decoder
        .arg(machine::LOAD_ADDRESS.to_string())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{errors}{text}{trace:#018x?}");
    std::fs::remove_dir_all(&dir).unwrap();
    let mut decoded = Decoded::default();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(event) => decoded.events.push(event.to_owned()),
            None => (decoded.instructions).push(u64::from_str_radix(line, 16).unwrap()),
        }
    }
    decoded
}

/// CPL > 0, and in a guest.
const IN_USER: u64 = 1;
const IN_GUEST: u64 = 2;

/// The addresses of the instructions of these, but for the one that ends tracing.
fn executed(outcome: &machine::Outcome, these: impl Fn(u64) -> bool) -> Vec<u64> {
    let (_, all) = outcome.flow.split_last().expect("something is executed");
    let these = all.iter().filter(|[_, who]| these(*who));
    these.map(|[address, _]| *address).collect()
}

fn run(guest: &machine::Guest) -> machine::Outcome {
    let outcome = guest.run(&[]);
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    outcome
}

/// IA32_RTIT_CTL.
const TRACE_EN: u64 = 1 << 0;
const USER: u64 = 1 << 3;
const BRANCH_EN: u64 = 1 << 13;

/// Exit reasons, and the VM-instruction error of a VM entry that fails as an instruction.
const HLT: u64 = 12;
const EPT_VIOLATION: u64 = 48;
const INVALID_GUEST_STATE: u64 = 1 << 31 | 33;
const INVALID_CONTROLS: u64 = 7;

// Break: adjust() leaves a leaf as the core has it, or takes no notice of the option.
#[test]
#[ignore = "needs the Bochs core"]
fn cpuid_announces_it_where_it_is() {
    let there = [1, 1, 0b111, 0b111, 2, 0x003f_0001, 0];
    assert_eq!(guest_pt_cpuid().values(&[]), there);
    assert_eq!(guest_pt_cpuid().values(&["--cpu", "icelake"]), there);
    for without in [["--pt", "off"], ["--cpu", "skylake"], ["--pmu", "off"]] {
        let none = [0, 0, 0, 0, 0, 0, 1];
        assert_eq!(guest_pt_cpuid().values(&without), none, "{without:?}");
    }
}

// Break: has_pt() is true always, or never; or a control is forgotten.
#[test]
#[ignore = "needs the Bochs core"]
fn vmx_has_what_is_about_it_where_it_is() {
    let there = [1 << 14, 1 << 24 | 1 << 19, 3 << 24, 3 << 17, 1];
    assert_eq!(guest_pt_vmx().values(&[]), there);
    assert_eq!(guest_pt_vmx().values(&["--pt", "off"]), [0; 5]);
}

// Break: VM entry loads no IA32_RTIT_CTL or does not check it, VM exit does not save or clear it.
#[test]
#[ignore = "needs the Bochs core"]
fn vm_entry_loads_the_control_and_vm_exit_saves_and_clears_it() {
    let guest = TRACE_EN | USER | BRANCH_EN;
    let first = [0, HLT, guest, 0, USER];
    // Without the controls the register is carried over, and saved nevertheless.
    let carried = [BRANCH_EN, USER, USER];
    let expected = [&first[..], &[INVALID_GUEST_STATE], &carried].concat();
    assert_eq!(guest_pt_control().values(&[]), expected);
}

// Break: can_trace() does not ask for TraceEn, or for one of the controls that have to come together.
#[test]
#[ignore = "needs the Bochs core"]
fn controls_that_do_not_fit_together_fail_the_entry() {
    let failed = [1, INVALID_CONTROLS];
    let entered = [0, HLT];
    let expected = [failed, entered, failed, failed, failed].concat();
    assert_eq!(guest_pt_controls().values(&[]), expected);
}

// Break: a hook tells of a branch as another kind, of none, or where it leads from.
#[test]
#[ignore = "needs the Bochs core"]
fn what_was_executed_is_what_libipt_decodes() {
    let guest = guest_pt_kinds();
    let outcome = run(&guest);
    let decoded = decoded(&guest, &outcome.values);
    assert_eq!(decoded.instructions, executed(&outcome, |_| true));
    assert_eq!(decoded.events, ["paging 9000 0"]);
}

// Break: moment() has no level, or follow_context() takes one for the other.
#[test]
#[ignore = "needs the Bochs core"]
fn only_levels_that_are_asked_for_are_traced() {
    for (guest, both, user) in [
        (guest_pt_user(), false, IN_USER),
        (guest_pt_kernel(), false, 0),
        (guest_pt_both(), true, 0),
    ] {
        let outcome = run(&guest);
        let decoded = decoded(&guest, &outcome.values).instructions;
        assert_eq!(decoded, executed(&outcome, |who| both || who == user));
        assert!(decoded.len() > 1);
    }
}

// Break: VM entry or exit is told of as none, from elsewhere, or without what shows in PIP; or VMPTRLD is not.
#[test]
#[ignore = "needs the Bochs core"]
fn a_host_that_is_traced_has_its_guest_in_the_trace() {
    let guest = guest_pt_system();
    let outcome = run(&guest);
    let decoded = decoded(&guest, &outcome.values);
    assert_eq!(decoded.instructions, executed(&outcome, |_| true));
    assert_eq!(outcome.stats["exit_reasons"], json!({"12": 2}));
    let (inside, outside) = ("paging 9000 1", "paging 9000 0");
    // The guest writes CR3, too.
    let expected = [
        "vmcs 211000",
        inside,
        inside,
        outside,
        inside,
        inside,
        outside,
    ];
    assert_eq!(decoded.events, expected);
}

// Break: one of the three controls is not looked at.
#[test]
#[ignore = "needs the Bochs core"]
fn a_guest_that_is_concealed_shows_in_its_instructions_only() {
    let guest = guest_pt_concealed();
    let outcome = run(&guest);
    let decoded = decoded(&guest, &outcome.values);
    assert_eq!(decoded.instructions, executed(&outcome, |_| true));
    // As it writes CR3.
    let outside = "paging 9000 0";
    assert_eq!(decoded.events, ["vmcs 211000", outside, outside]);
}

// Break: control_written() is not called at VM entry or exit, or has the host's RIP.
#[test]
#[ignore = "needs the Bochs core"]
fn the_controls_have_the_guest_traced_and_not_the_host() {
    let guest = guest_pt_guest();
    let outcome = run(&guest);
    let decoded = decoded(&guest, &outcome.values).instructions;
    let all = outcome.flow.iter();
    assert!(all.clone().all(|[_, who]| *who == IN_GUEST));
    assert_eq!(decoded, all.map(|[rip, _]| *rip).collect::<Vec<_>>());
}

// Break: walk() takes no notice of what is mapped, before_events() does not exit or says something else, or
// memory() takes the host's.
#[test]
#[ignore = "needs the Bochs core"]
fn output_of_a_guest_goes_to_where_its_memory_is() {
    const OUTPUT: u64 = 0x60_0000;
    const ASYNCHRONOUS_WRITE: u64 = 1 << 16 | 1 << 1;
    let guest = guest_pt_ept();
    let outcome = run(&guest);
    let (found, trace) = outcome.values.split_at(5);
    assert_eq!(found, [EPT_VIOLATION, OUTPUT, ASYNCHRONOUS_WRITE, HLT, 0]);
    let decoded = decoded(&guest, trace).instructions;
    let executed: Vec<_> = outcome.flow.iter().map(|[rip, _]| *rip).collect();
    assert_eq!(decoded, executed);
}

// Break: came() raises no PMI, or with_pt() sets no bit.
#[test]
#[ignore = "needs the Bochs core"]
fn a_filled_region_asks_for_an_interrupt_and_the_last_one_stops() {
    const TRACE_TOPA_PMI: u64 = 1 << 55;
    const STOPPED: u64 = 1 << 5;
    let [nmis, global, status, base, mask] = run(&guest_pt_topa()).values[..] else {
        panic!("it sends five values");
    };
    assert_eq!((nmis, global), (1, TRACE_TOPA_PMI));
    assert_eq!(status & 0xffff, STOPPED);
    assert_eq!((base, mask), (0x40_0000, 0x1000 << 32 | 1 << 7 | 0x7f));
}
