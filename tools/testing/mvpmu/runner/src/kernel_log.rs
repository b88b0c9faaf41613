// SPDX-License-Identifier: GPL-2.0

//! The log of the host kernel: whatever it complains of has to be known.
//!
//! A test that passes says nothing of a register that was written in vain, of an NMI that nobody
//! expected or of a lock taken in the wrong order: the kernel says so, in its log.

/// The level of what is always a complaint: KERN_CRIT. Smaller is worse.
const CRITICAL: u32 = 2;

/// What is one at any level.
///
/// That "interrupt took too long" is none: it tells of how busy the machine's own host is.
const COMPLAINTS: [&str; 23] = [
    "unchecked MSR access",
    "NMI received for unknown reason",
    "perfevents: irq loop stuck",
    "hard LOCKUP",
    "soft lockup",
    " stall",
    "INFO: task",
    "WARNING",
    "BUG",
    "Oops",
    "general protection fault",
    TRACE,
    "possible circular locking",
    "possible recursive locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "suspicious RCU usage",
    "sleeping function called",
    "scheduling while atomic",
    "refcount_t:",
    "corruption",
    "UBSAN",
    "new suspected memory leaks",
];

/// What Linux says of the emulated CPU, which has no microcode: that is no complaint.
const OF_THE_CPU: &str = "Speculative Return Stack Overflow: WARNING: See ";

/// How KCSAN begins to report a data race: one or two functions follow, with their modules. There are such in code that
/// has nothing to do with us, as the scheduler's. Ours are in modules, KVM's and mvpmu, and in perf.
const RACE: &str = "BUG: KCSAN: data-race in ";
const OF_OURS: [&str; 5] = ["[", "perf", "pmu", "event_", "ctx_"];

/// The beginning of what an allocation says that fails: where that was follows. Those of this program
/// shall fail.
const FAILING: &str = "fail_test: ";
const FAILED: [&str; 2] = ["vmalloc error: ", "page allocation failure: "];
const TRACE: &str = "Call Trace";

/// What a log has that it should not have; lines are "LEVEL TIME TEXT".
pub fn complaints(log: &str) -> Vec<String> {
    let mut traces_to_come = 0;
    let mut complains = |line: &&str| {
        let mut words = line.splitn(3, ' ');
        let level: Option<u32> = words.next().and_then(|level| level.parse().ok());
        let text = words.nth(1).unwrap_or_default();
        let failed = text
            .strip_prefix(FAILING)
            .is_some_and(|rest| FAILED.iter().any(|how| rest.starts_with(how)));
        if failed {
            traces_to_come += 1;
        }
        match level {
            Some(_) if traces_to_come > 0 && text.starts_with(TRACE) => {
                traces_to_come -= 1;
                false
            }
            Some(level) if level == PROGRAM => false,
            Some(_) if text.starts_with(OF_THE_CPU) => false,
            Some(_) if is_race_elsewhere(text) => false,
            Some(level) => level <= CRITICAL || COMPLAINTS.iter().any(|begin| text.contains(begin)),
            // No record at all.
            None => true,
        }
    };
    let lines = log.lines().filter(|line| complains(line));
    lines.map(str::to_owned).collect()
}

fn is_race_elsewhere(text: &str) -> bool {
    text.strip_prefix(RACE)
        .is_some_and(|functions| !OF_OURS.iter().any(|ours| functions.contains(ours)))
}

/// What a program has written has this level.
const PROGRAM: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when a race of KVM or perf is none, and when one of the scheduler is a complaint.
    #[test]
    fn a_data_race_is_a_complaint_where_we_are() {
        let race = |functions: &str| complaints(&format!("3 142059422 {RACE}{functions}\n")).len();
        assert_eq!(race("kvm_vcpu_kick [kvm] / ktime_get"), 1);
        assert_eq!(race("ktime_get / load_callback [mvpmu]"), 1);
        assert_eq!(race("perf_event_read_value"), 1);
        assert_eq!(race("x86_pmu_enable / _find_first_bit"), 1);
        assert_eq!(race("_find_first_bit / set_nr_if_polling"), 0);
    }

    // Has to fail when levels are compared the other way round, or what programs say counts.
    #[test]
    fn what_the_kernel_complains_of_is_found() {
        let log = "6 1 kvm: loaded\n4 2 unchecked MSR access error: WRMSR to 0x38f\n\
                   0 3 Emergency\n7 4 WARNING: said by a program\n4 5 tsc: unstable\n";
        let found = complaints(log);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("unchecked") && found[1].contains("Emergency"));
    }

    // Has to fail when only the level decides, and when a log that is none passes.
    #[test]
    fn a_stall_is_a_complaint_at_any_level() {
        assert_eq!(
            complaints("6 1 rcu: INFO: rcu_preempt self-detected stall\n").len(),
            1
        );
        assert_eq!(complaints("kernel-log: no log\n").len(), 1);
        assert_eq!(complaints(""), Vec::<String>::new());
    }

    // Has to fail when every warning that names it is one.
    #[test]
    fn a_cpu_without_microcode_is_no_complaint() {
        let text = "4 1 Speculative Return Stack Overflow: WARNING: See https://kernel.org\n";
        assert!(complaints(text).is_empty());
        let other = text.replace("4 1 ", "4 1 WARNING: ");
        assert_eq!(complaints(&other).len(), 1);
    }

    // Has to fail when such a trace counts, when another one does not, or one excuses two.
    #[test]
    fn an_allocation_that_is_made_to_fail_is_no_complaint() {
        let failed = "4 1 fail_test: vmalloc error: size 2760, vm_struct allocation failed\n";
        let trace = "4 2 Call Trace:\n4 3  <TASK>\n4 4  ? fd_install+0x9e/0x230\n";
        assert!(complaints(&format!("{failed}{trace}")).is_empty());
        assert_eq!(complaints(&format!("{failed}{trace}{trace}")).len(), 1);
        let other = failed.replace("fail_test", "count_test");
        assert_eq!(complaints(&format!("{other}{trace}")).len(), 1);
        let warning = format!("{failed}4 2 WARNING: mm/slub.c\n{trace}");
        assert_eq!(complaints(&warning).len(), 1);
    }
}
