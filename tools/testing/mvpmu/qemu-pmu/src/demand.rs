// SPDX-License-Identifier: GPL-2.0
//! Branches and memory accesses are counted only once a counter wants them: it costs speed.
//!
//! The first counter that does has everything translated anew. QEMU stops all vCPUs for that and
//! does it before this one executes another instruction, so not an event is lost.
//!
//! A condition on cycles (CNT_MASK, INV, EDGE) has to be looked at after each instruction. While a
//! counter of some vCPU has one, a block is one instruction. So it is for the sweep. Nothing is
//! translated anew for that: blocks of both kinds are there, QEMU looks for one of the kind that is
//! wanted, and does so after each instruction that writes a register of the PMU. Only longer ones
//! are chained to each other.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::sync::Mutex;
use std::sync::PoisonError;

use pmu_model::amd::Amd;
use pmu_model::Pmu;
use pmu_model::Source;

use crate::decode::Sources;
use crate::symbols::symbols;

/// The sources that are memory accesses.
pub const MEMORY: [Source; 3] = [Source::Loads, Source::Stores, Source::LoadStores];

/// The sources that translations count, a bit for each.
static DEMANDED: AtomicU16 = AtomicU16::new(1 << Source::Instructions as u16);

/// Whether translations see where branches lead: see [`branches`](crate::branches).
static BRANCHES: AtomicBool = AtomicBool::new(false);

/// How many want blocks of one instruction.
static STEPPING: Mutex<u32> = Mutex::new(0);

/// Whether translations see where branches lead.
pub fn branches_seen() -> bool {
    BRANCHES.load(Ordering::Relaxed)
}

/// A CPU records branches. True when everything has to be translated anew for it.
pub fn want_branches_seen() -> bool {
    !BRANCHES.swap(true, Ordering::Relaxed)
}

/// Somebody wants blocks of one instruction, or no longer.
pub fn want_steps(wanted: bool) {
    let mut stepping = STEPPING.lock().unwrap_or_else(PoisonError::into_inner);
    match wanted {
        true => *stepping += 1,
        false => *stepping -= 1,
    }
    let one = *stepping > 0;
    symbols().one_insn_per_tb.store(one, Ordering::SeqCst);
}

/// The registers of a PMU have changed; `steps` is whether it had wanted blocks of one instruction.
pub fn follow_steps(pmu: &Pmu<Amd>, steps: &mut bool) {
    let wanted = pmu.wants_cycles();
    if std::mem::replace(steps, wanted) != wanted {
        want_steps(wanted);
    }
}

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
