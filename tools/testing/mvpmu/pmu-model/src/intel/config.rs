// SPDX-License-Identifier: GPL-2.0
//! What a PMU has, and how CPUID and IA32_PERF_CAPABILITIES say it.

use crate::RegisterMap;

/// IA32_PERF_CAPABILITIES: IA32_A_PMCx exist.
const CAP_FULL_WIDTH_WRITE: u64 = 1 << 13;
/// IA32_PERF_CAPABILITIES: PERF_METRICS exists.
const CAP_PERF_METRICS: u64 = 1 << 15;

/// What a PMU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Version of architectural performance monitoring, 2 to 5.
    pub version: u32,
    /// General purpose counters, at most 8.
    pub gp: usize,
    /// Fixed counters.
    pub fixed: usize,
    /// Metrics in PERF_METRICS, 4 or 8; 0: it does not exist. They are of what fixed counter 3 counts.
    pub metrics: usize,
    /// Whether counters can be written in full width.
    pub full_width_writes: bool,
    /// Whether it can store a trace of branches in memory (DS, DTES64 and DS-CPL in CPUID).
    pub bts: bool,
    /// Whether it has the architectural last branch records.
    pub lbr: bool,
    /// Whether it has PT.
    pub pt: bool,
    /// Architectural events, of which CPUID tells whether they are there: all are.
    pub events: u32,
    /// The codes of the other events.
    pub codes: Codes,
}

/// Whose the codes of events are that are not architectural.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Skylake's, and those of CPUs before.
    Skylake,
    /// Ice Lake's.
    IceLake,
    /// Sapphire Rapids'.
    SapphireRapids,
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
    /// Sapphire Rapids', but that the trace of branches is left out, so that a machine is as well
    /// without one.
    pub const SAPPHIRE_RAPIDS: Config = Config {
        metrics: 8,
        bts: false,
        lbr: true,
        codes: Codes::SapphireRapids,
        ..Config::ICELAKE
    };

    /// Ice Lake's: slots are counted, AnyThread is gone.
    pub const ICELAKE: Config = Config {
        version: 5,
        fixed: 4,
        metrics: 4,
        events: 8,
        pt: true,
        codes: Codes::IceLake,
        ..Config::SKYLAKE
    };

    /// Skylake's: GLOBAL_STATUS_SET is there, AnyThread still is.
    pub const SKYLAKE: Config = Config {
        version: 4,
        bts: true,
        ..Config::BROADWELL
    };

    /// Broadwell's: nothing to set GLOBAL_STATUS with. Its trace of branches is left out, too.
    pub const BROADWELL: Config = Config {
        version: 3,
        gp: 8,
        fixed: 3,
        metrics: 0,
        full_width_writes: true,
        bts: false,
        lbr: false,
        pt: false,
        events: 7,
        codes: Codes::Skylake,
    };

    /// CPUID.0AH:EDX\[15\].
    pub(super) fn any_thread_deprecated(&self) -> bool {
        self.version >= 5
    }

    /// CPUID leaf 0AH. EBX has a bit for each architectural event that is not there.
    pub fn cpuid_leaf_a(&self) -> CpuidLeaf {
        let width = <super::Intel as RegisterMap>::COUNTER_WIDTH;
        CpuidLeaf {
            eax: self.version | (self.gp as u32) << 8 | width << 16 | self.events << 24,
            ebx: 0,
            ecx: match self.version {
                5.. => (1 << self.fixed) - 1,
                _ => 0,
            },
            edx: self.fixed as u32 | width << 5 | u32::from(self.any_thread_deprecated()) << 15,
        }
    }

    /// IA32_PERF_CAPABILITIES: only what is there, hence no LBR format, which is that of records that
    /// are not architectural (what it is without those: no source), no PEBS, no freezing in SMM.
    pub fn capabilities(&self) -> u64 {
        let mut capabilities = 0;
        if self.full_width_writes {
            capabilities |= CAP_FULL_WIDTH_WRITE;
        }
        if self.metrics > 0 {
            capabilities |= CAP_PERF_METRICS;
        }
        capabilities
    }
}
