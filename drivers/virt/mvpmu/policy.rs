// SPDX-License-Identifier: GPL-2.0

//! When a vCPU uses the hardware: from the first counter it enables until it has not had one
//! enabled for a while, and its branch stack likewise.

use crate::stats::VcpuStats;
use kernel::{
    fmt,
    kvm::{
        mediated_pmu::{
            trace::State,
            Passthrough,
            Selectors,
            Wait, //
        },
        Vcpu, //
    },
    module_param::ModuleParam,
    perf::guest::MediatedVm,
    prelude::*,
    str::BStr,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    x86::pmu::CounterSet, //
};

/// A parameter with a few values that have names.
pub(crate) trait Choice: Copy + 'static {
    /// The parameter.
    const PARAMETER: &'static str;
    /// The values.
    const ALL: &'static [Self];

    /// The name of this one.
    fn name(self) -> &'static str;

    /// The value of a name. If there is none, the log gets the list.
    fn named(name: &BStr) -> Result<Self> {
        let found = Self::ALL
            .iter()
            .find(|choice| choice.name().as_bytes() == &**name);

        if found.is_none() {
            pr_err!(
                "{}={name} is none of:{}\n",
                Self::PARAMETER,
                Names(Self::ALL)
            );
        }
        found.copied().ok_or(EINVAL)
    }
}

/// The names of values.
struct Names<T: 'static>(&'static [T]);

impl<T: Choice> fmt::Display for Names<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|choice| write!(f, " {}", choice.name()))
    }
}

/// How eagerly the context is switched, the parameter `switch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// At every VM entry and exit, for all counters.
    Eager,
    /// When it has to be, for what is in use.
    Auto,
}

impl Choice for Mode {
    const PARAMETER: &'static str = "switch";
    const ALL: &'static [Self] = &[Self::Eager, Self::Auto];

    fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Auto => "auto",
        }
    }
}

impl ModuleParam for Mode {
    fn try_from_param_arg(arg: &BStr) -> Result<Self> {
        Self::named(arg)
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

/// What becomes of events of the host that count in guests, the parameter `host_events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostEvents {
    /// They cannot be created while there is a VM, nor a VM while there are any.
    Refuse,
    /// Whoever comes first has the PMU: they cannot be created while a guest counts, and a guest
    /// waits while there are any.
    Share,
    /// Those of who may profile the host come first: guests that count give the PMU up, and wait.
    Prefer,
}

impl Choice for HostEvents {
    const PARAMETER: &'static str = "host_events";
    const ALL: &'static [Self] = &[Self::Refuse, Self::Share, Self::Prefer];

    fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Share => "share",
            Self::Prefer => "prefer",
        }
    }
}

impl ModuleParam for HostEvents {
    fn try_from_param_arg(arg: &BStr) -> Result<Self> {
        Self::named(arg)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether perf knows of a VM for all of its life, or of a vCPU while it uses the hardware: who
/// switches eagerly always does.
pub(crate) fn accounts_vms() -> bool {
    mode() == Mode::Eager || crate::module_parameters::host_events.value() == HostEvents::Refuse
}

/// Whether guests give the PMU back to perf.
pub(crate) fn yields() -> bool {
    !accounts_vms() && crate::module_parameters::host_events.value() == HostEvents::Prefer
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

/// Puts without a counter enabled, or a branch recorded, after which the guest no longer needs the
/// hardware. Perf disables and enables both all the time, and each start costs VM exits.
const IDLE_PUTS: u32 = 16;

/// Reads of `PERF_GLOBAL_CTRL` for emulated instructions, all with the same result, after which its
/// writes are intercepted instead, up to the next one. That VM exit costs about as much: whatever
/// the guest does, it costs at most twice of what it would have cost to know it before.
const STEADY_READS: u32 = 64;

/// For which counters a vCPU uses the hardware.
#[derive(Default)]
pub(crate) struct Usage {
    /// Perf knows of it, if it does not know of the VM.
    accounting: Option<MediatedVm>,
    /// The hardware cannot be had at present.
    wait: Option<Wait>,
    /// The counters that were in use since it began.
    counters: CounterSet,
    /// The branch stack is in use.
    branches: bool,
}

impl Usage {
    fn state(&self) -> State {
        if self.wait.is_some() {
            State::Waiting
        } else if self.counters.is_empty() && !self.branches {
            State::Dormant
        } else {
            State::Active
        }
    }

    /// Whether perf wants the hardware back.
    fn is_wanted(&self) -> bool {
        self.accounting.as_ref().is_some_and(MediatedVm::is_wanted)
    }

    /// Tells perf whether the guest needs the PMU. If an event of the host counts in guests, it cannot
    /// have it: its counters stand still until it can. Whether it has what it needs.
    fn account(&mut self, vcpu: &Vcpu, needed: bool, stats: &VcpuStats) -> bool {
        if !needed || self.is_wanted() {
            self.accounting = None;
        }
        if needed && self.accounting.is_none() && !accounts_vms() {
            match MediatedVm::new() {
                Ok(accounted) => self.accounting = Some(accounted),
                Err(error) => {
                    stats.refused(vcpu, error);
                    match &self.wait {
                        Some(wait) => wait.go_on(),
                        None => self.wait = Some(Wait::begin(vcpu)),
                    }
                    return false;
                }
            }
        }
        if let Some(wait) = self.wait.take() {
            wait.end(vcpu);
        }
        true
    }
}

/// Whether the guest has used something lately.
pub(crate) struct Recent {
    /// It has not for [`IDLE_PUTS`].
    idle: Atomic<bool>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            idle: Atomic::new(false),
        }
    }
}

impl Recent {
    fn is_idle(&self) -> bool {
        self.idle.load(Relaxed)
    }

    /// A put took place, at which it was in use or not. True if now the guest has not used it for a
    /// while. `idle_puts` is what this function counts with.
    #[inline(always)]
    pub(crate) fn put(&self, idle_puts: &mut u32, used: bool) -> bool {
        let before = *idle_puts;

        if used {
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
        self.idle.store(!used, Relaxed);
        !used
    }
}

/// Whether a vCPU needs the hardware.
pub(crate) struct Demand {
    /// For enabled counters.
    pub(crate) counters: Recent,
    /// To record branches.
    pub(crate) branches: Recent,
    /// Reads of `PERF_GLOBAL_CTRL` since the guest changed it.
    steady_reads: Atomic<u32>,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            counters: Recent::default(),
            branches: Recent::default(),
            steady_reads: Atomic::new(0),
        }
    }
}

impl Demand {
    /// What the guest is to access directly, now that it selects this. With `keep` it goes on to
    /// access what it does now.
    pub(crate) fn update(
        &self,
        vcpu: &Vcpu,
        usage: &mut Usage,
        selectors: &Selectors<'_>,
        keep: bool,
        stats: &VcpuStats,
    ) -> Passthrough {
        let branches = selectors.records_branches() || usage.branches && !self.branches.is_idle();

        if mode() == Mode::Eager {
            usage.branches = branches;
            return Passthrough::ALL.with_branches(branches);
        }

        // The guest's guest has the hardware, up to its exit.
        if keep && usage.is_wanted() {
            return Passthrough::NONE;
        }

        let before = usage.counters;
        let state = usage.state();
        let enabled = selectors.enabled();
        let idle = enabled.is_empty() && self.counters.is_idle();

        if keep && idle && !branches {
            return Passthrough::NONE;
        }

        let after = if idle {
            CounterSet::EMPTY
        } else {
            before.union(enabled)
        };
        let lent = usage.account(vcpu, !after.is_empty() || branches, stats);

        usage.counters = if lent { after } else { CounterSet::EMPTY };
        usage.branches = lent && branches;
        if usage.state() != state {
            stats.enters(vcpu, usage.state(), usage.counters);
        }
        Passthrough::new(
            usage.counters,
            self.steady_reads.load(Relaxed) < STEADY_READS,
        )
        .with_branches(usage.branches)
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
}
