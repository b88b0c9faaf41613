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
    error::VTABLE_DEFAULT_ERROR,
    perf::guest::GuestLvtpc,
    prelude::*,
    types::ForeignOwnable,
    x86::pmu::CounterSet, //
};

mod registration;
pub mod stat;
mod state;
#[cfg(CONFIG_MVPMU)]
pub mod trace;
mod wait;
pub use registration::{
    Registration,
    Switching, //
};
pub use state::{
    Fixed,
    Gp,
    GuestPmu,
    Pmc,
    Pmcs,
    Selectors, //
};
pub use wait::Wait;

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

/// What a guest accesses without VM exits, and owns in hardware for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passthrough(u64);

impl Passthrough {
    const GLOBAL_CTRL: u64 = 1 << bindings::KVM_MEDIATED_PMU_GLOBAL_CTRL_BIT;
    const BRANCHES: u64 = 1 << bindings::KVM_MEDIATED_PMU_BRANCHES_BIT;
    const COUNTERS: u64 = !(Self::GLOBAL_CTRL | Self::BRANCHES);

    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All counters, and writes of `PERF_GLOBAL_CTRL`.
    pub const ALL: Self = Self(!Self::BRANCHES);

    /// These counters and, if there are any and `global_ctrl`, writes of `PERF_GLOBAL_CTRL`.
    ///
    /// If the CPU does not save the guest's `PERF_GLOBAL_CTRL` on VM exit and writes don't pass
    /// through, [`GuestPmu::global_ctrl`] is always current. Where it does, `global_ctrl` has to be
    /// true.
    #[inline(always)]
    pub const fn new(counters: CounterSet, global_ctrl: bool) -> Self {
        let counters = counters.bits() & Self::COUNTERS;

        if counters != 0 && global_ctrl {
            Self(counters | Self::GLOBAL_CTRL)
        } else {
            Self(counters)
        }
    }

    /// The counters.
    #[inline(always)]
    pub const fn counters(self) -> CounterSet {
        CounterSet::from_bits(self.0 & Self::COUNTERS)
    }

    /// The same, and the branch stack if `there`.
    ///
    /// VM entry loads it and VM exit saves it then, or it is among what the provider loads
    /// ([`GuestPmu::lbrs`]). Only for a guest that has one, see
    /// [`Selectors::records_branches`].
    #[inline(always)]
    pub const fn with_branches(self, there: bool) -> Self {
        if there {
            Self(self.0 | Self::BRANCHES)
        } else {
            Self(self.0 & !Self::BRANCHES)
        }
    }

    /// Whether the branch stack is the guest's in hardware.
    #[inline(always)]
    pub const fn has_branches(self) -> bool {
        self.0 & Self::BRANCHES != 0
    }

    /// Whether writes of `PERF_GLOBAL_CTRL` pass through.
    #[inline(always)]
    pub const fn has_global_ctrl(self) -> bool {
        self.0 & Self::GLOBAL_CTRL != 0
    }
}

/// Where [`Provider::put`] leaves the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// In memory.
    InMemory,
    /// In hardware, with all counters stopped.
    InHardware,
}

/// A provider of the mediated PMU.
///
/// All functions but [`Provider::vm_create`] work on data of the VM or vCPU alone, so that the
/// paths of VM entry and exit need nothing but what belongs to the vCPU.
#[vtable]
pub trait Provider: Send + Sync + Sized + 'static {
    /// Data of a VM. Dropped after the last vCPU's.
    type VmData: ForeignOwnable + Send + Sync;

    /// Data of a vCPU that interrupts and other threads may look at.
    type VcpuData: Send + Sync;

    /// What only [`Provider::update`] touches of a vCPU.
    type Config: Default + Send;

    /// Where the PMU state of a vCPU is; only the callbacks on a [`Switching`] touch it. The
    /// default: in memory.
    type State: Default + Send;

    /// Whether guests give the PMU back when perf wants it for an event that counts in them.
    ///
    /// Then perf has [`Provider::update`] called for all vCPUs, which looks at
    /// [`MediatedVm::is_wanted`](crate::perf::guest::MediatedVm::is_wanted).
    fn yields(&self) -> bool;

    /// Whether guests have a branch stack, if KVM can give them one.
    fn has_branches(&self) -> bool;

    /// Whether guests have an Intel PT of their own, if KVM can give them one.
    fn has_pt(&self) -> bool;

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
    ) -> Result<impl PinInit<Self::VcpuData, Error>>;

    /// The guest's PMU was configured anew, or selectors, `FIXED_CTR_CTRL` or the event filter
    /// have changed, or somebody asked with [`Vcpu::request_update`]. May sleep.
    ///
    /// Returns what the guest is to access directly. While that is nothing, KVM serves the guest's
    /// accesses from memory, and does not call [`Provider::load`] and [`Provider::put`].
    ///
    /// With `keep` the guest accesses something directly and goes on to, as it runs a guest of its
    /// own: "nothing" is but a wish, for which KVM calls again later. Until then the guest stays
    /// accounted, also if perf wants the PMU back.
    fn update(
        vcpu: &Vcpu,
        data: Pin<&Self::VcpuData>,
        config: &mut Self::Config,
        selectors: &Selectors<'_>,
        keep: bool,
    ) -> Passthrough;

    /// The vCPU enters the guest: the guest's state goes into hardware unless it is there.
    fn load(this: Switching<'_, Self>, lvtpc: GuestLvtpc);

    /// The vCPU left the guest: the guest's state goes back to memory, or it stays in hardware
    /// until [`Provider::load`] or [`Provider::release`], with all counters stopped.
    fn put(this: Switching<'_, Self>) -> Put;

    /// The vCPU leaves the CPU or returns to userspace, or KVM needs the state, which is in
    /// hardware: it goes to memory. The runqueue's lock may be held.
    fn release(this: Switching<'_, Self>);

    /// An emulated instruction moves those of `counters` that `PERF_GLOBAL_CTRL` enables. Called
    /// only while the state is in hardware.
    ///
    /// Returns those that overflowed; their bits in `PERF_GLOBAL_STATUS` are set then, too.
    fn increment(this: Switching<'_, Self>, counters: CounterSet) -> CounterSet;

    /// A PMI of the guest arrived; KVM injects it. Hard interrupt context.
    fn pmi(_vcpu: &Vcpu, _data: Pin<&Self::VcpuData>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// KVM handles the guest's intercepted access to a PMU MSR, for which what memory has of it must
    /// be current. A register that is written gets to hardware by [`Provider::load`].
    ///
    /// True if all of the state has to be in memory.
    fn msr_access(this: Switching<'_, Self>, msr: u32, access: MsrAccess) -> bool;
}
