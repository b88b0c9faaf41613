// SPDX-License-Identifier: GPL-2.0

//! Small modules and kernels, from the assembler.

use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use super::callbacks;
use super::image::Image;
use super::tracepoints;
use super::walk::Walk;
use crate::tap::Verdict;

/// An image with these functions, each of a name and its instructions.
fn image(name: &str, functions: &[(&str, &str)]) -> Image {
    let mut source = String::new();
    for (function, code) in functions {
        source.push_str(&format!(
            ".globl {function}\n.type {function}, @function\n{function}: {code}\n\
             .size {function}, . - {function}\n"
        ));
    }
    let object = std::env::temp_dir().join(format!("{}-{name}.o", std::process::id()));
    let mut assembler = Command::new("as")
        .arg("-o")
        .arg(&object)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = assembler.stdin.take().unwrap();
    input.write_all(source.as_bytes()).unwrap();
    drop(input);
    assert!(assembler.wait().unwrap().success());
    let image = Image::new(name, &std::fs::read(&object).unwrap()).unwrap();
    std::fs::remove_file(&object).unwrap();
    image
}

/// What is wrong with `begin`, in a module with these functions and a kernel with those.
fn problems(test: &str, module: &[(&str, &str)], kernel: &[(&str, &str)]) -> Vec<String> {
    let images = [
        image(&format!("{test}-module"), module),
        image(&format!("{test}-kernel"), kernel),
    ];
    let begin = images[0].find("begin").unwrap();
    Walk::new(&images, begin).unwrap().problems().to_vec()
}

// Has to fail when a branch within a function, or what is behind a border, counts as a problem.
#[test]
fn direct_branches_are_fine() {
    let module = [
        ("begin", "1: jz 1b; call near; jmp helper"),
        (
            "near",
            "call perf_load_guest_context; call __SCT__tp_func_event; ret",
        ),
        ("not_reached", "call *%rax; ret"),
    ];
    let kernel = [
        ("helper", "mov %rax, (%rdi); ret"),
        ("perf_load_guest_context", "call *%rax; ret"),
        ("__SCT__tp_func_event", "jmp *%rax"),
    ];
    assert_eq!(problems("direct", &module, &kernel), Vec::<String>::new());
}

// Has to fail when a function of the kernel is not looked into, or a jump is not followed.
#[test]
fn an_indirect_branch_is_found_with_the_way_to_it() {
    let module = [("begin", "jz near; ret"), ("near", "nop; jmp helper")];
    for branch in ["call *%rax", "jmp *(%rax)", "notrack jmp *%rdx"] {
        let found = problems("indirect", &module, &[("helper", branch)]);
        assert_eq!(
            found,
            ["an indirect branch at 0x0, in helper\n  from near\n  from begin"]
        );
    }
}

// Has to fail when a thunk is taken for a direct branch.
#[test]
fn a_thunk_is_an_indirect_branch() {
    let module = [("begin", "jmp __x86_indirect_thunk_rax")];
    let kernel = [("__x86_indirect_thunk_rax", "jmp *%rax")];
    let found = problems("thunk", &module, &kernel);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("an indirect branch"), "{found:?}");
}

// Has to fail when an instruction that can take a lock passes for one that cannot.
#[test]
fn locked_accesses_are_found() {
    for access in ["lock cmpxchg %rcx, (%rdi)", "xchg %eax, (%rdi)"] {
        let found = problems("locked", &[("begin", access)], &[]);
        assert_eq!(found, ["a locked access at 0x0, in begin"]);
    }
    let found = problems("not-locked", &[("begin", "xchg %rax, %rcx; ret")], &[]);
    assert_eq!(found, Vec::<String>::new());
}

// Has to fail when a name is not looked at, a part of a word counts, or it is told twice.
#[test]
fn names_are_found() {
    let module = [("begin", "call clock; call spin_lock; call kmalloc; ret")];
    let kernel = [("clock", "ret"), ("spin_lock", "ret"), ("kmalloc", "ret")];
    assert_eq!(
        problems("names", &module, &kernel),
        [
            "a lock, in spin_lock\n  from begin",
            "an allocation, in kmalloc\n  from begin"
        ]
    );
}

// Has to fail when what cannot be found, or may be patched to anything, is passed over.
#[test]
fn what_is_not_known_is_found() {
    let module = [("begin", "call nowhere; jmp __SCT__something")];
    let found = problems("unknown", &module, &[("__SCT__something", "ret")]);
    assert_eq!(
        found,
        [
            "nowhere is in no image, in begin",
            "a static call that may lead anywhere, in __SCT__something\n  from begin"
        ]
    );
}

// Has to fail when the trampoline alone passes for a call, or a call through a pointer does.
#[test]
fn kvm_calls_directly() {
    let trampoline = ("__SCT__kvm_mediated_pmu_load", "ret");
    let passes = |name, enter| {
        let kvm = image(name, &[("enter", enter), trampoline]);
        super::called(&kvm, "load").unwrap().verdict == Verdict::Passed
    };
    assert!(passes("kvm", "call __SCT__kvm_mediated_pmu_load; ret"));
    assert!(!passes("kvm-pointer", "call *%rax; ret"));
}

const HEADER: &str = "
struct module;
void registration(const struct ops *ops);
struct ops {
	int (*vm_create)(struct kvm *kvm);
	void (*load)(struct kvm_vcpu *vcpu);
};";

// Has to fail when a function gets another one's name, or that of another structure.
#[test]
fn callbacks_are_what_is_registered() {
    let functions = [
        (
            "begin",
            "movq $other, 24(%rsp); movq $load, 16(%rbx); movq $create, 8(%rbx); call kvm_mediated_pmu_register\n\
             movq $create, 24(%rax); movq $other, 32(%rax); jmp kvm_mediated_pmu_register",
        ),
        ("create", "nop; ret"),
        ("load", "ret"),
        ("other", "ret"),
    ];
    let module = image("callbacks", &functions);
    let names = callbacks::names(HEADER);
    let tables = callbacks::tables(&module, &names).unwrap();
    let found: Vec<_> = tables
        .iter()
        .map(|table| (table["vm_create"], table["load"]))
        .collect();
    let place = |name| module.find(name).unwrap();
    assert_eq!(
        found,
        [
            (place("create"), place("load")),
            (place("create"), place("other"))
        ]
    );
}

// Has to fail when a field too few, or one that is not adjacent, goes unseen.
#[test]
fn what_is_no_table_is_an_error() {
    for (test, stores) in [
        ("one", "movq $load, 8(%rbx)"),
        ("apart", "movq $load, 8(%rbx); movq $load, 24(%rbx)"),
        ("two-bases", "movq $load, 8(%rbx); movq $load, 16(%rcx)"),
    ] {
        let begin = format!("{stores}; call kvm_mediated_pmu_register");
        let module = image(test, &[("begin", &begin), ("load", "ret")]);
        assert!(callbacks::tables(&module, &callbacks::names(HEADER)).is_err());
    }
}

/// A module with a function `begin` that calls a tracepoint, and a static branch of that at the label 1,
/// which leads to the label 2.
fn events(test: &str, begin: &str) -> Vec<(String, Option<String>)> {
    let jump_table = ".pushsection __jump_table, \"aw\"; .long 1b - .; .long 2b - .; \
                      .quad __tracepoint_event - .; .popsection";
    let begin = format!("{begin}; {jump_table}");
    let module = image(test, &[("begin", &begin)]);
    let begin = module.find("begin").unwrap();
    tracepoints::of(&module, begin).unwrap()
}

/// The NOPs that objtool puts for a branch.
const NOPS: [&str; 2] = [".byte 0x0f, 0x1f, 0x44, 0, 0", ".byte 0x66, 0x90"];

// Has to fail when what comes behind a NOP is taken for the branch, or the event is not found.
#[test]
fn an_event_behind_a_nop_is_fine() {
    for (i, nop) in NOPS.iter().enumerate() {
        let begin = format!("push %rbx; 1: {nop}; pop %rbx; ret; 2: call rust_do_trace_event; ret");
        let found = events(&format!("event-{i}"), &begin);
        assert_eq!(found, [("event".to_owned(), None)]);
    }
}

// Has to fail when a static branch that jumps, a usual branch or another event's passes for a NOP.
#[test]
fn an_event_that_costs_more_is_found() {
    let off = "it is called at";
    let other = "the call at";
    for (i, (begin, problem)) in [
        ("1: jmp 2f; ret; 2: call rust_do_trace_event; ret", off),
        (
            "nop; 1: cmpl $0, (%rdi); jne 2f; ret; 2: call rust_do_trace_event; ret",
            off,
        ),
        ("1: nop; ret; 2: call rust_do_trace_another; ret", other),
    ]
    .into_iter()
    .enumerate()
    {
        let found = events(&format!("cost-{i}"), begin);
        let [(_, Some(found))] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(found.starts_with(problem), "{found}");
    }
}
