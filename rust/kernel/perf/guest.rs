// SPDX-License-Identifier: GPL-2.0

//! Lending the CPU's PMU to a guest.
//!
//! While a guest's context is loaded on a CPU, perf has stopped its `exclude_guest` events there
//! and does not touch the PMU. Whoever loads the context owns the PMU's registers until it puts
//! the context again.
//!
//! C headers: [`include/linux/perf_event.h`](srctree/include/linux/perf_event.h),
//! [`arch/x86/include/asm/perf_event.h`](srctree/arch/x86/include/asm/perf_event.h)

use crate::{
    error::{
        to_result,
        Result, //
    },
    interrupt::LocalInterruptDisabled,
    x86::pmu::CounterSet,
};
use core::{
    marker::PhantomData,
    mem, //
};

/// Accounts one VM or vCPU that uses the PMU directly.
///
/// While an instance exists, events that count inside guests (`!exclude_guest`) cannot be created.
pub struct MediatedVm(());

impl MediatedVm {
    /// Accounts it. May sleep.
    ///
    /// Fails with `EBUSY` while an event exists that counts inside guests, e.g. the NMI watchdog's.
    pub fn new() -> Result<Self> {
        // SAFETY: The C API requires no more than a context that may sleep, which the type system
        // doesn't track.
        to_result(unsafe { bindings::perf_create_mediated_pmu() })?;
        Ok(Self(()))
    }
}

impl Drop for MediatedVm {
    fn drop(&mut self) {
        // SAFETY: `new` accounted the VM that is released here.
        unsafe { bindings::perf_release_mediated_pmu() }
    }
}

/// The guest's view of the local APIC's performance counter entry (LVTPC).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestLvtpc(u32);

impl GuestLvtpc {
    /// Takes the value of the guest's LVTPC register (AMD APM volume 2, "Performance Monitor
    /// Counter Interrupts"; Intel SDM volume 3, "Local Vector Table"). Only its mask bit matters to hardware.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }
}

/// The local CPU's PMU, lent to a guest; dropping it gives the PMU back to perf.
///
/// # Examples
///
/// ```ignore
/// fn enter(irq: &LocalInterruptDisabled, lvtpc: GuestLvtpc) {
///     let context = GuestContext::load(irq).route_pmi(lvtpc);
///     // ... load the guest's registers ...
///     context.keep();
/// }
///
/// fn leave(irq: &LocalInterruptDisabled) {
///     let context = RoutedContext::resume(irq).return_to_host();
///     // ... save the guest's registers, clear those that are not in context.claimed() ...
///     drop(context); // The LVTPC first, then perf's events.
/// }
/// ```
#[must_use = "the PMU goes back to perf when this is dropped"]
pub struct GuestContext<'irq>(PhantomData<&'irq LocalInterruptDisabled>);

impl<'irq> GuestContext<'irq> {
    /// Stops perf's `exclude_guest` events on this CPU.
    ///
    /// If the context is loaded already the kernel warns and nothing changes.
    #[inline(always)]
    pub fn load(_irq: &'irq LocalInterruptDisabled) -> Self {
        // SAFETY: Interrupts are disabled, of which `_irq` is the proof.
        unsafe { bindings::perf_load_guest_context() };
        Self(PhantomData)
    }

    /// Routes this CPU's PMIs to the vector of mediated guests, masked as the guest's LVTPC is.
    ///
    /// The PMU is disabled as a whole afterwards, by its global control, and perf leaves it so.
    /// From here on perf ignores NMIs as far as PMIs are concerned.
    #[inline(always)]
    pub fn route_pmi(self, guest: GuestLvtpc) -> RoutedContext<'irq> {
        // SAFETY: Interrupts are disabled and perf's events are stopped, as `self` exists.
        unsafe { bindings::perf_load_guest_lvtpc(guest.0) };
        RoutedContext { _context: self }
    }
}

impl Drop for GuestContext<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: Interrupts are disabled for the lifetime in `Self`. The C function checks that
        // the context is loaded.
        unsafe { bindings::perf_put_guest_context() }
    }
}

/// A [`GuestContext`] whose PMIs go to the vector of mediated guests.
#[must_use = "the PMU goes back to perf when this is dropped"]
pub struct RoutedContext<'irq> {
    // Dropped after `Self::drop()`, that is, after the LVTPC is the host's again.
    _context: GuestContext<'irq>,
}

impl<'irq> RoutedContext<'irq> {
    /// Masks this CPU's PMIs as the guest's LVTPC is now.
    #[inline(always)]
    pub fn route_pmi(&self, guest: GuestLvtpc) {
        // SAFETY: Interrupts are disabled and perf's events are stopped, as `self` exists.
        unsafe { bindings::perf_load_guest_lvtpc(guest.0) };
    }

    /// Takes over the counters that may hold what the host or the firmware has counted; all others
    /// are zero.
    ///
    /// The caller overwrites or clears them, and clears all it has written before it puts the
    /// context.
    #[inline(always)]
    pub fn take_dirty_counters(&self) -> CounterSet {
        // SAFETY: Interrupts are disabled and perf's events are stopped, as `self` exists.
        CounterSet::from_bits(unsafe { bindings::perf_take_dirty_counters() })
    }

    /// Whether events of the host wait for this CPU's PMU while a guest's context is loaded.
    #[inline(always)]
    pub fn is_contended(_irq: &LocalInterruptDisabled) -> bool {
        // SAFETY: Interrupts are disabled, of which `_irq` is the proof.
        unsafe { bindings::perf_guest_context_contended() }
    }

    /// Gives the PMU back to perf in two steps: the events of the host get their counters now, and
    /// are programmed when the result is dropped.
    ///
    /// Perf's contexts of this CPU are locked in between.
    #[inline(always)]
    pub fn return_to_host(self) -> ReturningContext<'irq> {
        mem::forget(self);
        // SAFETY: Interrupts are disabled for the lifetime in `Self`. The result ends what begins
        // here. The claims are read in between.
        let claimed = unsafe {
            bindings::perf_begin_put_guest_context();
            bindings::perf_claimed_counters()
        };

        ReturningContext {
            claimed: CounterSet::from_bits(claimed),
            _irq: PhantomData,
        }
    }

    /// Leaves the context loaded when this scope ends; [`RoutedContext::resume`] takes it up.
    #[inline(always)]
    pub fn keep(self) {
        mem::forget(self);
    }

    /// Takes up the context that [`RoutedContext::keep`] left loaded on this CPU.
    ///
    /// If there is none, the kernel warns when the result is dropped.
    #[inline(always)]
    pub fn resume(_irq: &'irq LocalInterruptDisabled) -> Self {
        Self {
            _context: GuestContext(PhantomData),
        }
    }
}

impl Drop for RoutedContext<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: Interrupts are disabled for the lifetime in `Self`. Writing the host's LVTPC is
        // harmless if it is loaded already.
        unsafe { bindings::perf_put_guest_lvtpc() }
    }
}

/// A context on its way back to perf, whose events have counters that are not programmed yet.
#[must_use = "the PMU goes back to perf when this is dropped"]
pub struct ReturningContext<'irq> {
    claimed: CounterSet,
    _irq: PhantomData<&'irq LocalInterruptDisabled>,
}

impl ReturningContext<'_> {
    /// The counters that perf is about to program: it writes each with its selector, or the control
    /// of the fixed counters, before it enables the PMU. What is in them need not be cleared.
    ///
    /// If there are any, perf writes the global control at the end, whatever is in it.
    #[inline(always)]
    pub fn claimed(&self) -> CounterSet {
        self.claimed
    }
}

impl Drop for ReturningContext<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: Interrupts are disabled for the lifetime in `Self`, and `return_to_host` began
        // what ends here.
        unsafe {
            bindings::perf_put_guest_lvtpc();
            bindings::perf_end_put_guest_context();
        }
    }
}
