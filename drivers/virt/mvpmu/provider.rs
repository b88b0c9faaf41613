// SPDX-License-Identifier: GPL-2.0

//! The callbacks of KVM, and what belongs to a VM and a vCPU.

use crate::{
    lbr::{
        self,
        Lbr, //
    },
    policy::{
        self,
        Demand,
        Flag,
        Mode,
        Usage, //
    },
    registers::Accesses,
    stats::{
        CountedVcpu,
        CountedVm,
        Totals,
        VcpuStats, //
    },
    switch::State,
    vendor::Vendor, //
};
use core::marker::PhantomData;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    kvm::{
        mediated_pmu::{
            trace::PutReason,
            MsrAccess,
            Passthrough,
            Put,
            Selectors,
            Switching, //
        },
        Vcpu,
        Vm, //
    },
    perf::guest::{
        GuestLvtpc,
        LentPmu,
        MediatedVm, //
    },
    prelude::*,
    str::CString,
    sync::Arc,
    types::ForeignOwnable,
    x86::pmu::CounterSet, //
};

/// The provider of the mediated PMU on CPUs of vendor `V`.
pub(crate) struct Provider<V> {
    debugfs: Dir,
    totals: Arc<Totals>,
    /// Guests have an Intel PT of their own.
    pt: bool,
    _vendor: PhantomData<V>,
}

impl<V> Provider<V> {
    /// A provider that shows its VMs below `debugfs` and adds up in `totals`. With `pt`, guests have
    /// an Intel PT of their own.
    pub(crate) fn new(debugfs: Dir, totals: Arc<Totals>, pt: bool) -> Self {
        Self {
            debugfs,
            totals,
            pt,
            _vendor: PhantomData,
        }
    }
}

/// A VM. Its directory in debugfs goes with it.
pub(crate) struct VmData {
    debugfs: Dir,
    counted: CountedVm,
    /// Perf knows of the VM for all of its life, unless it is to know of each vCPU.
    _accounting: Option<MediatedVm>,
}

/// A vCPU. Its file in debugfs goes with it.
#[pin_data]
pub(crate) struct VcpuData {
    stats: CountedVcpu,
    #[pin]
    _file: File<Arc<VcpuStats>>,
    demand: Demand,
    /// A PMI has arrived, after which the CPU may have masked the LVTPC.
    lvtpc_unknown: Flag,
    /// The state may stay in hardware after VM exit.
    parks: bool,
}

/// What of a vCPU only its thread touches.
pub(crate) struct Local<V> {
    place: State<V>,
    /// Puts since a counter was enabled.
    idle_puts: u32,
    /// Puts since branches were recorded.
    branchless_puts: u32,
}

impl<V> Default for Local<V> {
    fn default() -> Self {
        Self {
            place: State::default(),
            idle_puts: 0,
            branchless_puts: 0,
        }
    }
}

#[vtable]
impl<V: Vendor> kernel::kvm::mediated_pmu::Provider for Provider<V> {
    type VmData = KBox<VmData>;
    type VcpuData = VcpuData;
    type Config = Usage;
    type State = Local<V>;

    fn yields(&self) -> bool {
        policy::yields()
    }

    fn has_branches(&self) -> bool {
        lbr::mode() == Lbr::On
    }

    fn has_pt(&self) -> bool {
        self.pt
    }

    fn vm_create(&self, vm: &Vm) -> Result<Self::VmData> {
        let accounting = if policy::accounts_vms() {
            Some(MediatedVm::new()?)
        } else {
            None
        };
        let number = self.totals.next_vm();
        let name = CString::try_from_fmt(fmt!("{}-{number}", vm.pid()))?;

        Ok(KBox::new(
            VmData {
                debugfs: self.debugfs.subdir(&name),
                counted: CountedVm::new(number, self.totals.clone()),
                _accounting: accounting,
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    fn vcpu_create(
        vm: <Self::VmData as ForeignOwnable>::Borrowed<'_>,
        vcpu: &Vcpu,
    ) -> Result<impl PinInit<VcpuData, Error>> {
        let name = CString::try_from_fmt(fmt!("vcpu{}", vcpu.id()))?;
        let stats = vm.counted.vcpu()?;
        let debugfs = vm.debugfs.clone();

        Ok(try_pin_init!(VcpuData {
            _file <- debugfs.read_callback_file(
                &name,
                stats.stats(),
                &|stats: &Arc<VcpuStats>, f: &mut fmt::Formatter<'_>| stats.show(f),
            ),
            demand: Demand::default(),
            lvtpc_unknown: Flag::default(),
            parks: policy::mode() == Mode::Auto,
            stats,
        }))
    }

    fn update(
        vcpu: &Vcpu,
        data: Pin<&VcpuData>,
        usage: &mut Usage,
        selectors: &Selectors<'_>,
        keep: bool,
    ) -> Passthrough {
        data.demand
            .update(vcpu, usage, selectors, keep, &data.stats)
    }

    fn load(mut this: Switching<'_, Self>, lvtpc: GuestLvtpc) {
        let data = this.data();
        let kvm = this.kvm();
        let irq = this.irq();
        let (local, mut pmu) = this.state();

        if let State::Memory = local.place {
            data.lvtpc_unknown.take();

            let accesses = local.place.load(&mut pmu, lvtpc, irq);

            data.stats.loaded(kvm, accesses);
            return;
        }

        let mut accesses = Accesses::default();

        if let Some((resident, mut hardware)) = local.place.in_hardware(&mut accesses, irq) {
            resident.reload(&mut hardware, &mut pmu);
        }
        data.stats.accessed(kvm, &accesses);
        if let State::Hardware(parked) = &mut local.place {
            parked.route_pmi(lvtpc, data.lvtpc_unknown.take(), irq);
        }
    }

    #[inline(always)]
    fn put(this: Switching<'_, Self>) -> Put {
        let data = this.data();
        let contended = LentPmu::is_contended(this.irq());

        if data.parks && !contended {
            data.stats.parked(this.kvm());
            Put::InHardware
        } else {
            Self::put_now::<false>(this);
            Put::InMemory
        }
    }

    #[inline(always)]
    fn release(this: Switching<'_, Self>) {
        let data = this.data();
        let kvm = this.kvm();

        data.stats.released(kvm);
        Self::put_now::<true>(this);
    }

    #[inline(always)]
    fn increment(mut this: Switching<'_, Self>, counters: CounterSet) -> CounterSet {
        let data = this.data();
        let kvm = this.kvm();
        let irq = this.irq();
        let (local, mut pmu) = this.state();
        let mut accesses = Accesses::default();
        let mut overflowed = CounterSet::EMPTY;

        if let Some((resident, mut hardware)) = local.place.in_hardware(&mut accesses, irq) {
            if pmu.passthrough().has_global_ctrl() {
                let read = V::sync_global_ctrl(&mut hardware, &mut pmu);

                if read.is_some_and(|same| data.demand.global_ctrl_read(same)) {
                    kvm.request_update();
                }
            }

            let moved = counters.intersection(CounterSet::from_bits(pmu.global_ctrl()));

            overflowed = resident.increment(&mut hardware, &mut pmu, moved);
        }
        data.stats.accessed(kvm, &accesses);
        overflowed
    }

    fn pmi(vcpu: &Vcpu, data: Pin<&VcpuData>) {
        data.lvtpc_unknown.set();
        data.stats.pmi(vcpu);
    }

    fn msr_access(mut this: Switching<'_, Self>, msr: u32, access: MsrAccess) -> bool {
        let data = this.data();
        let kvm = this.kvm();
        let irq = this.irq();
        let (local, mut pmu) = this.state();
        let mut accesses = Accesses::default();
        let mut current = true;

        data.stats.intercepted(kvm, access);
        if access == MsrAccess::Write && msr == V::GLOBAL_CTRL.index() {
            data.demand.global_ctrl_written();
        }
        if V::is_current_in_memory(msr, &pmu) {
            return false;
        }
        if let Some((resident, mut hardware)) = local.place.in_hardware(&mut accesses, irq) {
            current = resident.sync(&mut hardware, &mut pmu, msr, access);
        }
        data.stats.accessed(kvm, &accesses);
        !current
    }
}

impl<V: Vendor> Provider<V> {
    /// Brings the state to memory.
    ///
    /// Not inline, as most VM exits leave the state in hardware. Two functions, so that it takes no
    /// instruction to tell the reason.
    #[inline(never)]
    fn put_now<const RELEASE: bool>(mut this: Switching<'_, Self>) {
        let data = this.data();
        let kvm = this.kvm();
        let irq = this.irq();
        let records = this.state().1.passthrough().has_branches() && this.records_branches();
        let (local, mut pmu) = this.state();
        let Some(put) = local.place.put(&mut pmu, irq) else {
            return;
        };
        let reason = if RELEASE {
            PutReason::Release
        } else {
            PutReason::Exit
        };

        data.stats.put(kvm, reason, &put);

        let demand = &data.demand;
        let idle = demand.counters.put(&mut local.idle_puts, put.selected);
        let branchless = put.branches && demand.branches.put(&mut local.branchless_puts, records);
        let steady = put.same.is_some_and(|same| demand.global_ctrl_read(same));

        if data.parks && (idle || steady) || branchless {
            kvm.request_update();
        }
    }
}
