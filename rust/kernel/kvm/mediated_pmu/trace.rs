// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of mvpmu.
//!
//! While an event is off it costs one NOP. What is passed to it is evaluated before that, so it has
//! to be at hand.
//!
//! All of it is inline: the module defines the tracepoints.
//!
//! C header: [`include/trace/events/mvpmu.h`](srctree/include/trace/events/mvpmu.h)

use crate::{
    error::Error,
    kvm::Vcpu,
    tracepoint::declare_trace,
    x86::pmu::CounterSet, //
};
use bindings::kvm_vcpu;

declare_trace! {
    /// # Safety
    ///
    /// The pointers must be valid for reads, as for the other events.
    unsafe fn mvpmu_load(vcpu: *const kvm_vcpu, vm: *const u64, reads: u32, writes: u32);
    /// # Safety
    ///
    /// As above.
    unsafe fn mvpmu_put(
        vcpu: *const kvm_vcpu,
        vm: *const u64,
        reason: u32,
        reads: u32,
        writes: u32,
    );
    /// # Safety
    ///
    /// As above.
    unsafe fn mvpmu_park(vcpu: *const kvm_vcpu, vm: *const u64);
    /// # Safety
    ///
    /// As above.
    unsafe fn mvpmu_release(vcpu: *const kvm_vcpu, vm: *const u64);
    /// # Safety
    ///
    /// As above.
    unsafe fn mvpmu_pmi(vcpu: *const kvm_vcpu, vm: *const u64);
    /// # Safety
    ///
    /// As above.
    unsafe fn mvpmu_state(vcpu: *const kvm_vcpu, vm: *const u64, state: u32, counters: u64);
    /// # Safety
    ///
    /// As above.
    unsafe fn mvpmu_refuse(vcpu: *const kvm_vcpu, vm: *const u64, error: i32);
}

/// Why the state came back to memory.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum PutReason {
    /// A VM exit, after which it could not stay in hardware.
    Exit = bindings::mvpmu_put_reason_MVPMU_PUT_EXIT,
    /// It was released.
    Release = bindings::mvpmu_put_reason_MVPMU_PUT_RELEASE,
}

/// How a guest with counters gets on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// It does not use the hardware.
    Dormant = bindings::mvpmu_state_MVPMU_STATE_DORMANT,
    /// It does.
    Active = bindings::mvpmu_state_MVPMU_STATE_ACTIVE,
    /// It cannot have it at present.
    Waiting = bindings::mvpmu_state_MVPMU_STATE_WAITING,
}

/// Where the events of a vCPU come from. `vm` is the number of its VM.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    vcpu: &'a Vcpu,
    vm: &'a u64,
}

impl<'a> Source<'a> {
    /// The vCPU, of the VM with this number.
    #[inline(always)]
    pub fn new(vcpu: &'a Vcpu, vm: &'a u64) -> Self {
        Self { vcpu, vm }
    }

    /// The state went into hardware.
    #[inline(always)]
    pub fn load(self, reads: u32, writes: u32) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_load(self.vcpu.0.get(), self.vm, reads, writes) }
    }

    /// The state came back. The accesses are those of the load, too.
    #[inline(always)]
    pub fn put(self, reason: PutReason, reads: u32, writes: u32) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_put(self.vcpu.0.get(), self.vm, reason as u32, reads, writes) }
    }

    /// A VM exit left it in hardware.
    #[inline(always)]
    pub fn park(self) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_park(self.vcpu.0.get(), self.vm) }
    }

    /// It is about to be released.
    #[inline(always)]
    pub fn release(self) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_release(self.vcpu.0.get(), self.vm) }
    }

    /// A PMI of the guest arrived.
    #[inline(always)]
    pub fn pmi(self) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_pmi(self.vcpu.0.get(), self.vm) }
    }

    /// What the guest uses of the hardware has begun or ended.
    #[inline(always)]
    pub fn state(self, state: State, counters: CounterSet) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_state(self.vcpu.0.get(), self.vm, state as u32, counters.bits()) }
    }

    /// Perf refused the hardware.
    #[inline(always)]
    pub fn refuse(self, error: Error) {
        // SAFETY: Both exist as `self` does.
        unsafe { mvpmu_refuse(self.vcpu.0.get(), self.vm, error.to_errno()) }
    }
}
