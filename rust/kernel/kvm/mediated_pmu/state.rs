// SPDX-License-Identifier: GPL-2.0

//! The PMU state of a vCPU in memory.

use super::Passthrough;
use crate::{
    perf::guest::GuestLbrs,
    types::NotThreadSafe,
    x86::pmu::{
        Counter,
        CounterSet,
        PerfMetrics,
        EVENTSEL_ENABLE, //
    },
};
use core::{
    hint,
    marker::PhantomData,
    ptr::NonNull, //
};

#[cfg(CONFIG_KUNIT = "y")]
use crate::{
    prelude::*,
    x86::pmu::Capability, //
};

/// The PMU state of a vCPU, `struct kvm_pmu`, while its provider may change it.
///
/// # Invariants
///
/// `pmu` points to the PMU of a vCPU. For the life of `'a` nobody else accesses the fields that
/// the functions of this type access, nor those of the counters. The CPU has a counter
/// for each of the guest's, general purpose and fixed, and `PERF_METRICS` if the guest has that: KVM
/// gives a guest no more. (Other CPUs write `reprogram_pmi` at any time, hence this is not a `&mut bindings::kvm_pmu`.)
pub struct GuestPmu<'a> {
    pmu: NonNull<bindings::kvm_pmu>,
    _life: PhantomData<&'a mut bindings::kvm_pmu>,
    _here: NotThreadSafe,
}

/// Fixed counters there can be in `FIXED_CTR_CTRL`, at four bits each.
const FIXED_COUNTERS: u32 = u64::BITS / 4;

/// The length of an array in `struct kvm_pmu`.
const fn length<T, const N: usize>(_: fn(&bindings::kvm_pmu) -> &[T; N]) -> usize {
    N
}

/// A kind of counters.
trait Kind {
    /// The length of KVM's array of them.
    const MAX: usize;

    /// Names counter `i` of this kind.
    ///
    /// # Safety
    ///
    /// The CPU must have it.
    unsafe fn counter(i: u32) -> Counter;
}

/// General purpose counters, for [`Pmcs`].
pub enum Gp {}
/// Fixed counters, for [`Pmcs`].
pub enum Fixed {}

impl Kind for Gp {
    const MAX: usize = GuestPmu::MAX_GP_COUNTERS;

    #[inline(always)]
    unsafe fn counter(i: u32) -> Counter {
        // SAFETY: By the safety requirement.
        unsafe { Counter::gp(i) }
    }
}

impl Kind for Fixed {
    const MAX: usize = GuestPmu::MAX_FIXED_COUNTERS;

    #[inline(always)]
    unsafe fn counter(i: u32) -> Counter {
        // SAFETY: By the safety requirement.
        unsafe { Counter::fixed(i) }
    }
}

/// Some counters of one kind of a vCPU, in order.
///
/// # Invariants
///
/// `first` points to the array of the counters of this kind in a `struct kvm_pmu`, bit n of `left` is
/// its member n. For all of `'a` nobody else accesses the fields of the counters in `left` that [`Pmc`]
/// accesses; the array and the CPU have each of them.
pub struct Pmcs<'a, K> {
    first: *mut bindings::kvm_pmc,
    left: u32,
    _life: PhantomData<(&'a mut bindings::kvm_pmc, K)>,
}

impl<'a, K: Kind> Iterator for Pmcs<'a, K> {
    type Item = Pmc<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Pmc<'a>> {
        if self.left == 0 {
            return None;
        }

        let i = self.left.trailing_zeros();

        // INVARIANT: `left` gets smaller, so that each counter is given once.
        self.left &= self.left.wrapping_sub(1);

        // SAFETY: By the type invariant. It saves whoever looks up registers by `i` from checks.
        unsafe { hint::assert_unchecked((i as usize) < K::MAX) };

        // INVARIANT: By the type invariant.
        Some(Pmc {
            // SAFETY: By the type invariant the array has the member, an object.
            pmc: unsafe { NonNull::new_unchecked(self.first.add(i as usize)) },
            // SAFETY: By the type invariant.
            hardware: unsafe { K::counter(i) },
            _life: PhantomData,
        })
    }
}

/// Reads a field of the PMU.
macro_rules! read {
    ($self:ident . $field:ident) => {
        // SAFETY: By the type invariant the field is valid and nobody else accesses it.
        unsafe { (&raw const (*$self.pmu.as_ptr()).$field).read() }
    };
}

/// Writes a field of the PMU.
macro_rules! write {
    ($self:ident . $field:ident, $value:expr) => {
        // SAFETY: By the type invariant the field is valid and nobody else accesses it.
        unsafe { (&raw mut (*$self.pmu.as_ptr()).$field).write($value) }
    };
}

impl<'a> GuestPmu<'a> {
    /// General purpose counters that a guest has at most.
    pub const MAX_GP_COUNTERS: usize = length(|pmu| &pmu.gp_counters);
    /// Fixed counters that a guest has at most.
    pub const MAX_FIXED_COUNTERS: usize = length(|pmu| &pmu.fixed_counters);

    /// Wraps a pointer of C.
    ///
    /// # Safety
    ///
    /// `pmu` must point to the PMU of a vCPU that exists for all of `'a`; in that time the caller
    /// owns the state of its counters and of its global and fixed control registers.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(pmu: *mut bindings::kvm_pmu) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            // SAFETY: A pointer to an object is not null.
            pmu: unsafe { NonNull::new_unchecked(pmu) },
            _life: PhantomData,
            _here: NotThreadSafe,
        }
    }

    /// The counters that the guest has.
    #[inline(always)]
    fn valid(&self) -> CounterSet {
        CounterSet::from_bits(read!(self.all_valid_pmc_idx)[0] as u64)
    }

    /// Those of the guest's general purpose counters that are in `set`.
    #[inline(always)]
    pub fn gp_counters(&mut self, set: CounterSet) -> Pmcs<'_, Gp> {
        // INVARIANT: KVM's array has what KVM says is valid, the CPU has by the type invariant, and
        // nobody else accesses them while `self` is borrowed.
        Pmcs {
            // SAFETY: By the type invariant the object is valid.
            first: unsafe { &raw mut (*self.pmu.as_ptr()).gp_counters }.cast(),
            left: self.valid().intersection(set).gp_bits(),
            _life: PhantomData,
        }
    }

    /// Those of the guest's fixed counters that are in `set`.
    #[inline(always)]
    pub fn fixed_counters(&mut self, set: CounterSet) -> Pmcs<'_, Fixed> {
        // INVARIANT: As above.
        Pmcs {
            // SAFETY: By the type invariant the object is valid.
            first: unsafe { &raw mut (*self.pmu.as_ptr()).fixed_counters }.cast(),
            left: self.valid().intersection(set).fixed_bits(),
            _life: PhantomData,
        }
    }

    /// Those of the guest's general purpose counters whose selectors may have changed since the last
    /// [`load`](super::Provider::load).
    #[inline(always)]
    pub fn reselected(&mut self) -> Pmcs<'_, Gp> {
        let set = CounterSet::from_bits(read!(self.reselect));

        self.gp_counters(set)
    }

    /// The bits that general purpose counters have, and fixed ones.
    #[inline(always)]
    pub fn counter_masks(&self) -> (u64, u64) {
        let [gp, fixed] = read!(self.counter_bitmask);

        (gp, fixed)
    }

    /// The guest's `FIXED_CTR_CTRL` as hardware is to get it: what the guest wrote, less what the
    /// event filter denies.
    #[inline(always)]
    pub fn fixed_ctr_ctrl_hw(&self) -> u64 {
        read!(self.fixed_ctr_ctrl_hw)
    }

    /// The guest's `PERF_GLOBAL_CTRL`.
    #[inline(always)]
    pub fn global_ctrl(&self) -> u64 {
        read!(self.global_ctrl)
    }

    /// Sets the guest's `PERF_GLOBAL_CTRL`.
    #[inline(always)]
    pub fn set_global_ctrl(&mut self, value: u64) {
        write!(self.global_ctrl, value);
    }

    /// `PERF_METRICS`, if the guest has it: then it may write its bit of `PERF_GLOBAL_CTRL`.
    #[inline(always)]
    pub fn metrics(&self) -> Option<PerfMetrics> {
        if read!(self.global_ctrl_rsvd) & 1 << bindings::INTEL_PMC_IDX_METRIC_BASE != 0 {
            return None;
        }
        // SAFETY: By the type invariant the CPU has what the guest has.
        Some(unsafe { PerfMetrics::new() })
    }

    /// The guest's `PERF_METRICS`.
    #[inline(always)]
    pub fn perf_metrics(&self) -> u64 {
        read!(self.perf_metrics)
    }

    /// Sets the guest's `PERF_METRICS`.
    #[inline(always)]
    pub fn set_perf_metrics(&mut self, value: u64) {
        write!(self.perf_metrics, value);
    }

    /// The guest's architectural last branch records, if it has them.
    #[inline(always)]
    pub fn lbrs(&mut self) -> Option<GuestLbrs<'_>> {
        let lbr = NonNull::new(read!(self.lbr))?;

        // SAFETY: It points into the vCPU, which exists for the life of `self`. The thread of the vCPU has
        // the PMU's state; when it came to this CPU, KVM had another CPU save them.
        Some(unsafe { GuestLbrs::from_raw(lbr) })
    }

    /// What the guest accesses directly.
    #[inline(always)]
    pub fn passthrough(&self) -> Passthrough {
        Passthrough(read!(self.passthrough))
    }

    /// The guest's `PERF_GLOBAL_STATUS`.
    #[inline(always)]
    pub fn global_status(&self) -> u64 {
        read!(self.global_status)
    }

    /// Sets the guest's `PERF_GLOBAL_STATUS`, as far as the guest has it.
    ///
    /// The CPU has bits that KVM does not know, or for what guests have not got: it would refuse to
    /// set them when the guest is migrated.
    #[inline(always)]
    pub fn set_global_status(&mut self, status: u64) {
        let reserved = read!(self.global_status_rsvd);

        write!(self.global_status, status & !reserved);
    }
}

/// The event selectors and `FIXED_CTR_CTRL` of a vCPU, as hardware is to get them.
///
/// # Invariants
///
/// `vcpu` points to a vCPU, `pmu` to its PMU. For the life of `'a` nobody changes what it selects.
pub struct Selectors<'a> {
    vcpu: NonNull<bindings::kvm_vcpu>,
    pmu: NonNull<bindings::kvm_pmu>,
    _life: PhantomData<&'a bindings::kvm_pmu>,
    _here: NotThreadSafe,
}

impl Selectors<'_> {
    /// Wraps a pointer of C.
    ///
    /// # Safety
    ///
    /// `vcpu` must point to a vCPU that exists for all of `'a`; in that time nobody may change what
    /// it selects.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(vcpu: *mut bindings::kvm_vcpu) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            // SAFETY: A pointer to an object is not null.
            vcpu: unsafe { NonNull::new_unchecked(vcpu) },
            // SAFETY: As above.
            pmu: unsafe { NonNull::new_unchecked(&raw mut (*vcpu).arch.pmu) },
            _life: PhantomData,
            _here: NotThreadSafe,
        }
    }

    /// Whether the guest has a branch stack, and records branches.
    #[inline(always)]
    pub fn records_branches(&self) -> bool {
        // SAFETY: By the type invariant the vCPU exists, and nobody changes that.
        unsafe { bindings::kvm_pmu_records_branches(self.vcpu.as_ptr()) }
    }

    /// The counters that are enabled one by one, whatever `PERF_GLOBAL_CTRL` says.
    #[inline(always)]
    pub fn enabled(&self) -> CounterSet {
        // SAFETY: By the type invariant the object is valid.
        let counters = unsafe { &raw const (*self.pmu.as_ptr()).gp_counters };
        let gp = read!(self.nr_arch_gp_counters).min(GuestPmu::MAX_GP_COUNTERS as u32);
        let control = read!(self.fixed_ctr_ctrl_hw);
        let mut enabled = CounterSet::EMPTY;

        for i in 0..gp {
            let pmc = counters.cast::<bindings::kvm_pmc>();
            // SAFETY: `i` is less than the length of the array; nobody changes the field.
            let eventsel = unsafe { (&raw const (*pmc.add(i as usize)).eventsel_hw).read() };

            if eventsel & EVENTSEL_ENABLE != 0 {
                enabled = enabled.union(CounterSet::gp(i));
            }
        }
        if control == 0 {
            return enabled;
        }
        for i in 0..read!(self.nr_arch_fixed_counters).min(FIXED_COUNTERS) {
            // Bits 0 and 1 of each four: count in the kernel, count in user mode.
            if control >> (4 * i) & 3 != 0 {
                enabled = enabled.union(CounterSet::fixed(i));
            }
        }
        enabled
    }
}

/// A counter (PMC) of a vCPU, `struct kvm_pmc`.
///
/// # Invariants
///
/// `pmc` points to a counter of the vCPU; for the life of `'a` nobody else accesses the fields
/// that the functions of this type access.
pub struct Pmc<'a> {
    pmc: NonNull<bindings::kvm_pmc>,
    hardware: Counter,
    _life: PhantomData<&'a mut bindings::kvm_pmc>,
}

impl Pmc<'_> {
    /// The counter of the CPU that counts for this one: the one of the same number.
    #[inline(always)]
    pub fn hw_counter(&self) -> Counter {
        self.hardware
    }

    /// The counter's value.
    #[inline(always)]
    pub fn counter(&self) -> u64 {
        // SAFETY: By the type invariant.
        unsafe { (&raw const (*self.pmc.as_ptr()).counter).read() }
    }

    /// Sets the counter's value.
    #[inline(always)]
    pub fn set_counter(&mut self, value: u64) {
        // SAFETY: By the type invariant.
        unsafe { (&raw mut (*self.pmc.as_ptr()).counter).write(value) }
    }

    /// The event selector as hardware is to get it: what the guest wrote, less what the event
    /// filter denies, and restricted to guest mode.
    #[inline(always)]
    pub fn eventsel_hw(&self) -> u64 {
        // SAFETY: By the type invariant.
        unsafe { (&raw const (*self.pmc.as_ptr()).eventsel_hw).read() }
    }
}

/// The PMU state of no vCPU, for KUnit tests of providers.
#[cfg(CONFIG_KUNIT = "y")]
pub struct OwnedPmu {
    pmu: KBox<bindings::kvm_pmu>,
    /// Where `pmu` points to, if it has them.
    _lbr: Option<KBox<bindings::perf_guest_lbr>>,
}

#[cfg(CONFIG_KUNIT = "y")]
impl OwnedPmu {
    /// A PMU with general purpose counters of the given values and selectors (`counter`,
    /// `eventsel_hw`), and these global registers.
    ///
    /// Fails with `EINVAL` if there are more than the host's PMU has.
    pub fn new(counters: &[(u64, u64)], global_ctrl: u64, global_status: u64) -> Result<Self> {
        let mut pmu = KBox::init(pin_init::init_zeroed::<bindings::kvm_pmu>(), GFP_KERNEL)?;

        pmu.nr_arch_gp_counters = counters.len().try_into()?;
        if pmu.nr_arch_gp_counters > Capability::of_host().gp_counters {
            return Err(EINVAL);
        }
        // It has no `PERF_METRICS`.
        pmu.global_ctrl_rsvd = 1 << bindings::INTEL_PMC_IDX_METRIC_BASE;
        pmu.global_ctrl = global_ctrl;
        pmu.global_status = global_status;
        pmu.passthrough = u64::MAX;
        pmu.counter_bitmask = [(1 << 48) - 1; 2];
        pmu.all_valid_pmc_idx[0] = (1 << counters.len()) - 1;
        for (i, &(counter, eventsel)) in counters.iter().enumerate() {
            let pmc = pmu.gp_counters.get_mut(i).ok_or(EINVAL)?;
            pmc.counter = counter;
            pmc.eventsel_hw = eventsel;
        }
        Ok(Self { pmu, _lbr: None })
    }

    /// With architectural last branch records, which are in no CPU's registers.
    pub fn with_lbrs(mut self) -> Result<Self> {
        let mut lbr = KBox::init(
            pin_init::init_zeroed::<bindings::perf_guest_lbr>(),
            GFP_KERNEL,
        )?;

        lbr.cpu = -1;
        self.pmu.lbr = &mut *lbr;
        self._lbr = Some(lbr);
        Ok(self)
    }

    /// With a guest that has only these bits of `PERF_GLOBAL_STATUS`.
    pub fn with_status_bits(mut self, bits: u64) -> Self {
        self.pmu.global_status_rsvd = !bits;
        self
    }

    /// Adds fixed counters of the given values, and their control register.
    ///
    /// Fails with `EINVAL` if there are more than the host's PMU has.
    pub fn with_fixed(mut self, counters: &[u64], fixed_ctr_ctrl: u64) -> Result<Self> {
        self.pmu.nr_arch_fixed_counters = counters.len().try_into()?;
        if self.pmu.nr_arch_fixed_counters > Capability::of_host().fixed_counters {
            return Err(EINVAL);
        }
        self.pmu.fixed_ctr_ctrl_hw = fixed_ctr_ctrl;
        self.pmu.all_valid_pmc_idx[0] |=
            ((1 << counters.len()) - 1) << bindings::INTEL_PMC_IDX_FIXED;
        for (i, &counter) in counters.iter().enumerate() {
            self.pmu.fixed_counters.get_mut(i).ok_or(EINVAL)?.counter = counter;
        }
        Ok(self)
    }

    /// Only these counters are accessed directly, by KVM's indices.
    pub fn with_passthrough(mut self, counters: u64) -> Self {
        self.pmu.passthrough = counters;
        self
    }

    /// Sets the selector (`eventsel_hw`) of general purpose counter `i`.
    pub fn select(&mut self, i: usize, eventsel: u64) -> Result {
        self.pmu.gp_counters.get_mut(i).ok_or(EINVAL)?.eventsel_hw = eventsel;
        self.pmu.reselect |= 1 << i;
        Ok(())
    }

    /// The state, as a provider sees it.
    pub fn as_guest(&mut self) -> GuestPmu<'_> {
        // SAFETY: The state is ours and borrowed mutably; `new` made sure the CPU has the counters.
        unsafe { GuestPmu::from_raw(&mut *self.pmu) }
    }
}
