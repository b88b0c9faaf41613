// SPDX-License-Identifier: GPL-2.0
//! The vCPUs of all CPUs: which VMCBs are one, and what each must come back with.

use std::collections::BTreeMap;

use super::left_trace::LeftTrace;
use super::records::BranchRegister;
use super::records::Records;
use super::Entry;
use super::EMULATED;
use super::STACK_MASK;

/// What is remembered of writes by a guest whose registers are not in hardware.
const ASKED_MAX: usize = 64;

/// The vCPUs that were entered.
#[derive(Debug, Default)]
pub struct Vcpus {
    /// For a VMCB (VMCS), another of the same vCPU. Without an entry it stands for the vCPU.
    same: BTreeMap<u64, u64>,
    /// By its kernel stack, a thread that has run a guest and not been in user mode since, with
    /// that guest.
    threads: BTreeMap<u64, u64>,
    /// By the VMCB that stands for the vCPU.
    vcpus: BTreeMap<u64, Vcpu>,
}

/// What a vCPU was left with.
#[derive(Debug, Default)]
struct Vcpu {
    /// The process that runs it: a VMM, hence a VM.
    process: u64,
    counters: Vec<Left>,
    /// The register that enables counters, with the VMCB that was left then.
    control: Option<(u64, Left)>,
    lbr: Option<LeftLbr>,
    trace: Option<LeftTrace>,
}

/// The last branches as a vCPU was left with them.
#[derive(Debug)]
struct LeftLbr {
    /// By this VMCB.
    guest: u64,
    records: Box<Records>,
    /// They are in this CPU, unless VM exit has saved them.
    cpu: Option<u32>,
    /// They came about in the guest.
    own: bool,
    /// Others may have taken their place since.
    changed: bool,
    /// The guest has asked for them to be cleared.
    asked: bool,
    /// They were cleared, and nobody had read them.
    lost: bool,
}

/// A register as a vCPU was left with it.
#[derive(Clone, Debug, Default)]
struct Left {
    /// Its value at the last exit.
    value: Option<u64>,
    /// It came about in the guest. (Any other value may have been given to several vCPUs.)
    own: bool,
    /// How often it has left without its registers since: KVM may have emulated an instruction each time.
    exits: u64,
    /// What the guest has asked KVM to write since.
    asked: Vec<u64>,
    /// User space may have written another one since.
    changed: bool,
}

impl Left {
    /// Whether emulated instructions may have made `value` of it.
    fn is_near(&self, value: u64, mask: u64) -> bool {
        self.value
            .is_some_and(|was| is_near(was, value, mask, self.exits))
    }

    /// Whether they, or what the guest has asked for, may have.
    fn explains(&self, value: u64, mask: u64) -> bool {
        let is_near = |was: &u64| is_near(*was, value, mask, self.exits);
        self.is_near(value, mask) || self.asked.iter().any(is_near)
    }
}

/// What is to be said of a value with which a vCPU is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It had it when it was left.
    Kept,
    /// It is what emulated instructions have made of it, or what the guest has asked for; or
    /// nothing is known of this vCPU.
    Explained,
    /// It is what this other vCPU was left with.
    Other(u64),
    /// Nothing in the kernel explains it.
    Unexplained,
    /// User space may have written it.
    Unknown,
}

/// Whether emulated instructions, with so many exits besides, may have moved a counter from `was` to `value`.
fn is_near(was: u64, value: u64, mask: u64, exits: u64) -> bool {
    value.wrapping_sub(was) & mask <= EMULATED.saturating_add(exits)
}

impl Vcpus {
    /// The VMCB that stands for the vCPU of `guest`.
    fn root(&self, mut guest: u64) -> u64 {
        while let Some(same) = self.same.get(&guest) {
            guest = *same;
        }
        guest
    }

    /// The thread with this kernel stack has been in user mode.
    pub(super) fn user(&mut self, stack: u64) {
        self.threads.remove(&(stack & !STACK_MASK));
    }

    /// A VM entry. The result is whether the thread has not been in user mode since it ran a guest
    /// last: it was this vCPU then.
    pub(super) fn enter(&mut self, entry: &Entry) -> bool {
        if entry.fresh {
            self.forget(entry.guest);
        }
        if entry.initial {
            self.vcpus.remove(&self.root(entry.guest));
        }
        let before = self.threads.insert(entry.stack & !STACK_MASK, entry.guest);
        match before {
            Some(before) => self.join(before, entry.guest),
            None => self.changed(entry.guest),
        }
        before.is_some()
    }

    /// Both are of one vCPU; `a` was left last.
    fn join(&mut self, a: u64, b: u64) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.same.insert(b, a);
            self.vcpus.remove(&b);
        }
    }

    /// User space may have written the registers of this vCPU. If they are not within reach at this entry, it is a
    /// later one that has what was written.
    fn changed(&mut self, guest: u64) {
        let root = self.root(guest);
        if let Some(vcpu) = self.vcpus.get_mut(&root) {
            let control = vcpu.control.as_mut().map(|(_, left)| left);
            (vcpu.counters.iter_mut().chain(control)).for_each(|left| left.changed = true);
        }
    }

    /// A new VMCB has this address.
    fn forget(&mut self, guest: u64) {
        self.vcpus.remove(&self.root(guest));
        // If others were joined to it they are gone with it, or join again.
        self.same.retain(|from, to| *from != guest && *to != guest);
        self.threads.retain(|_, entered| *entered != guest);
    }

    fn vcpu(&mut self, entry: &Entry) -> &mut Vcpu {
        let vcpu = self.vcpus.entry(self.root(entry.guest)).or_default();
        vcpu.process = entry.process;
        vcpu
    }

    /// The vCPU has left, with counter `n`: what it was at the entry, and what it is.
    pub(super) fn left_counter(&mut self, entry: &Entry, n: usize, before: u64, value: u64) {
        let counters = &mut self.vcpu(entry).counters;
        if counters.len() <= n {
            counters.resize(n + 1, Left::default());
        }
        let left = &mut counters[n];
        let own = value != before || (left.own && left.value == Some(value));
        *left = Left {
            value: Some(value),
            own,
            ..Left::default()
        };
    }

    /// The vCPU has left, and its registers were not there.
    pub(super) fn left_without(&mut self, entry: &Entry) {
        let root = self.root(entry.guest);
        if let Some(vcpu) = self.vcpus.get_mut(&root) {
            for left in &mut vcpu.counters {
                left.exits += 1;
            }
        }
    }

    /// The vCPU has left, with this in the register that enables counters.
    pub(super) fn left_control(&mut self, entry: &Entry, value: u64) {
        let left = Left {
            value: Some(value),
            ..Left::default()
        };
        self.vcpu(entry).control = Some((entry.guest, left));
    }

    /// The guest has left for KVM to write counter `n`, or the register that enables counters. What
    /// it really gets is one of the values, or what was there before: KVM may refuse.
    pub(super) fn asks(&mut self, guest: u64, n: Option<usize>, values: &[u64]) {
        let root = self.root(guest);
        let Some(vcpu) = self.vcpus.get_mut(&root) else {
            return;
        };
        let left = match n {
            Some(n) => vcpu.counters.get_mut(n),
            None => vcpu.control.as_mut().map(|(_, left)| left),
        };
        if let Some(left) = left {
            if left.asked.len() >= ASKED_MAX {
                left.asked.clear();
            }
            left.asked.extend_from_slice(values);
        }
    }

    /// Where the value of counter `n` comes from at this entry.
    pub(super) fn origin(&self, entry: &Entry, n: usize, value: u64, mask: u64) -> Origin {
        let root = self.root(entry.guest);
        let vcpu = self.vcpus.get(&root);
        let Some(left) = vcpu.and_then(|vcpu| vcpu.counters.get(n)) else {
            return Origin::Explained;
        };
        if left.value == Some(value) {
            return Origin::Kept;
        }
        if left.value.is_none() || left.explains(value, mask) {
            return Origin::Explained;
        }
        let had = |vcpu: &Vcpu| match left.changed {
            // Only the kernel can have moved it, to whichever counter.
            false => (vcpu.counters.iter()).any(|left| left.own && left.is_near(value, mask)),
            // User space may give a value to several vCPUs of its VM, and numbers may be alike.
            true => {
                let left = vcpu.counters.get(n);
                vcpu.process != entry.process
                    && left.is_some_and(|left| left.own && left.value == Some(value))
            }
        };
        let mut others = self.vcpus.iter().filter(|(other, _)| **other != root);
        let other = others.find(|(_, vcpu)| value != 0 && had(vcpu));
        match other {
            Some((other, _)) => Origin::Other(*other),
            None if left.changed => Origin::Unknown,
            None => Origin::Unexplained,
        }
    }

    /// Whether something explains the value of the register that enables counters.
    pub(super) fn explains_control(&self, entry: &Entry, value: u64) -> bool {
        let vcpu = self.vcpus.get(&self.root(entry.guest));
        match vcpu.and_then(|vcpu| vcpu.control.as_ref()) {
            // A nested guest may have another one.
            Some((guest, left)) if *guest == entry.guest => {
                left.changed || left.value == Some(value) || left.asked.contains(&value)
            }
            _ => true,
        }
    }

    /// Whether both are of one vCPU.
    pub(super) fn are_same(&self, a: u64, b: u64) -> bool {
        self.root(a) == self.root(b)
    }

    /// A VM entry. If user space, or KVM for a nested guest, may have changed the last branches, they are
    /// not those any more that the vCPU was left with.
    pub(super) fn enters_lbr(&mut self, entry: &Entry, continuous: bool) {
        let root = self.root(entry.guest);
        let vcpu = self.vcpus.get_mut(&root);
        if let Some(left) = vcpu.and_then(|vcpu| vcpu.lbr.as_mut()) {
            left.changed |= !continuous || left.guest != entry.guest;
        }
    }

    /// The guest has left for KVM to write a register of the records; whether that clears them.
    pub(super) fn asks_lbr(&mut self, guest: u64, clears: bool) {
        let root = self.root(guest);
        let vcpu = self.vcpus.get_mut(&root);
        if let Some(left) = vcpu.and_then(|vcpu| vcpu.lbr.as_mut()) {
            left.changed = true;
            left.asked |= clears;
        }
    }

    /// The vCPU has left, with these last branches: what they were at the entry, and what they are; and the CPU in
    /// which they stay, if there are any.
    pub(super) fn left_lbr(
        &mut self,
        entry: &Entry,
        before: &Records,
        records: &Records,
        cpu: Option<u32>,
    ) {
        let lbr = &mut self.vcpu(entry).lbr;
        let kept = |left: &LeftLbr| left.own && left.records.has_same_branches(records);
        *lbr = Some(LeftLbr {
            guest: entry.guest,
            records: Box::new(*records),
            cpu,
            own: !records.has_same_branches(before) || lbr.as_ref().is_some_and(kept),
            changed: false,
            asked: false,
            lost: false,
        });
    }

    /// What is known of the trace of the vCPU of `guest`, if it was entered before.
    pub(super) fn trace_of(&mut self, guest: u64) -> Option<&mut Option<LeftTrace>> {
        let root = self.root(guest);
        self.vcpus.get_mut(&root).map(|vcpu| &mut vcpu.trace)
    }

    /// The same of the one that is entered.
    pub(super) fn trace_of_entry(&mut self, entry: &Entry) -> &mut Option<LeftTrace> {
        &mut self.vcpu(entry).trace
    }

    /// Nothing of a guest's trace is in this CPU alone.
    pub(super) fn released_trace(&mut self, cpu: u32) {
        for left in self
            .vcpus
            .values_mut()
            .filter_map(|vcpu| vcpu.trace.as_mut())
        {
            left.released(cpu);
        }
    }

    /// The CPU that alone has the last branches of this vCPU.
    pub(super) fn lbr_cpu(&self, entry: &Entry) -> Option<u32> {
        let vcpu = self.vcpus.get(&self.root(entry.guest))?;
        vcpu.lbr.as_ref()?.cpu
    }

    /// The last branches in this CPU were cleared; those of `lost` had nobody read.
    pub(super) fn released_lbr(&mut self, cpu: u32, lost: Option<u64>) {
        let lost = lost.map(|guest| self.root(guest));
        for (root, vcpu) in &mut self.vcpus {
            let Some(left) = &mut vcpu.lbr else {
                continue;
            };
            left.cpu = left.cpu.filter(|of| *of != cpu);
            left.lost |= lost == Some(*root) && !left.asked;
        }
    }

    /// Where the last branches come from that this entry has, and the first register that is not
    /// as it was left.
    pub(super) fn lbr_origin(&self, entry: &Entry, records: &Records) -> (Origin, BranchRegister) {
        let root = self.root(entry.guest);
        let first = BranchRegister::From(0);
        let Some(left) = self.vcpus.get(&root).and_then(|vcpu| vcpu.lbr.as_ref()) else {
            return (Origin::Explained, first);
        };
        let Some(differs) = left.records.differs(records) else {
            return (Origin::Kept, first);
        };
        let had = |vcpu: &Vcpu| {
            let other = vcpu.lbr.as_ref().filter(|other| other.own);
            let same = other.is_some_and(|other| other.records.has_same_branches(records));
            // User space may give them to several vCPUs of its VM.
            same && (!left.changed || vcpu.process != entry.process)
        };
        let mut others = self.vcpus.iter().filter(|(other, _)| **other != root);
        let origin = match others.find(|(_, vcpu)| !records.is_empty() && had(vcpu)) {
            Some((other, _)) => Origin::Other(*other),
            None if left.changed && !left.lost => Origin::Unknown,
            None => Origin::Unexplained,
        };
        (origin, differs)
    }
}
