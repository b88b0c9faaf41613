// SPDX-License-Identifier: GPL-2.0
//! Branches and memory accesses are counted only once a counter wants them: it costs speed.
//!
//! The first counter that does has everything translated anew. QEMU stops all vCPUs for that and
//! does it before this one executes another instruction, so not an event is lost.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use pmu_model::Source;

use crate::board::COUNTED;
use crate::symbols::symbols;
use crate::vcpu::Vcpu;

/// The sources that are memory accesses.
pub const MEMORY: [Source; 3] = [Source::Loads, Source::Stores, Source::LoadStores];

/// The sources that translations count, a bit for each.
static DEMANDED: AtomicU8 = AtomicU8::new(1 << Source::Instructions as u8);

/// Whether translations shall count `source`.
pub fn counted(source: Source) -> bool {
    DEMANDED.load(Ordering::Relaxed) >> source as u8 & 1 != 0
}

/// The PMU's registers have changed: counts what counters want to be counted.
pub fn follow(vcpu: &Vcpu) {
    let wanted = Source::ALL[..COUNTED]
        .iter()
        .filter(|source| vcpu.pmu.counts(**source))
        .fold(0, |bits, source| bits | 1 << *source as u8);
    let before = DEMANDED.fetch_or(wanted, Ordering::Relaxed);
    if wanted & !before != 0 {
        // SAFETY: In the CPU's thread.
        unsafe { (symbols().queue_tb_flush)(vcpu.cpu_state()) };
    }
}
