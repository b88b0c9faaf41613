// SPDX-License-Identifier: GPL-2.0

//! The positive control of the attackers: with a deliberate bug in the module or in Linux, and no oracle to
//! stop the machine, each of them must find something. Those that no bug of it can help are in [`HELPLESS`].

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::attackers;
use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::mutants;
use crate::oracle::Oracle;
use crate::tap::Case;

/// The bug for a selftest, and the attackers in it that it helps.
struct Control {
    test: &'static str,
    provider: &'static str,
    /// A bug of Linux, on the Intel machine.
    of_linux: Option<&'static str>,
    attackers: &'static [&'static str],
}

const CONTROLS: [Control; 5] = [
    Control {
        test: "attack_host_test",
        provider: "mvpmu,mutant=one-too-few",
        of_linux: None,
        attackers: &[
            "thread-after-run/own-event",
            "thread-after-run/every-process",
            "process-after-exit/own-event",
            "process-after-exit/every-process",
            "process-at-halt/own-event",
            "process-at-halt/every-process",
            "process-preempting/own-event",
            "process-preempting/every-process",
            "process-left-behind/own-event",
            "process-left-behind/every-process",
        ],
    },
    // Eager: else nothing of a guest that counts nothing is in hardware.
    Control {
        test: "attack_guest_test",
        provider: "mvpmu,mutant=wrong-vcpu,switch=eager",
        of_linux: None,
        attackers: &[
            "guest-in-turns/idle-exits",
            "guest-in-turns/idle-halts",
            "guest-in-turns/resting-exits",
            "guest-in-turns/resting-halts",
            "guest-in-turns/counting-exits",
            "guest-in-turns/counting-halts",
            "guest-at-boot/idle",
            "guest-at-boot/resting",
            "guest-user-mode/pce",
        ],
    },
    Control {
        test: "attack_perf_test",
        provider: "mvpmu,mutant=skip:vendor.rs:clear_counters:1",
        of_linux: None,
        attackers: &["host-event-beside-guest"],
    },
    Control {
        test: "attack_trace_test",
        provider: "mvpmu,pt=host_guest",
        of_linux: Some("trace-status-of-guest"),
        attackers: &[
            "guest-beside-traced-guest/enabled",
            "guest-beside-traced-guest/tracing",
        ],
    },
    Control {
        test: "attack_trace_test",
        provider: "mvpmu,pt=host_guest",
        of_linux: Some("trace-output-of-host"),
        attackers: &[
            "guest-beside-traced-host/enabled",
            "guest-beside-traced-host/tracing",
        ],
    },
];

/// How the names begin of those that are nowhere above, and why.
const HELPLESS: [(&str, &str); 5] = [
    (
        "process-on-sibling/",
        "no code writes the registers of another CPU than its own",
    ),
    (
        "guest-user-mode/no-pce",
        "the CPU refuses RDPMC before KVM sees it",
    ),
    (
        "guest-uncore/",
        "KVM intercepts, not the module; the same program reads the same counters in the host",
    ),
    (
        "guest-beside-traced-guest/dormant",
        "KVM has the registers of a guest that does not trace, the CPU those of others",
    ),
    ("guest-beside-traced-host/dormant", "the same"),
];

/// Runs the attackers, each with its bug, on a machine with two CPUs: one of them needs these.
pub fn run(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let boot = Boot {
        oracle: Oracle::Off,
        ..boot.clone()
    };
    let mut cases = Vec::new();
    let mut unknown = Vec::new();
    let is_here = |control: &&Control| control.of_linux.is_none() || boot.machine == Machine::Intel;
    for (number, control) in CONTROLS.iter().filter(is_here).enumerate() {
        let boot = match control.of_linux {
            Some(mutant) => mutants::of_linux(&boot, mutant),
            None => boot.clone(),
        };
        let place = directory.join(number.to_string());
        let mut job = Job::new("selftests");
        job.arguments = vec![
            control.provider.to_owned(),
            format!("mvpmu/{}", control.test),
        ];
        boot::run(&boot, &job, &place, Duration::from_secs(600), false)?;
        let found = attackers::of_run(&place.join("out"), boot.machine, control.provider);
        for name in control.attackers {
            let leaks = found.iter().any(|one| one.name() == *name && one.leaks());
            let what = control.of_linux.unwrap_or(control.provider);
            let case = format!("{name} finds what {what} leaves");
            cases.push(Case::new(case, leaks, || {
                format!("it does not; see {}", place.display())
            }));
        }
        unknown.extend(found.into_iter().filter(|one| !is_known(one.name())));
    }
    let name = "each attacker has a control, or a reason to have none";
    cases.push(Case::new(name, unknown.is_empty(), || {
        let names: Vec<_> = unknown.iter().map(|one| one.name()).collect();
        names.join("\n")
    }));
    Ok(cases)
}

fn is_known(name: &str) -> bool {
    CONTROLS
        .iter()
        .any(|control| control.attackers.contains(&name))
        || HELPLESS.iter().any(|(prefix, _)| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when a prefix is taken for each name.
    #[test]
    fn an_attacker_without_control_or_reason_is_found() {
        assert!(is_known("process-on-sibling/own-event"));
        assert!(is_known("guest-at-boot/idle"));
        assert!(!is_known("guest-at-boot"));
        assert!(!is_known("process"));
    }
}
