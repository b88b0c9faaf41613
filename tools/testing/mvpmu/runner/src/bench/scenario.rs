// SPDX-License-Identifier: GPL-2.0

//! Why the guest exits.

/// What a guest does.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// For the job.
    pub name: &'static str,
    /// In words, and in more of them where there is room.
    pub words: &'static str,
    pub more: &'static str,
    /// VM exits of what it does once: these, and those of a timer tick now and then. None, if it is
    /// some.
    pub exits: Option<u64>,
}

pub const CPUID_CYCLES: Scenario = Scenario {
    name: "cpuid",
    words: "CPUID, cycles",
    more: "CPUID, counting cycles",
    exits: Some(1),
};
pub const CPUID_INSTRUCTIONS: Scenario = Scenario {
    name: "cpuid_insn",
    words: "CPUID, instructions",
    more: "CPUID, counting instructions",
    exits: Some(1),
};

/// Those in which instructions are of interest: nothing else runs in between.
pub const CPUID: [Scenario; 2] = [CPUID_CYCLES, CPUID_INSTRUCTIONS];

pub const IO: Scenario = Scenario {
    name: "io",
    words: "port I/O",
    more: "port I/O, to userspace",
    exits: Some(1),
};

pub const SHARE: Scenario = Scenario {
    name: "share",
    words: "two vCPUs, one CPU",
    more: "two vCPUs on one CPU, for both",
    exits: Some(2),
};

/// Not for a guest without a PMU.
pub const SELECTOR: Scenario = Scenario {
    name: "selector",
    words: "selector",
    more: "write of an event selector, disabling and enabling a counter in turns",
    exits: Some(1),
};

/// Nor is this.
pub const FEWER: Scenario = Scenario {
    name: "fewer",
    words: "fewer counters",
    more:
        "RDPMC and a write of the global control in turns, with 4 of the general purpose counters",
    exits: Some(1),
};

/// Of a guest that records branches, each with the same of one that does not. For those whom the provider
/// gives a branch stack.
pub const RECORDING: [(Scenario, Scenario); 3] = [
    (
        Scenario {
            name: "cpuid_branches",
            words: "CPUID, branches",
            more: "CPUID, counting cycles and recording branches",
            exits: Some(1),
        },
        CPUID_CYCLES,
    ),
    (
        Scenario {
            name: "io_branches",
            words: "port I/O, branches",
            more: "port I/O, recording branches",
            exits: Some(1),
        },
        IO,
    ),
    (
        Scenario {
            name: "share_branches",
            words: "two vCPUs, branches",
            more: "two vCPUs on one CPU, recording branches",
            exits: Some(2),
        },
        SHARE,
    ),
];

/// What is measured with the provider on the machine, of these.
pub fn with_branches(provider: &str, of: &[Scenario]) -> Vec<Scenario> {
    let mut all = of.to_vec();
    if provider == "mvpmu" {
        all.extend(RECORDING.map(|(recording, _)| recording));
    }
    all
}

/// All there are else.
pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "ept",
        words: "page fault",
        more: "page fault of the guest",
        exits: Some(1),
    },
    CPUID_CYCLES,
    CPUID_INSTRUCTIONS,
    IO,
    Scenario {
        name: "halt",
        words: "halt and wake-up",
        more: "halt and wake-up, all exits of it",
        exits: None,
    },
    SHARE,
    SELECTOR,
    FEWER,
];
