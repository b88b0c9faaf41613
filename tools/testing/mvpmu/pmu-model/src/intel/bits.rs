// SPDX-License-Identifier: GPL-2.0
//! Bits of the registers, whose sources stand in `intel.rs`.

/// IA32_PERFEVTSELx: fields beside the event.
pub mod evtsel {
    pub const USR: u64 = 1 << 16;
    pub const OS: u64 = 1 << 17;
    pub const EDGE: u64 = 1 << 18;
    pub const INT: u64 = 1 << 20;
    pub const ANY_THREAD: u64 = 1 << 21;
    pub const EN: u64 = 1 << 22;
    pub const INV: u64 = 1 << 23;
    pub const CMASK_SHIFT: u32 = 24;
    pub const DEFINED: u64 = 0xffff_ffff;
    pub const SELECT: u64 = 0xff;
}

/// IA32_FIXED_CTR_CTRL: the four bits of one counter.
pub mod fixed {
    pub const BITS: usize = 4;
    pub const OS: u64 = 1 << 0;
    pub const USR: u64 = 1 << 1;
    pub const ANY_THREAD: u64 = 1 << 2;
    pub const PMI: u64 = 1 << 3;
}

/// IA32_PERF_GLOBAL_STATUS: bits that are no counter's.
pub mod status {
    /// An output region of PT was filled that asks for a PMI.
    pub const TRACE_TOPA_PMI: u64 = 1 << 55;
    /// LBRs are frozen.
    pub const LBR_FRZ: u64 = 1 << 58;
    /// Counters are frozen.
    pub const CTR_FRZ: u64 = 1 << 59;
    /// An uncore counter overflowed.
    pub const OVF_UNCORE: u64 = 1 << 61;
    /// The debug store buffer overflowed.
    pub const OVF_BUF: u64 = 1 << 62;
    /// The state of the counters may have changed unseen.
    pub const COND_CHGD: u64 = 1 << 63;
}
