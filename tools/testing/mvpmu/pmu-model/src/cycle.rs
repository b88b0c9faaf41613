// SPDX-License-Identifier: GPL-2.0
//! Counting cycles in which something holds, rather than events.

/// A condition on the number of events in one cycle (CMASK, INV and E of an event selector).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CycleRule {
    /// At least so many events; 0: at least one, not inverted.
    pub at_least: u64,
    /// Fewer than so many instead.
    pub inverted: bool,
    /// Count not the cycles in which it holds but how often it begins to hold.
    pub edge: bool,
}

impl CycleRule {
    /// How far the counter moves. `cycles` is 1, or 0 when no cycle passed; `asserted` is whether
    /// the condition held in the cycle before.
    pub(crate) fn counts(self, cycles: u64, events: u64, asserted: &mut bool) -> u64 {
        debug_assert!(cycles <= 1, "a cycle rule needs a fold after each cycle");
        if cycles == 0 {
            return 0;
        }
        let holds = match (self.at_least, self.inverted) {
            (0, _) => events > 0,
            (n, false) => events >= n,
            (n, true) => events < n,
        };
        let began = holds && !*asserted;
        *asserted = holds;
        u64::from(if self.edge { began } else { holds })
    }
}
