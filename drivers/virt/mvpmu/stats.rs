// SPDX-License-Identifier: GPL-2.0

//! What the module did, per vCPU and in total.

use crate::registers::Accesses;
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
    x86::tsc::{
        self,
        to_micros, //
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
        self.set(self.0.load(Relaxed).wrapping_add(n));
    }

    /// Shows a number that the writer keeps.
    #[inline(always)]
    fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// What the thread of a vCPU keeps of the numbers that it changes on VM entry and exit, so that it
/// need not read what it shows.
#[derive(Default)]
pub(crate) struct Tally {
    loads: u64,
    puts: u64,
    parks: u64,
    releases: u64,
    hw_reads: u64,
    hw_writes: u64,
    ticks: u64,
}

/// Defines the counts, their names in debugfs, how they are shown, and their meaning once.
macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident: $shown:path,)*) => {
        /// The counts of a vCPU.
        #[derive(Default)]
        pub(crate) struct VcpuStats {
            $($(#[doc = $doc])* $name: Count,)*
            period: Period,
        }

        /// Counts at one moment.
        #[derive(Clone, Copy, Default)]
        struct Snapshot {
            $($name: u64,)*
        }

        impl Snapshot {
            fn add(&mut self, stats: &VcpuStats) {
                $(self.$name = self.$name.wrapping_add(stats.$name.0.load(Relaxed));)*
                self.add_period(&stats.period);
            }

            fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{}: {}", stringify!($name), $shown(self.$name))?;)*
                Ok(())
            }
        }
    };
}

/// A number, shown as it is.
fn plain(n: u64) -> u64 {
    n
}

counts! {
    /// Times the vCPU began to use the hardware.
    activations: plain,
    /// Times it could not, as events of the host count in guests.
    refusals: plain,
    /// 1 while it waits for the end of such events; in the totals the number of those that do.
    waiting: plain,
    /// Times the guest's state went into hardware.
    loads: plain,
    /// Times it came back.
    puts: plain,
    /// VM exits after which it stayed in hardware.
    switches_avoided: plain,
    /// Puts that were no VM exit's.
    releases: plain,
    /// PMIs of the guest.
    pmis: plain,
    /// RDMSR and RDPMC of PMU registers by the module.
    hw_reads: plain,
    /// WRMSR of PMU registers by the module.
    hw_writes: plain,
    /// Intercepted reads of PMU registers by the guest.
    guest_reads: plain,
    /// Intercepted writes of PMU registers by the guest.
    guest_writes: plain,
    /// Time in which the guest did not use the hardware.
    time_dormant_us: to_micros,
    /// Time in which it did.
    time_active_us: to_micros,
    /// Of that, time in which its state was in hardware, up to the last put.
    time_in_hardware_us: to_micros,
}

/// The time since the vCPU began to use the hardware, or ended it, in ticks of the TSC.
struct Period {
    active: Atomic<bool>,
    since: Atomic<u64>,
}

impl Default for Period {
    fn default() -> Self {
        Self {
            active: Atomic::new(false),
            since: Atomic::new(tsc::read()),
        }
    }
}

impl Period {
    /// The time until now; 0 if the CPUs' TSCs disagree.
    fn ticks(&self) -> u64 {
        tsc::read().saturating_sub(self.since.load(Relaxed))
    }
}

impl Snapshot {
    fn add_period(&mut self, period: &Period) {
        let time = if period.active.load(Relaxed) {
            &mut self.time_active_us
        } else {
            &mut self.time_dormant_us
        };

        *time = time.wrapping_add(period.ticks());
    }
}

impl VcpuStats {
    /// A load took place.
    #[inline(always)]
    pub(crate) fn loaded(&self, tally: &mut Tally) {
        tally.loads = tally.loads.wrapping_add(1);
        self.loads.set(tally.loads);
    }

    /// A put took place, after so many ticks, with these `accesses`.
    #[inline(always)]
    pub(crate) fn put(&self, tally: &mut Tally, accesses: &Accesses, ticks: u64) {
        tally.puts = tally.puts.wrapping_add(1);
        tally.ticks = tally.ticks.wrapping_add(ticks);
        self.puts.set(tally.puts);
        self.time_in_hardware_us.set(tally.ticks);
        self.accessed(tally, accesses);
    }

    /// The put was not that of a VM exit.
    #[inline(always)]
    pub(crate) fn released(&self, tally: &mut Tally) {
        tally.releases = tally.releases.wrapping_add(1);
        self.releases.set(tally.releases);
    }

    /// A VM exit left the state in hardware.
    #[inline(always)]
    pub(crate) fn parked(&self, tally: &mut Tally) {
        tally.parks = tally.parks.wrapping_add(1);
        self.switches_avoided.set(tally.parks);
    }

    /// Events of the host are in the way of using the hardware.
    pub(crate) fn refused(&self) {
        self.refusals.add(1);
    }

    /// The vCPU waits for the hardware, or no longer.
    pub(crate) fn waits(&self, waits: bool) {
        self.waiting.set(waits.into());
    }

    /// The vCPU begins to use the hardware, or ends it.
    pub(crate) fn active(&self, active: bool) {
        let ticks = self.period.ticks();

        if active {
            self.activations.add(1);
            self.time_dormant_us.add(ticks);
        } else {
            self.time_active_us.add(ticks);
        }
        self.period.since.store(tsc::read(), Relaxed);
        self.period.active.store(active, Relaxed);
    }

    /// There were accesses to the hardware.
    #[inline(always)]
    pub(crate) fn accessed(&self, tally: &mut Tally, accesses: &Accesses) {
        tally.hw_reads = tally.hw_reads.wrapping_add(accesses.reads.into());
        tally.hw_writes = tally.hw_writes.wrapping_add(accesses.writes.into());
        if accesses.reads != 0 {
            self.hw_reads.set(tally.hw_reads);
        }
        if accesses.writes != 0 {
            self.hw_writes.set(tally.hw_writes);
        }
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

        self.stats.waits(false);
        inner.past.add(&self.stats);
        inner.vcpus.retain(|other| !Arc::ptr_eq(other, &self.stats));
    }
}
