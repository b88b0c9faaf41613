// SPDX-License-Identifier: GPL-2.0
//! The events that are counted: the architectural ones (SDM volume 3, "Pre-defined Architectural
//! Performance Events"), and those that Linux and KVM's tests use (perfmon, SKX/events, ICX/events
//! and SPR/events, by the names below; the first are as they are called on Sapphire Rapids).
//!
//! Codes and unit masks are compared with perf's copy of those lists (Linux,
//! tools/perf/pmu-events/arch/x86/{skylakex,icelakex,sapphirerapids}).
//!
//! Modelled, not real: an instruction takes the cycles that [`Weights`] say, in a pipeline of
//! [`SLOTS_PER_CYCLE`] slots of which each instruction takes all. Cache misses are the lines that
//! CLFLUSH flushes. Which branches are mispredicted says [`SourceSet::MISPREDICTED`]; jumps and calls
//! are not told apart among them, so that BR_MISP_RETIRED.INDIRECT_CALL (.NEAR_CALL on Skylake) never
//! happens. Whatever is not in this table never happens.

use super::Codes;
use crate::options::Weights;
use crate::Event;
use crate::Source;
use crate::SourceSet;

/// Issue slots in a cycle.
pub const SLOTS_PER_CYCLE: u32 = 4;

const INSTRUCTIONS: Event = Event::of(Source::Instructions);

/// So many for each instruction.
fn instructions(weight: u32) -> Option<Event> {
    Some(Event {
        weight,
        ..INSTRUCTIONS
    })
}

const fn sum(sources: SourceSet) -> Option<Event> {
    Some(Event { sources, weight: 1 })
}

/// Conditional branches, taken or not.
const CONDITIONAL: SourceSet = SourceSet::of(Source::Taken).with(Source::NotTaken);

/// The event of unit mask (high byte) and event select (low byte).
pub(super) fn selected(event: u16, codes: Codes, weights: Weights) -> Option<Event> {
    match (event, codes) {
        // BR_INST_RETIRED.CONDITIONAL, and what PEBS takes for .ALL_BRANCHES; the same of BR_MISP_RETIRED.
        (0x01c4, Codes::Skylake) => return sum(CONDITIONAL),
        (0x04c4, Codes::Skylake) => return Some(Event::of(Source::Branches)),
        (0x01c5, Codes::Skylake) => return Some(Event::of(Source::NotTaken)),
        (0x04c5, Codes::Skylake) => return sum(SourceSet::MISPREDICTED),
        // Ice Lake brings BR_MISP_RETIRED.COND, .COND_NTAKEN and .INDIRECT.
        (0x10c5 | 0x11c5 | 0x80c5, Codes::Skylake) => return None,
        // HW_INTERRUPTS is not in the list of Ice Lake.
        (0x01cb, Codes::IceLake) => return None,
        // Ice Lake brings BR_INST_RETIRED.COND and .INDIRECT, TOPDOWN.SLOTS_P and
        // .BACKEND_BOUND_SLOTS, Sapphire Rapids the others of TOPDOWN.
        (0x11c4 | 0x80c4 | 0x01a4 | 0x02a4, Codes::Skylake) => return None,
        (0x04a4 | 0x08a4 | 0x10a4, Codes::Skylake | Codes::IceLake) => return None,
        _ => {}
    }
    match event {
        // INST_RETIRED.ANY_P; CPU_CLK_UNHALTED.THREAD_P and .REF.
        0x00c0 => Some(INSTRUCTIONS),
        0x003c => instructions(weights.cycles),
        0x013c => instructions(weights.reference),
        // LONGEST_LAT_CACHE.REFERENCE and .MISS.
        0x4f2e | 0x412e => Some(Event::of(Source::Flushes)),
        // BR_INST_RETIRED.ALL_BRANCHES.
        0x00c4 => Some(Event::of(Source::Branches)),
        // BR_INST_RETIRED.COND_TAKEN, .COND_NTAKEN, .COND, .NEAR_CALL, .NEAR_RETURN, .NEAR_TAKEN,
        // .FAR_BRANCH, .INDIRECT.
        0x01c4 => Some(Event::of(Source::Taken)),
        0x10c4 => Some(Event::of(Source::NotTaken)),
        0x11c4 => sum(CONDITIONAL),
        0x02c4 => Some(Event::of(Source::Calls)),
        0x08c4 => Some(Event::of(Source::Returns)),
        0x20c4 => sum(SourceSet::of(Source::Taken)
            .with(Source::Jumps)
            .with(Source::Calls)
            .with(Source::Returns)),
        0x40c4 => Some(Event::of(Source::FarBranches)),
        0x80c4 => Some(Event::of(Source::Indirect)),
        // BR_MISP_RETIRED.ALL_BRANCHES, .COND_NTAKEN and .COND, .INDIRECT and .NEAR_TAKEN. (.COND_TAKEN
        // and .RET never happen.)
        0x00c5 => sum(SourceSet::MISPREDICTED),
        0x10c5 | 0x11c5 => Some(Event::of(Source::NotTaken)),
        0x80c5 | 0x20c5 => Some(Event::of(Source::Indirect)),
        // HW_INTERRUPTS.RECEIVED. Which mode they belong to no source says.
        0x01cb => Some(Event::of(Source::Interrupts)),
        // TOPDOWN.SLOTS_P, .BACKEND_BOUND_SLOTS, .BAD_SPEC_SLOTS, .BR_MISPREDICT_SLOTS,
        // .MEMORY_BOUND_SLOTS; IDQ_BUBBLES.CORE (IDQ_UOPS_NOT_DELIVERED.CORE before);
        // UOPS_RETIRED.SLOTS (.RETIRE_SLOTS on Skylake).
        0x01a4 | 0x02a4 | 0x04a4 | 0x08a4 | 0x10a4 | 0x019c | 0x02c2 => {
            instructions(weights.cycles * SLOTS_PER_CYCLE)
        }
        // MEM_INST_RETIRED.ALL_LOADS, .ALL_STORES, .ANY: who reads and writes counts in each.
        0x81d0 => sum(SourceSet::of(Source::Loads).with(Source::LoadStores)),
        0x82d0 => sum(SourceSet::of(Source::Stores).with(Source::LoadStores)),
        0x83d0 => sum(SourceSet::of(Source::Loads)
            .with(Source::Stores)
            .with(Source::LoadStores)),
        _ => None,
    }
}

/// The event of fixed counter `n`: instructions, cycles, reference cycles, slots.
pub(super) fn fixed(n: usize, weights: Weights) -> Option<Event> {
    match n {
        0 => Some(INSTRUCTIONS),
        1 => instructions(weights.cycles),
        2 => instructions(weights.reference),
        3 => instructions(weights.cycles * SLOTS_PER_CYCLE),
        _ => None,
    }
}
