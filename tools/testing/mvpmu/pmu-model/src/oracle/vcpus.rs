// SPDX-License-Identifier: GPL-2.0
//! What the vCPUs were left with, on whichever CPU they ran.

use std::collections::BTreeMap;

/// The vCPUs that were entered with some of the PMU within reach.
#[derive(Debug, Default)]
pub struct Vcpus {
    /// For a VMCB (VMCS), another of the same vCPU. Without an entry it stands for the vCPU.
    same: BTreeMap<u64, u64>,
    /// By the VMCB that stands for the vCPU: its counters at the last exit.
    values: BTreeMap<u64, Vec<u64>>,
}

impl Vcpus {
    /// The VMCB that stands for the vCPU of `guest`.
    fn root(&self, mut guest: u64) -> u64 {
        while let Some(same) = self.same.get(&guest) {
            guest = *same;
        }
        guest
    }

    /// Both are of one vCPU; `a` was left last.
    pub(super) fn join(&mut self, a: u64, b: u64) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.same.insert(b, a);
            self.values.remove(&b);
        }
    }

    /// A new VMCB has this address.
    pub(super) fn forget(&mut self, guest: u64) {
        let root = self.root(guest);
        self.values.remove(&root);
        // If others were joined to it they are gone with it, or join again.
        self.same.retain(|from, to| *from != guest && *to != guest);
    }

    /// The counters at a VM exit.
    pub(super) fn left_with(&mut self, guest: u64, counters: Vec<u64>) {
        let root = self.root(guest);
        self.values.insert(root, counters);
    }

    /// What counter `n` was at the last exit, if there was one.
    pub(super) fn had(&self, guest: u64, n: usize) -> Option<u64> {
        self.values.get(&self.root(guest))?.get(n).copied()
    }

    /// Another vCPU that was left with `value` in counter `n`.
    pub(super) fn other_with(&self, guest: u64, n: usize, value: u64) -> Option<u64> {
        let root = self.root(guest);
        self.values
            .iter()
            .find(|(other, values)| **other != root && values.get(n) == Some(&value))
            .map(|(other, _)| *other)
    }
}
