// SPDX-License-Identifier: GPL-2.0

//! Which tests are skipped, and why. A skip that is not listed is a failure: what is not tested must
//! not look as if it were. So is one that is listed and does not happen.

use pmu_model::profile;

use crate::tap::Case;
use crate::tap::Verdict;

/// Tests that cannot be run in groups whose names begin and end so, and why. They are skipped whenever
/// the program that they belong to is run: "PROGRAM: TEST".
struct Skips {
    begin: &'static str,
    end: &'static str,
    #[allow(dead_code, reason = "for who reads the list")]
    why: &'static str,
    tests: &'static [&'static str],
}

/// Tests of the parameter `host_events`: of `refuse`, of `share` and `prefer`, and of `prefer` alone.
const OF_REFUSED_EVENTS: [&str; 2] = [
    "host_events_test: host_events.cannot_be_opened_while_a_vm_exists",
    "host_events_test: host_events.keep_a_vm_from_its_first_vcpu",
];
const OF_OTHER_EVENTS: [&str; 3] = [
    "host_events_test: host_events.can_be_opened_while_no_guest_counts",
    "host_events_test: host_events.let_a_guest_wait_which_goes_on_when_they_are_closed",
    "trace_test: trace.refusals_and_waits_are_events",
];
const OF_PREFERRED_EVENTS: [&str; 3] = [
    "preferred_events_test: preferred_events.take_the_pmu_from_a_guest_that_runs_and_does_nothing_for_it",
    "preferred_events_test: preferred_events.take_the_pmu_from_a_guest_which_goes_on_afterwards",
    "preferred_events_test: preferred_events.take_the_pmu_from_l1_when_l2_exits",
];

/// The groups in which events are refused, and those in which they are not.
const REFUSE: &str = "events are refused";
const OTHER: &str = "events are not refused";

const fn of_events(
    begin: &'static str,
    why: &'static str,
    tests: &'static [&'static str],
) -> Skips {
    Skips {
        begin,
        end: "",
        why,
        tests,
    }
}

/// Only the debug kernel, and that with PREEMPT_RT, have control groups and suspend.
const OF_LARGE_KERNEL: [&str; 12] = [
    "host_times_test: host_times.of_control_group_exiting.are_those_of_the_host",
    "host_times_test: host_times.of_control_group_spinning.are_those_of_the_host",
    "host_times_test: host_times.of_control_group_pinned_exiting.are_those_of_the_host",
    "host_times_test: host_times.of_control_group_pinned_spinning.are_those_of_the_host",
    "host_times_test: host_times.of_control_group_toggled_exiting.are_those_of_the_host",
    "host_times_test: host_times.of_control_group_toggled_spinning.are_those_of_the_host",
    "host_times_test: host_times.of_empty_control_group_exiting.are_those_of_the_host",
    "host_times_test: host_times.of_empty_control_group_spinning.are_those_of_the_host",
    "hotplug_test: hotplug.guest_that_stays_in_guest_mode.frozen_guest_leaves_nothing_and_counts_on",
    "hotplug_test: hotplug.guest_that_exits_to_the_kernel.frozen_guest_leaves_nothing_and_counts_on",
    "hotplug_test: hotplug.guest_that_stays_in_guest_mode.guest_counts_on_after_a_suspend",
    "hotplug_test: hotplug.guest_that_exits_to_the_kernel.guest_counts_on_after_a_suspend",
];

const fn of_small_kernel(begin: &'static str) -> Skips {
    Skips {
        begin,
        end: "",
        why: "only the debug kernel, and that with PREEMPT_RT, have control groups and suspend",
        tests: &OF_LARGE_KERNEL,
    }
}

const EXPECTED: [Skips; 28] = [
    Skips {
        begin: "intel",
        end: "",
        why: "VMX has no LBR virtualization for L2",
        tests: &[
            "shared_branches_test: nested.stays.l2_has_a_stack_of_its_own_with_lbr_virtualization",
            "shared_branches_test: nested.migrates.l2_has_a_stack_of_its_own_with_lbr_virtualization",
        ],
    },
    of_small_kernel("amd selftests"),
    of_small_kernel("intel selftests"),
    of_small_kernel("amd kcsan kernel"),
    of_small_kernel("intel kcsan kernel"),
    of_small_kernel("amd kasan kernel"),
    of_small_kernel("intel kasan kernel"),
    Skips {
        begin: "intel",
        end: "",
        why: "a counter of Intel CPUs counts host and guest alike",
        tests: &[
            "nested_test: nested.guest_only_counts_l2",
            "nested_test: nested.host_only_counts_l1",
            "nested_test: nested.guest_only_and_host_only_count_both",
            "nested_test: nested.l2_counts_itself_with_guest_only",
        ],
    },
    Skips {
        begin: "amd",
        end: "",
        why: "there is no VMCS",
        tests: &[
            "nested_test: nested.vmcs12_enables_for_l2",
            "nested_test: nested.vmcs12_enables_for_l1",
        ],
    },
    of_events("amd selftests mvpmu", REFUSE, &OF_OTHER_EVENTS),
    of_events("amd selftests c", REFUSE, &OF_OTHER_EVENTS),
    of_events("amd selftests with shared events", OTHER, &OF_REFUSED_EVENTS),
    of_events("amd selftests with shared events", OTHER, &OF_PREFERRED_EVENTS),
    of_events(
        "amd selftests with preferred events",
        OTHER,
        &OF_REFUSED_EVENTS,
    ),
    of_events("amd rt kernel", REFUSE, &OF_OTHER_EVENTS),
    of_events("amd kcsan kernel", REFUSE, &OF_OTHER_EVENTS),
    of_events("amd kasan kernel", REFUSE, &OF_OTHER_EVENTS),
    of_events("intel rt kernel", REFUSE, &OF_OTHER_EVENTS),
    of_events("intel kcsan kernel", REFUSE, &OF_OTHER_EVENTS),
    of_events("intel kasan kernel", REFUSE, &OF_OTHER_EVENTS),
    of_events("intel selftests mvpmu", REFUSE, &OF_OTHER_EVENTS),
    of_events("intel selftests c", REFUSE, &OF_OTHER_EVENTS),
    of_events("intel selftests with shared events", OTHER, &OF_REFUSED_EVENTS),
    of_events("intel selftests with shared events", OTHER, &OF_PREFERRED_EVENTS),
    of_events(
        "intel selftests with preferred events",
        OTHER,
        &OF_REFUSED_EVENTS,
    ),
    Skips {
        begin: "",
        end: "",
        why: "an NMI does not wait for interrupts to be enabled",
        tests: &["pmi_test: pmi.nmi.pmi_waits_for_interrupts_to_be_enabled"],
    },
    Skips {
        begin: "",
        end: "switch=eager",
        why: "no vCPU is dormant",
        tests: &[
            "debugfs_test: debugfs.stopped_guest_is_not_switched_while_the_host_counts",
            "debugfs_test: debugfs.time_passes_in_the_state_that_the_vcpu_is_in",
            "trace_test: trace.accesses_to_registers_are_those_of_the_puts",
        ],
    },
    Skips {
        begin: "intel",
        end: "",
        why: "it is about AMD's registers",
        tests: &[
            "attack_uncore_test: attack_uncore.event_is_first.guest_reads_nothing_and_exits_only_while_an_event_exists",
            "attack_uncore_test: attack_uncore.l2.guest_reads_nothing_and_exits_only_while_an_event_exists",
            "attack_uncore_test: attack_uncore.vm_is_first.guest_reads_nothing_and_exits_only_while_an_event_exists",
            "attack_uncore_test: attack_uncore_once.event_goes_on_where_it_was",
            "attack_uncore_test: attack_uncore_once.guest_is_out_before_the_event_can_count",
            "attack_uncore_test: attack_uncore_once.host_reads_what_the_event_counts_and_nothing_afterwards",
            "filter_test: filter.amd_mode_bits_of_a_nested_guest_select_its_own_mode",
            "filter_test: filter.amd_mode_bits_of_a_plain_guest_are_dropped",
            "host_rdpmc_test: host_rdpmc.amd_nothing_is_left_in_the_second_counter_of_a_pair",
            "msr_test: msr.all_counters.amd_guest_without_perfmon_v2_has_no_global_registers",
            "msr_test: msr.all_counters.amd_legacy_names_are_the_same_registers",
            "msr_test: msr.four_counters.amd_guest_without_perfmon_v2_has_no_global_registers",
            "msr_test: msr.four_counters.amd_legacy_names_are_the_same_registers",
        ],
    },
];

/// The results of a group, with the skips judged: they are the same whichever CPU a machine is.
pub fn judge(group: &str, cases: Vec<Case>) -> Vec<Case> {
    judge_by(&EXPECTED, &without_cpu(group), cases)
}

/// The name of the group if the machine were the CPU that it is else.
fn without_cpu(group: &str) -> String {
    profile::ALL.iter().fold(group.to_owned(), |name, profile| {
        name.replacen(&format!(" {} ", profile.name), " ", 1)
    })
}

fn judge_by(expected: &[Skips], group: &str, cases: Vec<Case>) -> Vec<Case> {
    let listed: Vec<_> = expected
        .iter()
        .filter(|skips| group.starts_with(skips.begin) && group.ends_with(skips.end))
        .flat_map(|skips| skips.tests)
        .collect();
    let is_skipped = |case: &Case| matches!(case.verdict, Verdict::Skipped(_));
    let program = |test: &str| test.split(": ").next().unwrap_or_default().to_owned();
    let missing: Vec<_> = listed
        .iter()
        .filter(|test| {
            cases
                .iter()
                .any(|case| program(&case.name) == program(test))
        })
        .filter(|test| {
            !cases
                .iter()
                .any(|case| case.name == ***test && is_skipped(case))
        })
        .map(|test| Case::failed(format!("{test} is skipped"), "so the list says"))
        .collect();
    let judged = cases.into_iter().map(|case| match &case.verdict {
        Verdict::Skipped(why) if !listed.iter().any(|test| **test == case.name) => {
            let why = format!("skipped, which is not in the list: {why}");
            Case::failed(case.name, why)
        }
        _ => case,
    });
    judged.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: [Skips; 2] = [
        Skips {
            begin: "amd",
            end: "",
            why: "",
            tests: &["x: a"],
        },
        Skips {
            begin: "",
            end: "eager",
            why: "",
            tests: &["x: b"],
        },
    ];

    fn failures(group: &str, cases: &[Case]) -> Vec<String> {
        judge_by(&LIST, group, cases.to_vec())
            .into_iter()
            .filter(|case| matches!(case.verdict, Verdict::Failed(_)))
            .map(|case| case.name)
            .collect()
    }

    // Has to fail when the CPU's name is looked for elsewhere, or left.
    #[test]
    fn the_cpu_makes_no_difference() {
        assert_eq!(
            without_cpu("intel icelake selftests mvpmu"),
            "intel selftests mvpmu"
        );
        assert_eq!(without_cpu("amd selftests c"), "amd selftests c");
    }

    // Has to fail when the list of another group is taken, or the name is not looked at.
    #[test]
    fn a_skip_has_to_be_listed() {
        let [a, b] = ["x: a", "x: b"].map(|name| Case::skipped(name, "no such CPU"));
        assert_eq!(failures("amd mvpmu", &[a.clone(), b.clone()]), ["x: b"]);
        assert_eq!(failures("intel mvpmu", std::slice::from_ref(&a)), ["x: a"]);
        assert!(failures("intel eager", std::slice::from_ref(&b)).is_empty());
        assert!(failures("amd eager", &[a, b]).is_empty());
    }

    // Has to fail when a test that passes, or is gone, satisfies the list, and when one of a program
    // that is not run is missed.
    #[test]
    fn what_is_listed_has_to_be_skipped() {
        assert_eq!(
            failures("amd mvpmu", &[Case::passed("x: a")]),
            ["x: a is skipped"]
        );
        assert_eq!(
            failures("amd mvpmu", &[Case::passed("x: c")]),
            ["x: a is skipped"]
        );
        assert!(failures("amd mvpmu", &[Case::passed("y: a")]).is_empty());
        assert!(failures("intel mvpmu", &[Case::passed("x: a")]).is_empty());
    }
}
