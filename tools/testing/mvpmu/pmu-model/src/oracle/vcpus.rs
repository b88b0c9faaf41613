// SPDX-License-Identifier: GPL-2.0
//! What the vCPUs were left with, on whichever CPU they ran.

use std::collections::BTreeMap;

/// The vCPUs that were entered with some of the PMU within reach.
#[derive(Debug, Default)]
pub struct Vcpus {
    /// For a VMCB (VMCS), another of the same vCPU. Without an entry it stands for the vCPU.
    same: BTreeMap<u64, u64>,
    /// By the VMCB that stands for the vCPU: its counters at the last exit.
    values: BTreeMap<u64, Vec<Left>>,
}

/// A counter as a vCPU was left with it.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    value: u64,
    /// It came about in the guest. (Any other value may have been given to several vCPUs.)
    own: bool,
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

    /// The counters at a VM exit: what they were at the entry, and what they are.
    pub(super) fn left_with(&mut self, guest: u64, counters: impl Iterator<Item = (u64, u64)>) {
        let root = self.root(guest);
        let values = self.values.entry(root).or_default();
        for (n, (before, value)) in counters.enumerate() {
            if values.len() <= n {
                values.push(Left::default());
            }
            let own = value != before || (values[n].own && values[n].value == value);
            values[n] = Left { value, own };
        }
    }

    /// What counter `n` was at the last exit, if there was one.
    pub(super) fn had(&self, guest: u64, n: usize) -> Option<u64> {
        Some(self.values.get(&self.root(guest))?.get(n)?.value)
    }

    /// Another vCPU that has come to `value` in counter `n`.
    pub(super) fn other_with(&self, guest: u64, n: usize, value: u64) -> Option<u64> {
        let root = self.root(guest);
        self.values
            .iter()
            .find(|(other, values)| {
                let same = |left: &Left| left.own && left.value == value;
                **other != root && values.get(n).is_some_and(same)
            })
            .map(|(other, _)| *other)
    }
}
