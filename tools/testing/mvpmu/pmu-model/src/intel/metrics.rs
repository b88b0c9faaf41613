// SPDX-License-Identifier: GPL-2.0
//! PERF_METRICS: what became of the slots that fixed counter 3 has counted.
//!
//! | rule | source |
//! |---|---|
//! | a byte for each metric, as a fraction of 0xff of all slots; the first four add up to all: retiring, bad speculation, front-end bound, back-end bound | SDM volume 3, "Performance Metrics"; Linux, arch/x86/events/intel/core.c: `icl_get_metrics_event_value()` |
//! | Sapphire Rapids has four more, parts of those: heavy operations, branch mispredicts, fetch latency, memory bound | the same; Linux: `INTEL_TD_METRIC_HEAVY_OPS` and those after it |
//! | it is derived from fixed counter 3: both are started from 0, or restored, together, the counter first | Linux: `icl_set_topdown_event_period()`, `intel_update_topdown_event()` |
//! | bit 48 of IA32_PERF_GLOBAL_CTRL enables it, bit 48 of IA32_PERF_GLOBAL_STATUS is its overflow | SDM volume 3, "Performance Metrics"; Linux: `GLOBAL_CTRL_EN_PERF_METRICS`, `GLOBAL_STATUS_PERF_METRICS_OVF_BIT` |
//! | RDPMC reads it with 2000_0000H in ECX | SDM volume 2, RDPMC; Linux: `INTEL_PMC_FIXED_RDPMC_METRICS` |
//!
//! Modelled, with no source that says it:
//!
//! * the slots of a branch are front-end bound, for the latency of a fetch, those of another
//!   instruction retire; no speculation is bad, nothing waits for memory;
//! * what is written is taken as shares of the value that was last *written* to fixed counter 3. So
//!   shares that are written before that count for too much or too little, until both are written
//!   anew;
//! * it overflows when fixed counter 3 does, and a byte that is no metric cannot be written.

/// Metrics of the first level.
const LEVEL_1: usize = 4;
/// The one of slots that retire.
const RETIRING: usize = 0;
/// The one of slots that wait for the front end.
const FRONT_END: usize = 2;
/// Of the second level: the part of those that wait for a fetch.
const FETCH_LATENCY: usize = 6;
/// All slots.
const ALL: u64 = 0xff;

/// The slots behind the register.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    /// The value that was written to fixed counter 3 last.
    written: u64,
    /// All slots.
    slots: u64,
    /// Those of each metric of the first level.
    of: [u64; LEVEL_1],
}

/// `part` of `whole` as a part of `of`, rounded.
fn share(part: u64, whole: u64, of: u64) -> u64 {
    let (part, whole, of) = (u128::from(part), u128::from(whole), u128::from(of));
    ((part * of + whole / 2) / whole) as u64
}

impl Metrics {
    /// Fixed counter 3 is written.
    pub(super) fn counter_written(&mut self, value: u64) {
        self.written = value;
    }

    /// PERF_METRICS is written.
    pub(super) fn written(&mut self, value: u64) {
        self.slots = self.written;
        for (n, of) in self.of.iter_mut().enumerate() {
            *of = share(value >> (8 * n) & 0xff, ALL, self.written);
        }
    }

    /// So many slots more, of which those wait for the front end; what the register is then, with so
    /// many bytes.
    pub(super) fn counted(&mut self, slots: u64, front_end: u64, bytes: usize) -> u64 {
        self.slots = self.slots.saturating_add(slots);
        self.of[FRONT_END] += front_end;
        self.of[RETIRING] += slots - front_end;
        let mut shares = self.of.map(|of| share(of, self.slots, ALL));
        let others = shares[RETIRING + 1..].iter().sum();
        shares[RETIRING] = ALL.saturating_sub(others);
        let level_1 = (0..LEVEL_1).fold(0, |value, n| value | (shares[n] & 0xff) << (8 * n));
        match bytes {
            0..=LEVEL_1 => level_1,
            _ => level_1 | shares[FRONT_END] << (8 * FETCH_LATENCY),
        }
    }
}
