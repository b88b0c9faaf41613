// SPDX-License-Identifier: GPL-2.0

//! A reading as JSON.

use mvpmu_host::module::Capability;
use mvpmu_host::perf_events::Owners;
use serde::Serialize;

use crate::cost::Cost;
use crate::counts::Counts;
use crate::kvm;
use crate::row::Row;
use crate::sample::Sample;
use crate::sample::State;
use crate::sample::Totals;

#[derive(Serialize)]
struct Report<'a> {
    capability: &'a Capability,
    totals: Totals,
    vms: Vec<Vm<'a>>,
    /// Who has events of perf; null unless the host has been in a guest's way.
    perf_events: Option<&'a Owners>,
}

#[derive(Serialize)]
struct Vm<'a> {
    pid: u32,
    vm: u64,
    name: &'a str,
    kvm: Option<&'a kvm::Stats>,
    vcpus: Vec<Vcpu<'a>>,
}

#[derive(Serialize)]
struct Vcpu<'a> {
    id: u32,
    thread: Option<u32>,
    cpu: Option<u32>,
    state: State,
    counts: &'a Counts,
    contended: u64,
    cost: Cost,
    same_cpu: &'a [String],
}

/// The whole reading, one object.
pub fn text(
    sample: &Sample,
    rows: &[Row],
    suspects: Option<&Owners>,
) -> serde_json::Result<String> {
    let vms = sample.vms.iter().map(|vm| Vm {
        pid: vm.pid,
        vm: vm.number,
        name: &vm.name,
        kvm: vm.kvm.as_ref(),
        vcpus: rows
            .iter()
            .filter(|row| (row.pid, row.vm) == (vm.pid, vm.number))
            .map(|row| Vcpu {
                id: row.id,
                thread: row.thread,
                cpu: row.cpu,
                state: row.state,
                counts: &row.counts,
                contended: row.counts.contended(),
                cost: row.cost,
                same_cpu: &row.neighbours,
            })
            .collect(),
    });
    let report = Report {
        capability: &sample.capability,
        totals: sample.totals,
        vms: vms.collect(),
        perf_events: suspects,
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;
    use crate::row::rows;
    use serde_json::Value;

    #[test]
    fn programs_find_each_count_of_each_vcpu() {
        let (_, second) = recorded::samples();
        let rows = rows(&second, None, &recorded::PRICES);
        let text = text(&second, &rows, None).expect("it is JSON");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(json["capability"]["vendor"], "intel");
        assert_eq!(json["totals"]["vms"], 3);
        assert_eq!(json["totals"]["loads"], second.totals.counts.loads);
        assert_eq!(json["vms"].as_array().map(Vec::len), Some(3));
        for (vm, row) in json["vms"].as_array().into_iter().flatten().zip(&rows) {
            let vcpu = &vm["vcpus"][0];
            for (name, _, _, value) in row.counts.each() {
                assert_eq!(vcpu["counts"][name], value, "{name}");
            }
            assert_eq!(vcpu["contended"], row.counts.contended());
            assert_eq!(vcpu["cost"]["ns"], row.cost.ns);
        }
        assert_eq!(json["vms"][0]["kvm"]["exits"], 9977);
        assert_eq!(json["perf_events"], Value::Null);
    }
}
