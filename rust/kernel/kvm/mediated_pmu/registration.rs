// SPDX-License-Identifier: GPL-2.0

//! The registration of a provider, and the way from KVM's callbacks to it.

use super::{
    GuestPmu,
    MsrAccess,
    Provider,
    Put,
    Selectors, //
};
use crate::{
    error::{
        from_result,
        to_result, //
    },
    interrupt::LocalInterruptDisabled,
    kvm::{
        Vcpu,
        Vm, //
    },
    perf::guest::GuestLvtpc,
    prelude::*,
    types::{
        ForeignOwnable,
        NotThreadSafe,
        Opaque, //
    },
    x86::pmu::CounterSet,
    ThisModule,
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull, //
};

/// What KVM keeps for a vCPU.
#[pin_data]
struct Slot<P: Provider> {
    #[pin]
    data: P::VcpuData,
    config: UnsafeCell<P::Config>,
    state: UnsafeCell<P::State>,
}

/// A vCPU on the paths of VM entry and exit, for the callback that KVM has called for it. Interrupts
/// are disabled.
///
/// A pointer, from which all else comes when it is needed: these paths are to be short.
///
/// # Invariants
///
/// For all of `'a`, `vcpu` points to a vCPU whose `vcpu_create` succeeded, interrupts are disabled, and
/// nobody else accesses the vCPU's [`Provider::State`] and what [`GuestPmu`] owns.
pub struct Switching<'a, P: Provider> {
    vcpu: NonNull<bindings::kvm_vcpu>,
    _life: PhantomData<(&'a mut P::State, P)>,
    _here: NotThreadSafe,
}

impl<'a, P: Provider> Switching<'a, P> {
    /// Wraps a pointer of C.
    ///
    /// # Safety
    ///
    /// As the type invariant says. The thread of the vCPU has that for its vCPU while interrupts are
    /// disabled: what could get in its way are interrupts, whose callback, `pmi`, touches neither
    /// state.
    #[inline(always)]
    unsafe fn from_raw(vcpu: *mut bindings::kvm_vcpu) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            // SAFETY: A pointer to an object is not null.
            vcpu: unsafe { NonNull::new_unchecked(vcpu) },
            _life: PhantomData,
            _here: NotThreadSafe,
        }
    }

    /// KVM's vCPU.
    #[inline(always)]
    pub fn kvm(&self) -> &'a Vcpu {
        // SAFETY: By the type invariant.
        unsafe { Vcpu::from_raw(self.vcpu.as_ptr()) }
    }

    /// What the vCPU shares with interrupts and with other threads.
    #[inline(always)]
    pub fn data(&self) -> Pin<&'a P::VcpuData> {
        // SAFETY: By the type invariant.
        unsafe { Registration::<P>::data(self.vcpu.as_ptr()) }
    }

    /// That interrupts are disabled.
    #[inline(always)]
    pub fn irq(&self) -> &'a LocalInterruptDisabled {
        // SAFETY: By the type invariant.
        unsafe { LocalInterruptDisabled::assume_disabled() }
    }

    /// Whether the guest records branches. If its branch stack is in hardware, KVM has what was there
    /// at the last VM exit.
    #[inline(always)]
    pub fn records_branches(&self) -> bool {
        // SAFETY: By the type invariant the vCPU exists and is ours.
        unsafe { bindings::kvm_pmu_records_branches(self.vcpu.as_ptr()) }
    }

    /// What only these callbacks touch, and the vCPU's state in memory.
    #[inline(always)]
    pub fn state(&mut self) -> (&mut P::State, GuestPmu<'_>) {
        let vcpu = self.vcpu.as_ptr();

        // SAFETY: By the type invariant; `self` is borrowed mutably as long as the results are used.
        unsafe {
            (
                &mut *Registration::<P>::slot(vcpu).get_ref().state.get(),
                GuestPmu::from_raw(&raw mut (*vcpu).arch.pmu),
            )
        }
    }
}

/// What a provider says of itself.
struct Offer {
    yields: bool,
    branches: bool,
    pt: bool,
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
        let offer = Offer {
            yields: provider.yields(),
            branches: provider.has_branches(),
            pt: provider.has_pt(),
        };

        try_pin_init!(Self {
            provider,
            ops <- Opaque::try_ffi_init(|slot: *mut bindings::kvm_mediated_pmu_ops| {
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(Self::ops(module, &offer)) };
                // SAFETY: `slot` is pinned until `drop`, which unregisters it. `provider`, the
                // field before it, is initialised. The callbacks follow the contract of the ops.
                to_result(unsafe { bindings::kvm_mediated_pmu_register(slot) })
            }),
        })
    }

    fn ops(module: &'static ThisModule, offer: &Offer) -> bindings::kvm_mediated_pmu_ops {
        bindings::kvm_mediated_pmu_ops {
            owner: module.as_ptr(),
            yields: offer.yields,
            branches: offer.branches,
            pt: offer.pt,
            vm_create: Some(Self::vm_create_callback),
            vm_destroy: Some(Self::vm_destroy_callback),
            vcpu_create: Some(Self::vcpu_create_callback),
            vcpu_destroy: Some(Self::vcpu_destroy_callback),
            update: Some(Self::update_callback),
            load: Some(Self::load_callback),
            put: Some(Self::put_callback),
            release: Some(Self::release_callback),
            increment: Some(Self::increment_callback),
            pmi: if P::HAS_PMI {
                Some(Self::pmi_callback)
            } else {
                None
            },
            msr_access: Some(Self::msr_access_callback),
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
            let data = P::vcpu_create(vm, vcpu_ref)?;
            let slot = KBox::try_pin_init(
                try_pin_init!(Slot::<P> {
                    data <- data,
                    config: UnsafeCell::new(P::Config::default()),
                    state: UnsafeCell::new(P::State::default()),
                }),
                GFP_KERNEL_ACCOUNT,
            )?;

            // SAFETY: The field is ours until `vcpu_destroy`, and no other code looks behind it.
            unsafe { (*vcpu).arch.pmu.provider_data = slot.into_foreign() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by KVM as `vcpu_destroy`, once for each successful `vcpu_create`.
    unsafe extern "C" fn vcpu_destroy_callback(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: `vcpu_create` stored the slot; the vCPU runs no more.
        drop(unsafe { Pin::<KBox<Slot<P>>>::from_foreign((*vcpu).arch.pmu.provider_data.cast()) });
    }

    /// # Safety
    ///
    /// `vcpu` must be a vCPU whose `vcpu_create` succeeded, and exist for all of `'a`.
    #[inline(always)]
    unsafe fn slot<'a>(vcpu: *mut bindings::kvm_vcpu) -> Pin<&'a Slot<P>> {
        // SAFETY: `vcpu_create` stored the slot, which `vcpu_destroy` takes back.
        unsafe { Pin::<KBox<Slot<P>>>::borrow((*vcpu).arch.pmu.provider_data.cast()) }
    }

    /// # Safety
    ///
    /// As for [`Self::slot`].
    #[inline(always)]
    unsafe fn data<'a>(vcpu: *mut bindings::kvm_vcpu) -> Pin<&'a P::VcpuData> {
        // SAFETY: By the safety requirement.
        let slot = unsafe { Self::slot(vcpu) };

        // SAFETY: `data` is pinned as the slot is.
        unsafe { slot.map_unchecked(|slot| &slot.data) }
    }

    /// # Safety
    ///
    /// Called by KVM as `update`.
    unsafe extern "C" fn update_callback(vcpu: *mut bindings::kvm_vcpu, keep: bool) -> u64 {
        // SAFETY: By the contract of `update`: the vCPU's `vcpu_create` succeeded, and this is its
        // thread, the only one that changes what it selects. Nothing else touches `config`, and
        // `update` is not called from within itself.
        let (vcpu, data, config, selectors) = unsafe {
            (
                Vcpu::from_raw(vcpu),
                Self::data(vcpu),
                &mut *Self::slot(vcpu).get_ref().config.get(),
                Selectors::from_raw(vcpu),
            )
        };

        P::update(vcpu, data, config, &selectors, keep).0
    }

    /// # Safety
    ///
    /// Called by KVM as `load`, with interrupts disabled, on a vCPU that is about to run.
    unsafe extern "C" fn load_callback(vcpu: *mut bindings::kvm_vcpu, guest_lvtpc: u32) {
        // SAFETY: By the contract of `load`.
        P::load(
            unsafe { Switching::from_raw(vcpu) },
            GuestLvtpc::new(guest_lvtpc),
        );
    }

    /// # Safety
    ///
    /// Called by KVM as `put`, with interrupts disabled, on a vCPU that ran.
    unsafe extern "C" fn put_callback(vcpu: *mut bindings::kvm_vcpu) -> bool {
        // SAFETY: By the contract of `put`.
        P::put(unsafe { Switching::from_raw(vcpu) }) == Put::InHardware
    }

    /// # Safety
    ///
    /// Called by KVM as `release`, with interrupts disabled.
    unsafe extern "C" fn release_callback(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the contract of `release`.
        P::release(unsafe { Switching::from_raw(vcpu) })
    }

    /// # Safety
    ///
    /// Called by KVM as `increment`, with interrupts disabled.
    unsafe extern "C" fn increment_callback(vcpu: *mut bindings::kvm_vcpu, counters: u64) -> u64 {
        // SAFETY: By the contract of `increment`.
        let this = unsafe { Switching::from_raw(vcpu) };

        P::increment(this, CounterSet::from_bits(counters)).bits()
    }

    /// # Safety
    ///
    /// Called by KVM as `pmi`.
    unsafe extern "C" fn pmi_callback(vcpu: *mut bindings::kvm_vcpu) {
        // SAFETY: By the contract of `pmi` the vCPU exists and its `vcpu_create` succeeded.
        let (vcpu, data) = unsafe { (Vcpu::from_raw(vcpu), Self::data(vcpu)) };

        P::pmi(vcpu, data);
    }

    /// # Safety
    ///
    /// Called by KVM as `msr_access`.
    unsafe extern "C" fn msr_access_callback(
        vcpu: *mut bindings::kvm_vcpu,
        msr: u32,
        write: bool,
    ) -> bool {
        let access = if write {
            MsrAccess::Write
        } else {
            MsrAccess::Read
        };

        // SAFETY: The thread of the vCPU calls, with interrupts disabled.
        P::msr_access(unsafe { Switching::from_raw(vcpu) }, msr, access)
    }
}

#[pinned_drop]
impl<P: Provider> PinnedDrop for Registration<P> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant these ops are registered.
        unsafe { bindings::kvm_mediated_pmu_unregister(self.ops.get()) };
    }
}
