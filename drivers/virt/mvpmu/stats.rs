// SPDX-License-Identifier: GPL-2.0

//! What the module did, per vCPU and in total: in debugfs, in KVM's statistics and as events of
//! tracepoints.

use crate::{
    registers::Accesses,
    switch::Done, //
};
use core::ops::Deref;
use kernel::{
    fmt,
    kvm::{
        mediated_pmu::{
            stat::Count,
            trace::{
                PutReason,
                Source,
                State, //
            },
            MsrAccess, //
        },
        Vcpu, //
    },
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
    x86::{
        pmu::CounterSet,
        tsc::{
            self,
            to_micros, //
        },
    },
};

/// Defines the counts, their names in debugfs, how they are shown, and their meaning once.
macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident: $shown:path,)*) => {
        /// The counts of a vCPU.
        #[derive(Default)]
        pub(crate) struct VcpuStats {
            $($(#[doc = $doc])* $name: Count,)*
            period: Period,
            /// The number of the VM, in the names of debugfs.
            vm: u64,
        }

        /// Counts at one moment.
        #[derive(Clone, Copy, Default)]
        struct Snapshot {
            $($name: u64,)*
        }

        impl Snapshot {
            fn add(&mut self, stats: &VcpuStats) {
                $(self.$name = self.$name.wrapping_add(stats.$name.get());)*
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

/// Adds to a count of a vCPU, here and in KVM's statistics.
macro_rules! add {
    ($stats:expr, $vcpu:expr, $name:ident, $n:expr) => {{
        let n: u64 = $n;

        $stats.$name.add(n);
        $vcpu.statistics().$name().add(n);
    }};
}

impl VcpuStats {
    /// Where the events of this vCPU come from.
    #[inline(always)]
    fn source<'a>(&'a self, vcpu: &'a Vcpu) -> Source<'a> {
        Source::new(vcpu, &self.vm)
    }

    /// A load took place, with these `accesses`, which count at the put.
    #[inline(always)]
    pub(crate) fn loaded(&self, vcpu: &Vcpu, accesses: Accesses) {
        add!(self, vcpu, loads, 1);
        self.source(vcpu).load(accesses.reads, accesses.writes);
    }

    /// A put took place.
    #[inline(always)]
    pub(crate) fn put(&self, vcpu: &Vcpu, reason: PutReason, put: &Done) {
        let accesses = &put.accesses;

        add!(self, vcpu, puts, 1);
        self.time_in_hardware_us.add(put.ticks);
        self.accessed(vcpu, accesses);
        self.source(vcpu)
            .put(reason, accesses.reads, accesses.writes);
    }

    /// The put that follows is not that of a VM exit.
    #[inline(always)]
    pub(crate) fn released(&self, vcpu: &Vcpu) {
        add!(self, vcpu, releases, 1);
        self.source(vcpu).release();
    }

    /// A VM exit left the state in hardware.
    #[inline(always)]
    pub(crate) fn parked(&self, vcpu: &Vcpu) {
        add!(self, vcpu, switches_avoided, 1);
        self.source(vcpu).park();
    }

    /// Events of the host are in the way of using the hardware.
    pub(crate) fn refused(&self, vcpu: &Vcpu, error: Error) {
        add!(self, vcpu, refusals, 1);
        self.source(vcpu).refuse(error);
    }

    /// The vCPU comes into another state, in which it uses these counters.
    pub(crate) fn enters(&self, vcpu: &Vcpu, state: State, counters: CounterSet) {
        let ticks = self.period.ticks();
        let active = state == State::Active;
        let waiting = u64::from(state == State::Waiting);

        if active {
            add!(self, vcpu, activations, 1);
        }
        if self.period.active.load(Relaxed) {
            self.time_active_us.add(ticks);
        } else {
            self.time_dormant_us.add(ticks);
        }
        self.period.since.store(tsc::read(), Relaxed);
        self.period.active.store(active, Relaxed);
        self.waiting.set(waiting);
        vcpu.statistics().waiting().set(waiting);
        self.source(vcpu).state(state, counters);
    }

    /// There were accesses to the hardware.
    #[inline(always)]
    pub(crate) fn accessed(&self, vcpu: &Vcpu, accesses: &Accesses) {
        if accesses.reads != 0 {
            add!(self, vcpu, hw_reads, accesses.reads.into());
        }
        if accesses.writes != 0 {
            add!(self, vcpu, hw_writes, accesses.writes.into());
        }
    }

    /// A PMI of the guest arrived.
    pub(crate) fn pmi(&self, vcpu: &Vcpu) {
        add!(self, vcpu, pmis, 1);
        self.source(vcpu).pmi();
    }

    /// The guest accessed a PMU register and KVM intercepted it.
    pub(crate) fn intercepted(&self, vcpu: &Vcpu, access: MsrAccess) {
        match access {
            MsrAccess::Read => add!(self, vcpu, guest_reads, 1),
            MsrAccess::Write => add!(self, vcpu, guest_writes, 1),
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
pub(crate) struct CountedVm {
    number: u64,
    totals: Arc<Totals>,
}

impl CountedVm {
    /// Counts a VM with the number that [`Totals::next_vm`] gave it.
    pub(crate) fn new(number: u64, totals: Arc<Totals>) -> Self {
        totals.inner.lock().vms += 1;
        Self { number, totals }
    }

    /// Counts a vCPU of this VM.
    pub(crate) fn vcpu(&self) -> Result<CountedVcpu> {
        let stats = VcpuStats {
            vm: self.number,
            ..VcpuStats::default()
        };
        let stats = Arc::new(stats, GFP_KERNEL_ACCOUNT)?;

        self.totals
            .inner
            .lock()
            .vcpus
            .push(stats.clone(), GFP_KERNEL_ACCOUNT)?;
        Ok(CountedVcpu {
            stats,
            totals: self.totals.clone(),
        })
    }
}

impl Drop for CountedVm {
    fn drop(&mut self) {
        self.totals.inner.lock().vms -= 1;
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

        self.stats.waiting.set(0);
        inner.past.add(&self.stats);
        inner.vcpus.retain(|other| !Arc::ptr_eq(other, &self.stats));
    }
}
