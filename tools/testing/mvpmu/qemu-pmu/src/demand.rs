// SPDX-License-Identifier: GPL-2.0
//! Branches and memory accesses are counted only once a counter wants them: it costs speed.
//!
//! The first counter that does has everything translated anew. QEMU stops all vCPUs for that and
//! does it before this one executes another instruction, so not an event is lost.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use pmu_model::amd::Amd;
use pmu_model::Pmu;
use pmu_model::Source;

use crate::board::COUNTED;

/// The sources that are memory accesses.
pub const MEMORY: [Source; 3] = [Source::Loads, Source::Stores, Source::LoadStores];

/// The sources that translations count, a bit for each.
static DEMANDED: AtomicU8 = AtomicU8::new(1 << Source::Instructions as u8);

/// Whether translations shall count `source`.
pub fn counted(source: Source) -> bool {
    DEMANDED.load(Ordering::Relaxed) >> source as u8 & 1 != 0
}

/// The registers of a PMU have changed: what counters want to be counted is demanded. True when
/// something is new, and everything has to be translated anew.
pub fn follow(pmu: &Pmu<Amd>) -> bool {
    let wanted = Source::ALL[..COUNTED]
        .iter()
        .filter(|source| pmu.counts(**source))
        .fold(0, |bits, source| bits | 1 << *source as u8);
    let before = DEMANDED.fetch_or(wanted, Ordering::Relaxed);
    wanted & !before != 0
}
