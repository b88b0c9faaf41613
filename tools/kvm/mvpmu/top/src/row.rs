// SPDX-License-Identifier: GPL-2.0

//! What is shown of a vCPU: a reading and what has changed since an earlier one.

use crate::cost::Cost;
use crate::cost::Prices;
use crate::counts::Counts;
use crate::kvm;
use crate::sample::Sample;
use crate::sample::State;

/// A vCPU.
#[derive(Clone, Debug)]
pub struct Row {
    /// The process of its VM.
    pub pid: u32,
    /// The module's number of the VM.
    pub vm: u64,
    /// The VM's name.
    pub guest: String,
    /// The number of the vCPU.
    pub id: u32,
    /// Its thread.
    pub thread: Option<u32>,
    /// The CPU of the thread.
    pub cpu: Option<u32>,
    /// Where its PMU state is.
    pub state: State,
    /// Its counts since its creation.
    pub counts: Counts,
    /// Those since the earlier reading; since its creation without one.
    pub recent: Counts,
    /// The estimate for the recent ones.
    pub cost: Cost,
    /// The other vCPUs whose threads were last seen on this CPU.
    pub neighbours: Vec<String>,
    /// KVM's statistics of the VM, and what was added.
    pub kvm: Option<(kvm::Stats, kvm::Stats)>,
}

impl Row {
    /// What tells it from others.
    pub fn key(&self) -> (u32, u64, u32) {
        (self.pid, self.vm, self.id)
    }

    /// The name of the vCPU for people.
    pub fn name(&self) -> String {
        format!("{} ({}) vcpu{}", self.guest, self.pid, self.id)
    }

    /// `n` of the recent counts per second; nothing while no time has passed.
    pub fn per_second(&self, n: u64) -> Option<f64> {
        let elapsed = self.recent.elapsed_us();
        (elapsed > 0).then(|| n as f64 * 1e6 / elapsed as f64)
    }

    /// How much of the recent time `us` microseconds are, in percent.
    pub fn percent(&self, us: f64) -> Option<f64> {
        let elapsed = self.recent.elapsed_us();
        (elapsed > 0).then(|| us * 100.0 / elapsed as f64)
    }

    /// The estimate of the recent time, in percent of a CPU.
    pub fn cost_percent(&self) -> Option<f64> {
        self.percent(self.cost.ns as f64 / 1000.0)
    }
}

/// All vCPUs of the reading, with what has changed since `earlier`.
pub fn rows(now: &Sample, earlier: Option<&Sample>, prices: &Prices) -> Vec<Row> {
    let mut rows = Vec::new();
    for vm in &now.vms {
        let kvm_before = earlier
            .and_then(|sample| sample.vms.iter().find(|old| old.pid == vm.pid))
            .and_then(|old| old.kvm.as_ref());
        for vcpu in &vm.vcpus {
            let before = earlier
                .and_then(|sample| sample.counts_of(vm.pid, vm.number, vcpu.id))
                .copied()
                .unwrap_or_default();
            let recent = vcpu.counts.since(&before);
            rows.push(Row {
                pid: vm.pid,
                vm: vm.number,
                guest: vm.name.clone(),
                id: vcpu.id,
                thread: vcpu.thread,
                cpu: vcpu.cpu,
                state: vcpu.state,
                counts: vcpu.counts,
                recent,
                cost: prices.of(&recent),
                neighbours: Vec::new(),
                kvm: vm
                    .kvm
                    .as_ref()
                    .map(|kvm| (kvm.clone(), kvm.since(kvm_before))),
            });
        }
    }
    add_neighbours(&mut rows);
    rows
}

fn add_neighbours(rows: &mut [Row]) {
    let places: Vec<_> = rows
        .iter()
        .map(|row| (row.key(), row.cpu, row.name()))
        .collect();
    for row in rows {
        row.neighbours = places
            .iter()
            .filter(|(key, cpu, _)| *key != row.key() && cpu.is_some() && *cpu == row.cpu)
            .map(|(_, _, name)| name.clone())
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let (first, second) = recorded::samples();
        let rows = rows(&second, Some(&first), &recorded::PRICES);
        let before = first.counts_of(50, 1, 0).expect("it is there");
        let after = second.counts_of(50, 1, 0).expect("it is there");
        let loads = after.loads - before.loads;
        let us = after.elapsed_us() - before.elapsed_us();
        assert!(loads > 0 && us > 0);
        assert_eq!(rows[0].recent.loads, loads);
        assert_eq!(
            rows[0].per_second(loads),
            Some(loads as f64 * 1e6 / us as f64)
        );
    }

    // It has to be known from its own creation on, not to have made all switches of its life lately.
    #[test]
    fn a_vcpu_that_is_new_is_shown_since_its_creation() {
        let (mut first, second) = recorded::samples();
        first.vms.remove(0);
        let rows = rows(&second, Some(&first), &recorded::PRICES);
        assert_eq!(rows[0].recent, rows[0].counts);
        assert_ne!(rows[1].recent, rows[1].counts);
    }

    #[test]
    fn no_time_has_no_rate() {
        let (_, second) = recorded::samples();
        let rows = rows(&second, Some(&second), &recorded::PRICES);
        assert_eq!(rows[0].per_second(1), None);
        assert_eq!(rows[0].cost_percent(), None);
    }

    #[test]
    fn neighbours_are_other_vcpus_of_the_same_cpu() {
        let mut rows = recorded::rows();
        for row in &mut rows {
            row.cpu = Some(3);
        }
        rows[2].cpu = None;
        add_neighbours(&mut rows);
        assert_eq!(rows[0].neighbours, [rows[1].name()]);
        assert_eq!(rows[1].neighbours, [rows[0].name()]);
        assert!(rows[2].neighbours.is_empty());
    }
}
