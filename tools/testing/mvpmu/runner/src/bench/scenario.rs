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
}

pub const CPUID_CYCLES: Scenario = Scenario {
    name: "cpuid",
    words: "CPUID, cycles",
    more: "CPUID, counting cycles",
};
pub const CPUID_INSTRUCTIONS: Scenario = Scenario {
    name: "cpuid_insn",
    words: "CPUID, instructions",
    more: "CPUID, counting instructions",
};

/// Those in which instructions are of interest: nothing else runs in between.
pub const CPUID: [Scenario; 2] = [CPUID_CYCLES, CPUID_INSTRUCTIONS];

pub const IO: Scenario = Scenario {
    name: "io",
    words: "port I/O",
    more: "port I/O, to userspace",
};

pub const SHARE: Scenario = Scenario {
    name: "share",
    words: "two vCPUs, one CPU",
    more: "two vCPUs on one CPU, for both",
};

/// All there are.
pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "ept",
        words: "page fault",
        more: "page fault of the guest",
    },
    CPUID_CYCLES,
    CPUID_INSTRUCTIONS,
    IO,
    Scenario {
        name: "halt",
        words: "halt and wake-up",
        more: "halt and wake-up, all exits of it",
    },
    SHARE,
];
