// SPDX-License-Identifier: GPL-2.0
//! What a PMU has, and how CPUID and IA32_PERF_CAPABILITIES say it.

use crate::RegisterMap;

/// IA32_PERF_CAPABILITIES: IA32_A_PMCx exist.
const CAP_FULL_WIDTH_WRITE: u64 = 1 << 13;

/// What a PMU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Version of architectural performance monitoring, 2 to 5.
    pub version: u32,
    /// General purpose counters, at most 8.
    pub gp: usize,
    /// Fixed counters.
    pub fixed: usize,
    /// Whether counters can be written in full width.
    pub full_width_writes: bool,
}

/// The registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl Config {
    /// The PMU of Sapphire Rapids.
    pub const V5: Config = Config {
        version: 5,
        gp: 8,
        fixed: 4,
        full_width_writes: true,
    };

    /// The PMU of Skylake: GLOBAL_STATUS_SET is there, AnyThread still is.
    pub const V4: Config = Config {
        version: 4,
        gp: 8,
        fixed: 3,
        full_width_writes: true,
    };

    /// The PMU of Broadwell: nothing to set GLOBAL_STATUS with.
    pub const V3: Config = Config {
        version: 3,
        gp: 8,
        fixed: 3,
        full_width_writes: true,
    };

    /// CPUID.0AH:EDX\[15\].
    pub(super) fn any_thread_deprecated(&self) -> bool {
        self.version >= 5
    }

    /// CPUID leaf 0AH. All eight architectural events are there; EBX has a bit for each that is
    /// not.
    pub fn cpuid_leaf_a(&self) -> CpuidLeaf {
        const EVENTS: u32 = 8;
        let width = <super::Intel as RegisterMap>::COUNTER_WIDTH;
        CpuidLeaf {
            eax: self.version | (self.gp as u32) << 8 | width << 16 | EVENTS << 24,
            ebx: 0,
            ecx: match self.version {
                5.. => (1 << self.fixed) - 1,
                _ => 0,
            },
            edx: self.fixed as u32 | width << 5 | u32::from(self.any_thread_deprecated()) << 15,
        }
    }

    /// IA32_PERF_CAPABILITIES: only what is there, hence no LBR format, no PEBS, no freezing in
    /// SMM, no PERF_METRICS.
    pub fn capabilities(&self) -> u64 {
        match self.full_width_writes {
            true => CAP_FULL_WIDTH_WRITE,
            false => 0,
        }
    }
}
