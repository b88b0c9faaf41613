// SPDX-License-Identifier: GPL-2.0
//! Memory accesses are counted only once a counter wants them: it costs a third of the speed.
//!
//! The first counter that does has everything translated anew. QEMU stops all vCPUs for that and
//! does it before this one executes another instruction, so not an event is lost.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use pmu_model::Source;

use crate::symbols::symbols;
use crate::vcpu::Vcpu;

/// The sources that are memory accesses.
pub const SOURCES: [Source; 3] = [Source::Loads, Source::Stores, Source::LoadStores];

static COUNTED: AtomicBool = AtomicBool::new(false);

/// Whether translations shall count memory accesses.
pub fn counted() -> bool {
    COUNTED.load(Ordering::Relaxed)
}

/// The PMU's registers have changed: starts to count memory accesses when a counter wants them.
pub fn follow(vcpu: &Vcpu) {
    let wanted = SOURCES.iter().any(|source| vcpu.pmu.counts(*source));
    if wanted && !COUNTED.swap(true, Ordering::Relaxed) {
        // SAFETY: In the CPU's thread.
        unsafe { (symbols().queue_tb_flush)(vcpu.cpu_state()) };
    }
}
