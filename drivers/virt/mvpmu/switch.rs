// SPDX-License-Identifier: GPL-2.0

//! The context switch: the guest's PMU state from memory into hardware and back.

use crate::{
    registers::RegisterFile,
    vendor::Vendor, //
};
use kernel::{
    interrupt::LocalInterruptDisabled,
    kvm::mediated_pmu::GuestPmu,
    perf::guest::{
        GuestContext,
        GuestLvtpc,
        RoutedContext, //
    },
};

/// Takes the PMU from perf and loads the guest's state.
#[inline(always)]
pub(crate) fn load<V: Vendor, R: RegisterFile>(
    regs: &mut R,
    pmu: &mut GuestPmu<'_>,
    lvtpc: GuestLvtpc,
    irq: &LocalInterruptDisabled,
) {
    let context = GuestContext::load(irq);

    // Perf stopped each of its counters but left the PMU enabled as a whole. Selectors and
    // counters must not change while it is, else they would count and overflow on the way.
    V::stop(regs);

    let context = context.route_pmi(lvtpc);

    load_registers::<V, R>(regs, pmu);
    context.keep();
}

/// Saves the guest's state, clears it from hardware and gives the PMU back to perf.
#[inline(always)]
pub(crate) fn put<V: Vendor, R: RegisterFile>(
    regs: &mut R,
    pmu: &mut GuestPmu<'_>,
    irq: &LocalInterruptDisabled,
) {
    let context = RoutedContext::resume(irq);

    put_registers::<V, R>(regs, pmu);
    drop(context);
}

/// Loads the guest's registers into a PMU whose counters are stopped.
#[inline(always)]
pub(crate) fn load_registers<V: Vendor, R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) {
    for pmc in pmu.gp_counters() {
        let counter = pmc.hw_counter();
        let (Some(ctr), Some(sel)) = (
            V::COUNTERS.get(counter.index()),
            V::SELECTORS.get(counter.index()),
        ) else {
            break;
        };

        // Reading is cheaper than writing (RDPMC against WRMSR), and values often agree.
        if regs.read_counter(counter) != pmc.counter() {
            regs.write(ctr, pmc.counter());
        }
        regs.write(sel, pmc.eventsel_hw());
    }

    if let Some(fixed) = V::FIXED_COUNTERS {
        for pmc in pmu.fixed_counters() {
            let counter = pmc.hw_counter();
            let Some(ctr) = fixed.get(counter.index()) else {
                break;
            };

            if regs.read_counter(counter) != pmc.counter() {
                regs.write(ctr, pmc.counter());
            }
        }
    }

    V::load_global(regs, pmu);
}

/// Stops the counters, saves the guest's registers and clears those that hold anything of it.
///
/// What stayed would count for the host under the guest's selectors, or could be read by any task
/// that has RDPMC.
#[inline(always)]
pub(crate) fn put_registers<V: Vendor, R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) {
    V::put_global(regs, pmu);

    for mut pmc in pmu.gp_counters() {
        let counter = pmc.hw_counter();
        let (Some(ctr), Some(sel)) = (
            V::COUNTERS.get(counter.index()),
            V::SELECTORS.get(counter.index()),
        ) else {
            break;
        };

        let value = regs.read_counter(counter);

        pmc.set_counter(value);
        if value != 0 {
            regs.write(ctr, 0);
        }
        if pmc.eventsel_hw() != 0 {
            regs.write(sel, 0);
        }
    }

    if let Some(fixed) = V::FIXED_COUNTERS {
        for mut pmc in pmu.fixed_counters() {
            let counter = pmc.hw_counter();
            let Some(ctr) = fixed.get(counter.index()) else {
                break;
            };

            let value = regs.read_counter(counter);

            pmc.set_counter(value);
            if value != 0 {
                regs.write(ctr, 0);
            }
        }
    }
}
