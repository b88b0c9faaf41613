// SPDX-License-Identifier: GPL-2.0

//! What the module did, per vCPU and in total.

use crate::registers::Hardware;
use core::ops::Deref;
use kernel::{
    fmt,
    kvm::mediated_pmu::MsrAccess,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

/// A counter with one writer at a time; anybody may read it at any time.
struct Count(Atomic<u64>);

impl Default for Count {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Count {
    /// Not atomic as a whole, as there is one writer: no locked instruction on VM entry and exit.
    #[inline(always)]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

/// Defines the counts, their names in debugfs and their meaning once.
macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// The counts of a vCPU.
        #[derive(Default)]
        pub(crate) struct VcpuStats {
            $($(#[doc = $doc])* $name: Count,)*
        }

        /// Counts at one moment.
        #[derive(Clone, Copy, Default)]
        struct Snapshot {
            $($name: u64,)*
        }

        impl Snapshot {
            fn add(&mut self, stats: &VcpuStats) {
                $(self.$name = self.$name.wrapping_add(stats.$name.0.load(Relaxed));)*
            }
        }

        impl Snapshot {
            fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{}: {}", stringify!($name), self.$name)?;)*
                Ok(())
            }
        }
    };
}

counts! {
    /// Times the vCPU began to use the hardware.
    activations,
    /// Times it could not, as events of the host count in guests.
    refusals,
    /// Times the guest's state went into hardware.
    loads,
    /// Times it came back.
    puts,
    /// VM exits after which it stayed in hardware.
    switches_avoided,
    /// PMIs of the guest.
    pmis,
    /// RDMSR and RDPMC of PMU registers by the module.
    hw_reads,
    /// WRMSR of PMU registers by the module.
    hw_writes,
    /// Intercepted reads of PMU registers by the guest.
    guest_reads,
    /// Intercepted writes of PMU registers by the guest.
    guest_writes,
}

impl VcpuStats {
    /// A load took place, with the operations on `hardware`.
    #[inline(always)]
    pub(crate) fn loaded(&self, hardware: &Hardware) {
        self.loads.add(1);
        self.accessed(hardware);
    }

    /// A put took place, with the operations on `hardware`.
    #[inline(always)]
    pub(crate) fn put(&self, hardware: &Hardware) {
        self.puts.add(1);
        self.accessed(hardware);
    }

    /// A VM exit left the state in hardware.
    #[inline(always)]
    pub(crate) fn parked(&self) {
        self.switches_avoided.add(1);
    }

    /// Events of the host are in the way of using the hardware.
    pub(crate) fn refused(&self) {
        self.refusals.add(1);
    }

    /// The vCPU begins to use the hardware, or ends it.
    pub(crate) fn active(&self, active: bool) {
        if active {
            self.activations.add(1);
        }
    }

    /// There were operations on `hardware`.
    #[inline(always)]
    pub(crate) fn accessed(&self, hardware: &Hardware) {
        self.hw_reads.add(hardware.reads.into());
        self.hw_writes.add(hardware.writes.into());
    }

    /// A PMI of the guest arrived.
    pub(crate) fn pmi(&self) {
        self.pmis.add(1);
    }

    /// The guest accessed a PMU register and KVM intercepted it.
    pub(crate) fn intercepted(&self, access: MsrAccess) {
        match access {
            MsrAccess::Read => self.guest_reads.add(1),
            MsrAccess::Write => self.guest_writes.add(1),
        }
    }

    /// Writes the counts for debugfs.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut now = Snapshot::default();

        now.add(self);
        now.show(f)
    }
}

/// The counts of all vCPUs there are and were.
#[pin_data]
pub(crate) struct Totals {
    #[pin]
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_vm: u64,
    vms: u64,
    /// Of the vCPUs that are gone.
    past: Snapshot,
    vcpus: KVec<Arc<VcpuStats>>,
}

impl Totals {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(Inner::default()),
        })
    }

    /// A number for a new VM, from 1; none is given twice.
    pub(crate) fn next_vm(&self) -> u64 {
        let mut inner = self.inner.lock();

        inner.next_vm += 1;
        inner.next_vm
    }

    /// Writes the counts for debugfs.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        let mut now = inner.past;

        inner.vcpus.iter().for_each(|stats| now.add(stats));
        writeln!(f, "vms: {}", inner.vms)?;
        writeln!(f, "vcpus: {}", inner.vcpus.len())?;
        now.show(f)
    }
}

/// A VM that exists, in the totals.
pub(crate) struct CountedVm(Arc<Totals>);

impl CountedVm {
    pub(crate) fn new(totals: Arc<Totals>) -> Self {
        totals.inner.lock().vms += 1;
        Self(totals)
    }

    /// Counts a vCPU of this VM.
    pub(crate) fn vcpu(&self) -> Result<CountedVcpu> {
        let stats = Arc::new(VcpuStats::default(), GFP_KERNEL_ACCOUNT)?;

        self.0
            .inner
            .lock()
            .vcpus
            .push(stats.clone(), GFP_KERNEL_ACCOUNT)?;
        Ok(CountedVcpu {
            stats,
            totals: self.0.clone(),
        })
    }
}

impl Drop for CountedVm {
    fn drop(&mut self) {
        self.0.inner.lock().vms -= 1;
    }
}

/// A vCPU that exists, in the totals, which keep its counts when it goes.
pub(crate) struct CountedVcpu {
    stats: Arc<VcpuStats>,
    totals: Arc<Totals>,
}

impl CountedVcpu {
    /// The counts, for whoever shows them.
    pub(crate) fn stats(&self) -> Arc<VcpuStats> {
        self.stats.clone()
    }
}

impl Deref for CountedVcpu {
    type Target = VcpuStats;

    #[inline(always)]
    fn deref(&self) -> &VcpuStats {
        &self.stats
    }
}

impl Drop for CountedVcpu {
    fn drop(&mut self) {
        let mut inner = self.totals.inner.lock();

        inner.past.add(&self.stats);
        inner.vcpus.retain(|other| !Arc::ptr_eq(other, &self.stats));
    }
}
