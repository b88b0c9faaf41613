// SPDX-License-Identifier: GPL-2.0

//! The callbacks of KVM, and what belongs to a VM and a vCPU.

use crate::{
    registers::Hardware,
    stats::{
        CountedVcpu,
        CountedVm,
        Totals,
        VcpuStats, //
    },
    switch,
    vendor::Vendor, //
};
use core::marker::PhantomData;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    interrupt::LocalInterruptDisabled,
    kvm::{
        mediated_pmu::{
            GuestPmu,
            MsrAccess, //
        },
        Vcpu,
        Vm, //
    },
    perf::guest::{
        GuestLvtpc,
        MediatedVm, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// The provider of the mediated PMU on CPUs of vendor `V`.
pub(crate) struct Provider<V> {
    debugfs: Dir,
    totals: Arc<Totals>,
    _vendor: PhantomData<V>,
}

impl<V> Provider<V> {
    /// A provider that shows its VMs below `debugfs` and adds up in `totals`.
    pub(crate) fn new(debugfs: Dir, totals: Arc<Totals>) -> Self {
        Self {
            debugfs,
            totals,
            _vendor: PhantomData,
        }
    }
}

/// A VM. Its directory in debugfs goes with it.
pub(crate) struct VmData {
    debugfs: Dir,
    counted: CountedVm,
    _accounting: MediatedVm,
}

/// A vCPU. Its file in debugfs goes with it.
#[pin_data]
pub(crate) struct VcpuData {
    stats: CountedVcpu,
    #[pin]
    _file: File<Arc<VcpuStats>>,
}

#[vtable]
impl<V: Vendor> kernel::kvm::mediated_pmu::Provider for Provider<V> {
    type VmData = KBox<VmData>;
    type VcpuData = Pin<KBox<VcpuData>>;

    fn vm_create(&self, vm: &Vm) -> Result<Self::VmData> {
        let accounting = MediatedVm::new()?;
        let name = CString::try_from_fmt(fmt!("{}-{}", vm.pid(), self.totals.next_vm()))?;

        Ok(KBox::new(
            VmData {
                debugfs: self.debugfs.subdir(&name),
                counted: CountedVm::new(self.totals.clone()),
                _accounting: accounting,
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    fn vcpu_create(vm: &VmData, vcpu: &Vcpu) -> Result<Self::VcpuData> {
        let name = CString::try_from_fmt(fmt!("vcpu{}", vcpu.id()))?;
        let stats = vm.counted.vcpu()?;

        KBox::try_pin_init(
            try_pin_init!(VcpuData {
                _file <- vm.debugfs.read_callback_file(
                    &name,
                    stats.stats(),
                    &|stats: &Arc<VcpuStats>, f: &mut fmt::Formatter<'_>| stats.show(f),
                ),
                stats,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    #[inline(always)]
    fn load(
        vcpu: Pin<&VcpuData>,
        pmu: &mut GuestPmu<'_>,
        lvtpc: GuestLvtpc,
        irq: &LocalInterruptDisabled,
    ) {
        let mut hardware = Hardware::default();

        switch::load::<V, _>(&mut hardware, pmu, lvtpc, irq);
        vcpu.stats.loaded(&hardware);
    }

    #[inline(always)]
    fn put(vcpu: Pin<&VcpuData>, pmu: &mut GuestPmu<'_>, irq: &LocalInterruptDisabled) {
        let mut hardware = Hardware::default();

        switch::put::<V, _>(&mut hardware, pmu, irq);
        vcpu.stats.put(&hardware);
    }

    fn pmi(vcpu: Pin<&VcpuData>) {
        vcpu.stats.pmi();
    }

    fn msr_access(vcpu: Pin<&VcpuData>, _msr: u32, access: MsrAccess) {
        vcpu.stats.intercepted(access);
    }
}
