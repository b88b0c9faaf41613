// SPDX-License-Identifier: GPL-2.0
//! Which events there are, and what they count.

use crate::options::Weights;
use crate::Event;
use crate::Source;
use crate::SourceSet;

/// Event: retired instructions.
pub const INSTRUCTIONS: u64 = 0xc0;

/// Event: LsDispatch, of which an instruction may make several.
pub const LS_DISPATCH: u64 = 0x029;

/// The event without its unit mask.
pub fn select(ctl: u64) -> u64 {
    ctl & 0xff | ctl >> 24 & 0xf00
}

/// Cycles, of which an instruction takes so many.
fn cycles(weight: u32) -> Event {
    Event {
        weight,
        ..Event::of(Source::Instructions)
    }
}

/// What each of these adds to.
fn sum(sources: &[Source]) -> Event {
    let none = SourceSet::NONE;
    Event {
        sources: sources.iter().fold(none, |all, source| all.with(*source)),
        weight: 1,
    }
}

/// The event that PERF_CTL value `ctl` selects, if it is one of those that are counted.
pub fn event(ctl: u64, weights: Weights) -> Option<Event> {
    let unit_mask = ctl >> 8 & 0xff;
    match select(ctl) {
        // ExRetInstr
        INSTRUCTIONS => Some(Event::of(Source::Instructions)),
        // LsNotHaltedCyc
        0x076 => Some(cycles(weights.cycles)),
        // LsNotHaltedP0Cyc, the reference of perf on Zen 4: amd_zen4_perfmon_event_map.
        0x120 if unit_mask == 1 => Some(cycles(weights.reference)),
        // ExRetBrn
        0x0c2 => Some(Event::of(Source::Branches)),
        // ExRetBrnTkn, ExRetBrnFar, ExRetNearRet, ExRetIndBrchInstr, ExRetCond
        0x0c4 => Some(sum(&[
            Source::Taken,
            Source::Jumps,
            Source::Calls,
            Source::Returns,
            Source::FarBranches,
        ])),
        0x0c6 => Some(Event::of(Source::FarBranches)),
        0x0c8 => Some(Event::of(Source::Returns)),
        0x0cc => Some(Event::of(Source::Indirect)),
        0x0d1 => Some(sum(&[Source::Taken, Source::NotTaken])),
        // ExRetBrnMisp; ExRetBrnTknMisp, ExRetBrnIndMisp and ExRetUncondBrnchInstrMispred;
        // ExRetMsprdBrnchInstrDirMsmtch. (ExRetNearRetMispred never happens.)
        0x0c3 => Some(Event {
            sources: SourceSet::MISPREDICTED,
            weight: 1,
        }),
        0x0c5 | 0x0ca | 0x1c8 => Some(sum(&[Source::Indirect])),
        0x1c7 => Some(sum(&[Source::NotTaken])),
        // LsIntTaken. Which mode they belong to no source says.
        0x02c => Some(sum(&[Source::Interrupts])),
        // L2CacheReqStat of misses, perf's cache-misses (amd_zen4_perfmon_event_map): a line that
        // is flushed is one that will be missed.
        0x064 if unit_mask == 0x09 => Some(Event::of(Source::Flushes)),
        // The unit mask says which kinds are added up.
        LS_DISPATCH => {
            let mut sources = SourceSet::NONE;
            for (bit, source) in [Source::Loads, Source::Stores, Source::LoadStores]
                .into_iter()
                .enumerate()
            {
                if unit_mask >> bit & 1 != 0 {
                    sources = sources.with(source);
                }
            }
            Some(Event { sources, weight: 1 })
        }
        _ => None,
    }
}
