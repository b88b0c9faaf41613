// SPDX-License-Identifier: GPL-2.0

//! Kernel-based Virtual Machine (KVM).
//!
//! C header: [`include/linux/kvm_host.h`](srctree/include/linux/kvm_host.h)

use crate::types::Opaque;

#[cfg(CONFIG_PERF_GUEST_MEDIATED_PMU)]
pub mod mediated_pmu;

/// A virtual machine, `struct kvm`.
#[repr(transparent)]
pub struct Vm(Opaque<bindings::kvm>);

impl Vm {
    /// Wraps a pointer of C.
    ///
    /// # Safety
    ///
    /// `ptr` must point to a VM that exists for all of `'a`.
    #[inline(always)]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::kvm) -> &'a Self {
        // SAFETY: By the safety requirement; `Self` is transparent.
        unsafe { &*ptr.cast() }
    }

    /// The process that created the VM.
    pub fn pid(&self) -> i32 {
        // SAFETY: The VM exists as `self` does; the field is written only at creation.
        unsafe { (*self.0.get()).userspace_pid }
    }
}

/// A virtual CPU, `struct kvm_vcpu`.
#[repr(transparent)]
pub struct Vcpu(Opaque<bindings::kvm_vcpu>);

impl Vcpu {
    /// Wraps a pointer of C.
    ///
    /// # Safety
    ///
    /// `ptr` must point to a vCPU that exists for all of `'a`.
    #[inline(always)]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::kvm_vcpu) -> &'a Self {
        // SAFETY: By the safety requirement; `Self` is transparent.
        unsafe { &*ptr.cast() }
    }

    /// The number that userspace gave the vCPU.
    pub fn id(&self) -> i32 {
        // SAFETY: The vCPU exists as `self` does; the field is written only at creation.
        unsafe { (*self.0.get()).vcpu_id }
    }

    /// Has [`Provider::update`] called before the next VM entry.
    ///
    /// [`Provider::update`]: mediated_pmu::Provider::update
    #[cfg(CONFIG_PERF_GUEST_MEDIATED_PMU)]
    #[inline(always)]
    pub fn request_update(&self) {
        // SAFETY: The vCPU exists as `self` does; the C function takes any, from any thread.
        unsafe { bindings::kvm_mediated_pmu_request_update(self.0.get()) }
    }
}
