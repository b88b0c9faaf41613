// SPDX-License-Identifier: GPL-2.0

//! Providers of KVM's mediated PMU.
//!
//! A provider is a module that moves the PMU state of vCPUs between memory and hardware in place
//! of KVM's own code. It implements [`Provider`] and holds a [`Registration`].
//!
//! C header: [`arch/x86/include/asm/kvm_mediated_pmu.h`](srctree/arch/x86/include/asm/kvm_mediated_pmu.h)

use super::{
    Vcpu,
    Vm, //
};
use crate::{
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    interrupt::LocalInterruptDisabled,
    perf::guest::GuestLvtpc,
    prelude::*,
    types::{
        ForeignOwnable,
        Opaque, //
    },
    ThisModule,
};

mod state;
pub use state::{
    GuestPmu,
    Pmc, //
};

#[cfg(CONFIG_KUNIT = "y")]
pub use state::OwnedPmu;

/// Whether the guest read or wrote a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrAccess {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

/// A provider of the mediated PMU.
///
/// All functions but [`Provider::vm_create`] work on data of the VM or vCPU alone, so that the
/// paths of VM entry and exit need nothing but what belongs to the vCPU.
#[vtable]
pub trait Provider: Send + Sync + Sized + 'static {
    /// Data of a VM. Dropped after the last vCPU's.
    type VmData: ForeignOwnable + Send + Sync;

    /// Data of a vCPU.
    type VcpuData: ForeignOwnable + Send + Sync;

    /// A VM with a PMU is about to get its first vCPU. May sleep.
    ///
    /// An error fails the creation of the vCPU.
    fn vm_create(&self, vm: &Vm) -> Result<Self::VmData>;

    /// A vCPU is being created. May sleep.
    ///
    /// An error fails the creation of the vCPU.
    fn vcpu_create(
        vm: <Self::VmData as ForeignOwnable>::Borrowed<'_>,
        vcpu: &Vcpu,
    ) -> Result<Self::VcpuData>;

    /// The vCPU enters the guest: the guest's state goes into hardware.
    fn load(
        data: <Self::VcpuData as ForeignOwnable>::Borrowed<'_>,
        pmu: &mut GuestPmu<'_>,
        lvtpc: GuestLvtpc,
        irq: &LocalInterruptDisabled,
    );

    /// The vCPU left the guest: the guest's state goes back to memory.
    fn put(
        data: <Self::VcpuData as ForeignOwnable>::Borrowed<'_>,
        pmu: &mut GuestPmu<'_>,
        irq: &LocalInterruptDisabled,
    );

    /// A PMI of the guest arrived; KVM injects it. Hard interrupt context.
    fn pmi(_data: <Self::VcpuData as ForeignOwnable>::Borrowed<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// KVM handles the guest's intercepted access to a PMU MSR.
    fn msr_access(
        _data: <Self::VcpuData as ForeignOwnable>::Borrowed<'_>,
        _msr: u32,
        _access: MsrAccess,
    ) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The registration of a provider with KVM.
///
/// From its initialisation to its drop every new VM has a mediated PMU that `P` provides. While a
/// VM exists the module is pinned, so that the registration cannot go away beneath it.
///
/// # Examples
///
/// ```ignore
/// #[pin_data]
/// struct MyModule {
///     #[pin]
///     registration: mediated_pmu::Registration<MyProvider>,
/// }
///
/// impl kernel::InPlaceModule for MyModule {
///     fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
///         try_pin_init!(Self {
///             // The last field: VMs may exist from here on.
///             registration <- mediated_pmu::Registration::new(module, MyProvider),
///         })
///     }
/// }
/// ```
///
/// # Invariants
///
/// KVM holds a pointer to `ops`, which is the table of `P`'s callbacks.
#[pin_data(PinnedDrop)]
pub struct Registration<P: Provider> {
    provider: P,
    #[pin]
    ops: Opaque<bindings::kvm_mediated_pmu_ops>,
}

// SAFETY: After initialisation nothing but the provider, which is `Sync`, is accessed.
unsafe impl<P: Provider> Sync for Registration<P> {}
// SAFETY: A provider may be unregistered by any thread, and `P` is `Send`.
unsafe impl<P: Provider> Send for Registration<P> {}

impl<P: Provider> Registration<P> {
    /// Registers `provider`, whose code lies in `module`.
    ///
    /// Fails with `EBUSY` while VMs exist or another provider is registered, and with `ENODEV` if
    /// KVM or the host's PMU cannot do it; KVM logs the reason.
    pub fn new(module: &'static ThisModule, provider: P) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            provider,
            ops <- Opaque::try_ffi_init(|slot: *mut bindings::kvm_mediated_pmu_ops| {
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(Self::ops(module)) };
                // SAFETY: `slot` is pinned until `drop`, which unregisters it. `provider`, the
                // field before it, is initialised. The callbacks follow the contract of the ops.
                to_result(unsafe { bindings::kvm_mediated_pmu_register(slot) })
            }),
        })
    }

    fn ops(module: &'static ThisModule) -> bindings::kvm_mediated_pmu_ops {
        bindings::kvm_mediated_pmu_ops {
            owner: module.as_ptr(),
            vm_create: Some(Self::vm_create_callback),
            vm_destroy: Some(Self::vm_destroy_callback),
            vcpu_create: Some(Self::vcpu_create_callback),
            vcpu_destroy: Some(Self::vcpu_destroy_callback),
            load: Some(Self::load_callback),
            put: Some(Self::put_callback),
            pmi: if P::HAS_PMI {
                Some(Self::pmi_callback)
            } else {
                None
            },
            msr_access: if P::HAS_MSR_ACCESS {
                Some(Self::msr_access_callback)
            } else {
                None
            },
        }
    }

    /// # Safety
    ///
    /// Called by KVM as `vm_create`, with the registered ops.
    unsafe extern "C" fn vm_create_callback(
        ops: *const bindings::kvm_mediated_pmu_ops,
        kvm: *mut bindings::kvm,
    ) -> c_int {
        // SAFETY: `ops` is the field of a live registration: KVM calls between register and
        // unregister only. `Opaque` is transparent.
        let this = unsafe { &*crate::container_of!(Opaque::cast_from(ops), Self, ops) };
        // SAFETY: KVM passes a VM that is being set up.
        let vm = unsafe { Vm::from_raw(kvm) };

        from_result(|| {
            let data = this.provider.vm_create(vm)?.into_foreign();
            // SAFETY: The field is ours until `vm_destroy`, and no other code looks at it.
            unsafe { (*kvm).arch.mediated_pmu_provider_data = data };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by KVM as `vm_destroy`, once for each successful `vm_create`.
    unsafe extern "C" fn vm_destroy_callback(kvm: *mut bindings::kvm) {
        // SAFETY: `vm_create` stored the data, and its vCPUs, which borrow it, are gone.
        drop(unsafe { P::VmData::from_foreign((*kvm).arch.mediated_pmu_provider_data) });
    }

    /// # Safety
    ///
    /// Called by KVM as `vcpu_create`, between `vm_create` and `vm_destroy` of its VM.
    unsafe extern "C" fn vcpu_create_callback(vcpu: *mut bindings::kvm_vcpu) -> c_int {
        // SAFETY: KVM passes a vCPU that is being set up; `vm_create` stored the data, which
        // outlives the vCPU.
        let (vm, vcpu_ref) = unsafe {
            (
                P::VmData::borrow((*(*vcpu).kvm).arch.mediated_pmu_provider_data),
                Vcpu::from_raw(vcpu),
            )
        };

        from_result(|| {
            let data = P::vcpu_create(vm, vcpu_ref)?.into_foreign();
            // SAFETY: The field is ours until `vcpu_destroy`, and no other code looks at it.
            unsafe { (*vcpu).arch.pmu.provider_data = data };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by KVM as `vcpu_destroy`, once for each successful `vcpu_create`.
    unsafe extern "C" fn vcpu_destroy_callback(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: `vcpu_create` stored the data; the vCPU runs no more.
        drop(unsafe { P::VcpuData::from_foreign((*vcpu).arch.pmu.provider_data) });
    }

    /// # Safety
    ///
    /// `vcpu` must be a vCPU whose `vcpu_create` succeeded, and exist for all of `'a`.
    #[inline(always)]
    unsafe fn data<'a>(
        vcpu: *mut bindings::kvm_vcpu,
    ) -> <P::VcpuData as ForeignOwnable>::Borrowed<'a> {
        // SAFETY: `vcpu_create` stored the data, which `vcpu_destroy` takes back.
        unsafe { P::VcpuData::borrow((*vcpu).arch.pmu.provider_data) }
    }

    /// # Safety
    ///
    /// Called by KVM as `load`, with interrupts disabled, on a vCPU that is about to run.
    unsafe extern "C" fn load_callback(vcpu: *mut bindings::kvm_vcpu, guest_lvtpc: u32) {
        // SAFETY: By the contract of `load`: this thread owns the vCPU and its PMU state, and
        // interrupts stay disabled.
        let (data, mut pmu, irq) = unsafe {
            (
                Self::data(vcpu),
                GuestPmu::from_raw(&raw mut (*vcpu).arch.pmu),
                LocalInterruptDisabled::assume_disabled(),
            )
        };

        P::load(data, &mut pmu, GuestLvtpc::new(guest_lvtpc), irq);
    }

    /// # Safety
    ///
    /// Called by KVM as `put`, with interrupts disabled, on a vCPU that ran.
    unsafe extern "C" fn put_callback(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the contract of `put`: this thread owns the vCPU and its PMU state, and
        // interrupts stay disabled.
        let (data, mut pmu, irq) = unsafe {
            (
                Self::data(vcpu),
                GuestPmu::from_raw(&raw mut (*vcpu).arch.pmu),
                LocalInterruptDisabled::assume_disabled(),
            )
        };

        P::put(data, &mut pmu, irq);
    }

    /// # Safety
    ///
    /// Called by KVM as `pmi`.
    unsafe extern "C" fn pmi_callback(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the contract of `pmi` the vCPU's `vcpu_create` succeeded.
        P::pmi(unsafe { Self::data(vcpu) });
    }

    /// # Safety
    ///
    /// Called by KVM as `msr_access`.
    unsafe extern "C" fn msr_access_callback(vcpu: *mut bindings::kvm_vcpu, msr: u32, write: bool) {
        let access = if write {
            MsrAccess::Write
        } else {
            MsrAccess::Read
        };

        // SAFETY: By the contract of `msr_access` the vCPU's `vcpu_create` succeeded.
        P::msr_access(unsafe { Self::data(vcpu) }, msr, access);
    }
}

#[pinned_drop]
impl<P: Provider> PinnedDrop for Registration<P> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant these ops are registered.
        unsafe { bindings::kvm_mediated_pmu_unregister(self.ops.get()) };
    }
}
