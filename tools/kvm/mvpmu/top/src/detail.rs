// SPDX-License-Identifier: GPL-2.0

//! All that is known of one vCPU, as lines of text.

use mvpmu_host::perf_events::Owners;

use crate::row::Row;

/// "1.25 s", "3.1 ms", "17 us".
pub fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// The lines. `suspects` are the processes with events of perf, if the host was in the way lately.
pub fn lines(row: &Row, suspects: Option<&Owners>) -> Vec<String> {
    let counts = &row.counts;
    let cpu = match (row.thread, row.cpu) {
        (Some(thread), Some(cpu)) => format!(", thread {thread} on CPU {cpu}"),
        (Some(thread), None) => format!(", thread {thread}"),
        _ => String::new(),
    };
    let cost = &row.cost;
    let mut lines = vec![
        format!("{}{cpu}: {}", row.name(), row.state.name()),
        format!(
            "since its creation: in hardware {} times ({} avoided), out {} times: {} released, {} for events of the host; \
             used {} times, refused {}",
            counts.loads,
            counts.switches_avoided,
            counts.puts,
            counts.releases,
            counts.contended(),
            counts.activations,
            counts.refusals,
        ),
        format!(
            "registers: {} reads, {} writes by the module; {} reads, {} writes of the guest intercepted; {} PMIs",
            counts.hw_reads, counts.hw_writes, counts.guest_reads, counts.guest_writes, counts.pmis,
        ),
        format!(
            "time: dormant {}, active {}, of these {} in hardware; estimate, lately: {} spent, {} saved",
            time(counts.time_dormant_us),
            time(counts.time_active_us),
            time(counts.time_in_hardware_us),
            time(cost.ns / 1000),
            time(cost.saved_ns / 1000),
        ),
    ];
    lines.extend(kvm(row));
    lines.push(format!("contention: {}", contention(row, suspects)));
    lines
}

/// VM exits by what they were for. They are counted per VM.
fn kvm(row: &Row) -> Option<String> {
    let (_, recent) = row.kvm.as_ref()?;
    let of = match recent.vms {
        1 => "the VM".to_owned(),
        n => format!("the {n} VMs of the process"),
    };
    let counts: Vec<_> = recent
        .counts
        .iter()
        .filter(|(_, &n)| n > 0)
        .filter_map(|(name, &n)| Some(format!("{name} {:.0}/s", row.per_second(n)?)))
        .collect();
    Some(format!("KVM, {of}: {}", or_nothing(&counts)))
}

/// With whom: what can be told of it.
fn contention(row: &Row, suspects: Option<&Owners>) -> String {
    let mut with = Vec::new();
    if row.recent.has_contention() {
        let owners = suspects.map(|owners| &owners.processes[..]);
        for owner in owners.unwrap_or_default() {
            let (command, pid) = (&owner.command, owner.pid);
            let events = match owner.events {
                1 => "an event".to_owned(),
                n => format!("{n} events"),
            };
            with.push(format!("{command} ({pid}, {events} of perf)"));
        }
        if with.is_empty() {
            with.push("events of perf that no process holds open".to_owned());
        }
    }
    for name in &row.neighbours {
        with.push(format!("{name} on the same CPU"));
    }
    or_nothing(&with)
}

fn or_nothing(parts: &[String]) -> String {
    match parts {
        [] => "nothing".to_owned(),
        parts => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;
    use mvpmu_host::perf_events::Owner;

    #[test]
    fn contention_is_with_who_has_events_while_there_is_any() {
        let mut row = recorded::rows().remove(0);
        row.neighbours.clear();
        row.recent.puts = 5;
        row.recent.releases = 5;
        row.recent.refusals = 0;
        row.recent.waiting = 0;
        let perf = Owner {
            pid: 9,
            command: "perf".to_owned(),
            events: 2,
        };
        let owners = Owners {
            processes: vec![perf],
            complete: true,
        };
        assert_eq!(contention(&row, Some(&owners)), "nothing");
        row.recent.puts = 6;
        let with = "perf (9, 2 events of perf)";
        assert_eq!(contention(&row, Some(&owners)), with);
        row.neighbours = vec!["db (1) vcpu0".to_owned()];
        let both = format!("{with}, db (1) vcpu0 on the same CPU");
        assert_eq!(contention(&row, Some(&owners)), both);
        row.neighbours.clear();
        let none = "events of perf that no process holds open";
        assert_eq!(contention(&row, Some(&Owners::default())), none);
    }

    #[test]
    fn times_have_units_that_suit_them() {
        assert_eq!(time(999), "999 us");
        assert_eq!(time(1_500), "1.5 ms");
        assert_eq!(time(2_345_678), "2.35 s");
    }
}
