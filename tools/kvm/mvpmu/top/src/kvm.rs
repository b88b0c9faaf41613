// SPDX-License-Identifier: GPL-2.0

//! KVM's own statistics of VMs, in debugfs.

use std::collections::BTreeMap;

use mvpmu_host::Root;
use mvpmu_host::DEBUGFS;
use serde::Serialize;

/// The counts that are read, sums over the vCPUs of a VM: VM exits, and why they were.
pub const NAMES: [&str; 9] = [
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_exits",
    "irq_window_exits",
    "signal_exits",
    "insn_emulation",
    "nested_run",
];

/// KVM's counts of the VMs of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// How many VMs the process has: with more than one, KVM and mvpmu do not number them alike,
    /// and the counts are the sums.
    pub vms: usize,
    /// The counts by name.
    #[serde(flatten)]
    pub counts: BTreeMap<&'static str, u64>,
    /// The threads of the vCPUs, if there is one VM: by the number of the vCPU.
    #[serde(skip)]
    pub threads: BTreeMap<u32, u32>,
}

impl Stats {
    /// What KVM shows of the process; nothing without debugfs' files of KVM.
    pub fn read(root: &Root, pid: u32) -> Option<Self> {
        let directory = format!("{DEBUGFS}/kvm");
        let prefix = format!("{pid}-");
        let mut stats = Stats::default();
        for name in root.names(&directory).ok()? {
            if !name.starts_with(&prefix) {
                continue;
            }
            stats.vms += 1;
            let vm = format!("{directory}/{name}");
            for name in NAMES {
                let Some(count) = root.number(&format!("{vm}/{name}")) else {
                    continue;
                };
                *stats.counts.entry(name).or_default() += count;
            }
            stats.add_threads(root, &vm);
        }
        if stats.vms > 1 {
            stats.threads.clear();
        }
        (stats.vms > 0).then_some(stats)
    }

    fn add_threads(&mut self, root: &Root, vm: &str) {
        for name in root.names(vm).unwrap_or_default() {
            let id = name.strip_prefix("vcpu").and_then(|id| id.parse().ok());
            let thread = root.number(&format!("{vm}/{name}/pid"));
            // 0 until the vCPU runs for the first time.
            let thread = thread
                .and_then(|pid| pid.try_into().ok())
                .filter(|&n| n > 0);
            if let (Some(id), Some(thread)) = (id, thread) {
                self.threads.insert(id, thread);
            }
        }
    }
}

impl Stats {
    /// What was added since `earlier`, if there was one.
    pub fn since(&self, earlier: Option<&Self>) -> Self {
        let mut recent = self.clone();
        let Some(earlier) = earlier else {
            return recent;
        };
        for (name, count) in &mut recent.counts {
            let before = earlier.counts.get(name).copied().unwrap_or_default();
            // Less than before: a VM of the process is gone.
            *count = count.saturating_sub(before);
        }
        recent
    }
}
