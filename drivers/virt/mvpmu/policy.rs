// SPDX-License-Identifier: GPL-2.0

//! When a vCPU uses the hardware: from the first counter it enables until it has not had one
//! enabled for a while.

use crate::stats::VcpuStats;
use kernel::{
    fmt,
    kvm::mediated_pmu::{
        Passthrough,
        Selectors, //
    },
    module_param::ModuleParam,
    new_mutex,
    perf::guest::MediatedVm,
    pr_warn_once,
    prelude::*,
    str::BStr,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    },
    x86::pmu::CounterSet, //
};

/// How eagerly the context is switched, the parameter `switch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// At every VM entry and exit, for all counters.
    Eager,
    /// When it has to be, for what is in use.
    Auto,
}

impl Mode {
    /// The name in the parameter and in debugfs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Auto => "auto",
        }
    }
}

impl ModuleParam for Mode {
    fn try_from_param_arg(arg: &BStr) -> Result<Self> {
        [Self::Eager, Self::Auto]
            .into_iter()
            .find(|mode| mode.name().as_bytes() == &**arg)
            .ok_or(EINVAL)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The mode the module was loaded with.
#[inline(always)]
pub(crate) fn mode() -> Mode {
    crate::module_parameters::switch.value()
}

/// Set by one context and taken by another, on the same CPU.
pub(crate) struct Flag(Atomic<bool>);

impl Default for Flag {
    fn default() -> Self {
        Self(Atomic::new(false))
    }
}

impl Flag {
    pub(crate) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it was set; it is not afterwards.
    ///
    /// Not atomic as a whole: interrupts, which may set it, are disabled.
    #[inline(always)]
    pub(crate) fn take(&self) -> bool {
        let set = self.0.load(Relaxed);

        if set {
            self.0.store(false, Relaxed);
        }
        set
    }
}

/// Puts without a counter enabled after which the guest no longer needs the hardware. Perf
/// disables and enables its counters all the time, and each start costs VM exits.
const IDLE_PUTS: u32 = 16;

/// Reads of `PERF_GLOBAL_CTRL` for emulated instructions, all with the same result, after which its
/// writes are intercepted instead, up to the next one. That VM exit costs about as much: whatever
/// the guest does, it costs at most twice of what it would have cost to know it before.
const STEADY_READS: u32 = 64;

/// Whether a vCPU needs the hardware, and for which counters.
#[pin_data]
pub(crate) struct Demand {
    /// Perf knows that the vCPU uses the hardware.
    #[pin]
    accounting: Mutex<Option<MediatedVm>>,
    /// The counters that were in use since the vCPU began to use the hardware.
    counters: Atomic<u64>,
    /// What is selected may have changed.
    changed: Flag,
    /// The guest has not had a counter enabled for [`IDLE_PUTS`].
    idle: Atomic<bool>,
    /// Reads of `PERF_GLOBAL_CTRL` since the guest changed it.
    steady_reads: Atomic<u32>,
}

impl Demand {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            accounting <- new_mutex!(None),
            counters: Atomic::new(0),
            changed: Flag::default(),
            idle: Atomic::new(false),
            steady_reads: Atomic::new(0),
        })
    }

    /// What the guest is to access directly, now that it selects this.
    pub(crate) fn update(&self, selectors: &Selectors<'_>, stats: &VcpuStats) -> Passthrough {
        self.changed.set();
        if mode() == Mode::Eager {
            return Passthrough::ALL;
        }

        let before = CounterSet::from_bits(self.counters.load(Relaxed));
        let enabled = selectors.enabled();
        let after = if enabled.is_empty() && self.idle.load(Relaxed) {
            CounterSet::EMPTY
        } else {
            before.union(enabled)
        };
        let after = self.account(after, stats);

        if before.is_empty() != after.is_empty() {
            stats.active(!after.is_empty());
        }
        self.counters.store(after.bits(), Relaxed);
        Passthrough::new(after, self.steady_reads.load(Relaxed) < STEADY_READS)
    }

    /// `PERF_GLOBAL_CTRL` was read, as the guest may have written it. True if that is no longer
    /// worth it.
    pub(crate) fn global_ctrl_read(&self, same: bool) -> bool {
        let reads = if same {
            self.steady_reads.load(Relaxed).saturating_add(1)
        } else {
            0
        };

        self.steady_reads.store(reads, Relaxed);
        reads == STEADY_READS
    }

    /// The guest writes `PERF_GLOBAL_CTRL`, which was intercepted.
    pub(crate) fn global_ctrl_written(&self) {
        self.steady_reads.store(0, Relaxed);
    }

    /// Tells perf. If an event of the host counts in guests, the guest cannot have the PMU: its
    /// counters stand still.
    fn account(&self, counters: CounterSet, stats: &VcpuStats) -> CounterSet {
        let mut accounting = self.accounting.lock();

        if counters.is_empty() {
            *accounting = None;
        } else if accounting.is_none() {
            match MediatedVm::new() {
                Ok(accounted) => *accounting = Some(accounted),
                Err(_) => {
                    stats.refused();
                    pr_warn_once!(
                        "a guest's counters stand still: events of the host count in guests\n"
                    );
                    return CounterSet::EMPTY;
                }
            }
        }
        counters
    }

    /// Whether what is selected may have changed since the last call.
    #[inline(always)]
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.take()
    }

    /// A put took place, with a counter enabled or none. True if now the guest has not had one
    /// enabled for a while. `idle_puts` is what this function counts with.
    #[inline(always)]
    pub(crate) fn switched(&self, idle_puts: &mut u32, selected: bool) -> bool {
        let before = *idle_puts;

        if selected {
            if before == 0 {
                return false;
            }
            *idle_puts = 0;
        } else {
            *idle_puts = before.saturating_add(1);
        }
        if (before >= IDLE_PUTS) == (*idle_puts >= IDLE_PUTS) {
            return false;
        }
        self.idle.store(!selected, Relaxed);
        !selected
    }
}
