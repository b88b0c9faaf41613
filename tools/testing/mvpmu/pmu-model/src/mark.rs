// SPDX-License-Identifier: GPL-2.0
//! Places in a run that a guest has marked, with what the machine had counted by then.
//!
//! A guest marks a place by CPUID of the machine's own leaf ([`crate::stats::LEAF`]), which KVM
//! intercepts; ECX is the number of the mark. It learns nothing, and nothing of it is changed: the
//! machine writes the marks into its statistics at the end.

use serde::Serialize;

use crate::stats::LEAF;
use crate::Class;
use crate::Operations;
use crate::Stats;

/// A place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// What the guest calls it.
    pub number: u32,
    /// Instructions that have retired on the CPU so far, of each class.
    pub retired: [u64; Class::COUNT],
    /// Operations in host mode so far.
    pub host: Operations,
    /// VM exits so far.
    pub vm_exits: u64,
    /// PMIs so far.
    pub pmi: u64,
}

impl Mark {
    /// The mark, if a CPUID of a guest with these registers is one.
    pub fn of(eax: u32, ecx: u32, retired: [u64; Class::COUNT], stats: &Stats) -> Option<Mark> {
        (eax == LEAF).then_some(Mark {
            number: ecx,
            retired,
            host: stats.host,
            vm_exits: stats.vm_exits,
            pmi: stats.pmi,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when any CPUID is a mark, or when it has the wrong counts.
    #[test]
    fn a_mark_is_what_was_counted_by_then() {
        let stats = Stats {
            vm_exits: 3,
            pmi: 4,
            ..Stats::default()
        };
        assert_eq!(Mark::of(0, 1, [2; 4], &stats), None);
        let marks: Vec<_> = (1..3)
            .filter_map(|n| Mark::of(LEAF, n, [2; 4], &stats))
            .collect();
        let mark = |number| Mark {
            number,
            retired: [2; 4],
            host: Operations::default(),
            vm_exits: 3,
            pmi: 4,
        };
        assert_eq!(marks, [mark(1), mark(2)]);
    }
}
