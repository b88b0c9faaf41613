// SPDX-License-Identifier: GPL-2.0

//! vCPUs that wait until perf lets guests have the PMU.
//!
//! All of it is inline: KVM is a module.

use crate::kvm::Vcpu;
use core::mem;

/// The wait of a vCPU whose guest counts nothing, as an event of the host counts in guests.
///
/// While there is one, KVM asks perf now and then, and has [`Provider::update`] called once it might
/// succeed.
///
/// [`Provider::update`]: super::Provider::update
pub struct Wait(());

impl Wait {
    /// `vcpu` begins to wait; KVM logs it.
    #[inline(always)]
    pub fn begin(vcpu: &Vcpu) -> Self {
        // SAFETY: The vCPU exists as `vcpu` does.
        unsafe { bindings::kvm_mediated_pmu_wait(vcpu.0.get()) };
        Self(())
    }

    /// Perf still refuses.
    #[inline(always)]
    pub fn go_on(&self) {
        // SAFETY: The C API requires nothing.
        unsafe { bindings::kvm_mediated_pmu_wait_on() };
    }

    /// `vcpu` no longer waits; KVM logs it.
    #[inline(always)]
    pub fn end(self, vcpu: &Vcpu) {
        mem::forget(self);
        // SAFETY: The vCPU exists as `vcpu` does; the wait began in `begin`.
        unsafe { bindings::kvm_mediated_pmu_wait_end(vcpu.0.get()) };
    }
}

impl Drop for Wait {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: The wait began in `begin`. Null stands for a vCPU that is gone.
        unsafe { bindings::kvm_mediated_pmu_wait_end(core::ptr::null_mut()) };
    }
}
