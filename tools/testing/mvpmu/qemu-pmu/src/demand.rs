// SPDX-License-Identifier: GPL-2.0
//! Branches and memory accesses are counted only once a counter wants them: it costs speed.
//!
//! The first counter that does has everything translated anew. QEMU stops all vCPUs for that and
//! does it before this one executes another instruction, so not an event is lost.

use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

use pmu_model::amd::Amd;
use pmu_model::Pmu;
use pmu_model::Source;

use crate::decode::Sources;

/// The sources that are memory accesses.
pub const MEMORY: [Source; 3] = [Source::Loads, Source::Stores, Source::LoadStores];

/// The sources that translations count, a bit for each.
static DEMANDED: AtomicU16 = AtomicU16::new(1 << Source::Instructions as u16);

/// Whether translations shall count `source`.
pub fn counted(source: Source) -> bool {
    DEMANDED.load(Ordering::Relaxed) >> source as u16 & 1 != 0
}

/// All that translations shall count.
pub fn all_counted() -> Sources {
    let all = Source::ALL.into_iter().filter(|source| counted(*source));
    all.fold(Sources::default(), Sources::with)
}

/// The registers of a PMU have changed: what counters want to be counted is demanded. True when
/// something is new, and everything has to be translated anew.
pub fn follow(pmu: &Pmu<Amd>) -> bool {
    let wanted = Source::ALL
        .iter()
        .filter(|source| pmu.counts(**source))
        .fold(0, |bits, source| bits | 1 << *source as u16);
    // A conditional branch is added as taken, and corrected.
    let conditional = 1 << Source::Taken as u16 | 1 << Source::NotTaken as u16;
    let wanted = match wanted & conditional {
        0 => wanted,
        _ => wanted | conditional,
    };
    let before = DEMANDED.fetch_or(wanted, Ordering::Relaxed);
    wanted & !before != 0
}
