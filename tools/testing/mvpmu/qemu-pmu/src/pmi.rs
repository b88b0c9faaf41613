// SPDX-License-Identifier: GPL-2.0
//! Performance monitoring interrupts.

use crate::vcpu::Vcpu;

/// A counter wrapped that asks for an interrupt: true when one was sent.
///
/// The LVTPC's mask bit is left as it is. On AMD, unlike Intel, the local APIC does not set it
/// when it delivers the interrupt (perf's `amd_pmu_v2_handle_irq()` relies on it).
pub fn send(vcpu: &mut Vcpu) -> bool {
    let interrupt = vcpu.apic.performance_interrupt(&mut vcpu.bus);
    let stats = vcpu.pmu.stats_mut();
    match &interrupt {
        Some(_) => stats.pmi += 1,
        None => stats.pmi_masked += 1,
    }
    vcpu.publish();
    if let Some(interrupt) = &interrupt {
        interrupt.send(&mut vcpu.bus);
    }
    interrupt.is_some()
}
