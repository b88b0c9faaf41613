// SPDX-License-Identifier: GPL-2.0
//! Bits of the registers, whose sources stand in `pt.rs`.

/// IA32_RTIT_CTL.
pub mod control {
    pub const TRACE_EN: u64 = 1 << 0;
    pub const CYC_EN: u64 = 1 << 1;
    pub const OS: u64 = 1 << 2;
    pub const USER: u64 = 1 << 3;
    pub const CR3_FILTER: u64 = 1 << 7;
    pub const TOPA: u64 = 1 << 8;
    pub const TSC_EN: u64 = 1 << 10;
    pub const DIS_RETC: u64 = 1 << 11;
    pub const BRANCH_EN: u64 = 1 << 13;
    pub const CYC_THRESH_SHIFT: u32 = 19;
    pub const PSB_FREQ_SHIFT: u32 = 24;
    /// The first of the fields of 4 bits that say what a range is for.
    pub const ADDR_CFG_SHIFT: u32 = 32;
    const SWITCHES: u64 =
        TRACE_EN | CYC_EN | OS | USER | CR3_FILTER | TOPA | TSC_EN | DIS_RETC | BRANCH_EN;
    const RANGES: u64 = (1 << (4 * super::super::PT_RANGES)) - 1;
    /// What there is.
    pub const DEFINED: u64 =
        SWITCHES | 0xf << CYC_THRESH_SHIFT | 0xf << PSB_FREQ_SHIFT | RANGES << ADDR_CFG_SHIFT;
    /// What firmware may have left.
    pub const SCRAMBLED: u64 = SWITCHES & !TRACE_EN;
}

/// What a range is for; 0: nothing.
pub mod range {
    /// What is in it is traced.
    pub const FILTER: u64 = 1;
    /// Tracing stops where it begins.
    pub const STOP: u64 = 2;
}

/// IA32_RTIT_STATUS.
pub mod status {
    pub const FILTER_EN: u64 = 1 << 0;
    pub const CONTEXT_EN: u64 = 1 << 1;
    pub const TRIGGER_EN: u64 = 1 << 2;
    pub const ERROR: u64 = 1 << 4;
    pub const STOPPED: u64 = 1 << 5;
    pub const BYTE_CNT_SHIFT: u32 = 32;
    pub const BYTE_CNT: u64 = 0x1_ffff << BYTE_CNT_SHIFT;
    /// The CPU's own.
    pub const READ_ONLY: u64 = FILTER_EN | CONTEXT_EN | TRIGGER_EN;
    /// Software's, too.
    pub const WRITABLE: u64 = ERROR | STOPPED | BYTE_CNT;
}

/// IA32_RTIT_OUTPUT_MASK_PTRS.
pub mod mask_ptrs {
    pub const LOWER_MASK: u64 = 0x7f;
    /// MaskOrTableOffset with the lower mask, and without.
    pub const NOT_OFFSET: u64 = 0xffff_ffff;
    pub const INDEX_SHIFT: u32 = 7;
    pub const OFFSET_SHIFT: u32 = 32;
}

/// CPUID.14H.1:EBX\[31:16\]: PSBFreq can be 0 to 5.
pub const PSB_FREQUENCIES: u32 = 0x3f;
/// CPUID.14H.1:EBX\[15:0\]: CycThresh can be 0.
pub const CYCLE_THRESHOLDS: u32 = 1;
