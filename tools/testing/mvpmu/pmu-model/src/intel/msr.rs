// SPDX-License-Identifier: GPL-2.0
//! Numbers of the registers (SDM volume 4, "IA-32 Architectural MSRs").

/// IA32_PMC0; the others follow.
pub const PMC0: u32 = 0xc1;
/// IA32_PERFEVTSEL0; the others follow.
pub const PERFEVTSEL0: u32 = 0x186;
/// IA32_DEBUGCTL. Not a register of the PMU: see [`Intel::set_debugctl`](super::Intel::set_debugctl).
pub const DEBUGCTL: u32 = 0x1d9;
/// IA32_FIXED_CTR0; the others follow.
pub const FIXED_CTR0: u32 = 0x309;
/// PERF_METRICS.
pub const PERF_METRICS: u32 = 0x329;
/// IA32_PERF_CAPABILITIES.
pub const PERF_CAPABILITIES: u32 = 0x345;
/// IA32_RTIT_OUTPUT_BASE.
pub const RTIT_OUTPUT_BASE: u32 = 0x560;
/// IA32_RTIT_OUTPUT_MASK_PTRS.
pub const RTIT_OUTPUT_MASK_PTRS: u32 = 0x561;
/// IA32_RTIT_CTL.
pub const RTIT_CTL: u32 = 0x570;
/// IA32_RTIT_STATUS.
pub const RTIT_STATUS: u32 = 0x571;
/// IA32_RTIT_CR3_MATCH.
pub const RTIT_CR3_MATCH: u32 = 0x572;
/// IA32_RTIT_ADDR0_A; IA32_RTIT_ADDR0_B and the others follow.
pub const RTIT_ADDR0_A: u32 = 0x580;
/// IA32_DS_AREA: no PMU register to the oracle, nor counted as one.
pub const DS_AREA: u32 = 0x600;
/// IA32_FIXED_CTR_CTRL.
pub const FIXED_CTR_CTRL: u32 = 0x38d;
/// IA32_PERF_GLOBAL_STATUS.
pub const GLOBAL_STATUS: u32 = 0x38e;
/// IA32_PERF_GLOBAL_CTRL.
pub const GLOBAL_CTRL: u32 = 0x38f;
/// IA32_PERF_GLOBAL_STATUS_RESET, called IA32_PERF_GLOBAL_OVF_CTRL below version 4.
pub const GLOBAL_STATUS_RESET: u32 = 0x390;
/// IA32_PERF_GLOBAL_STATUS_SET.
pub const GLOBAL_STATUS_SET: u32 = 0x391;
/// IA32_PERF_GLOBAL_INUSE.
pub const GLOBAL_INUSE: u32 = 0x392;
/// IA32_A_PMC0: IA32_PMC0 in full width; the others follow.
pub const A_PMC0: u32 = 0x4c1;
/// IA32_LBR_0_INFO; the others follow.
pub const LBR_INFO0: u32 = 0x1200;
/// IA32_LBR_CTL.
pub const LBR_CTL: u32 = 0x14ce;
/// IA32_LBR_DEPTH.
pub const LBR_DEPTH: u32 = 0x14cf;
/// IA32_LBR_0_FROM_IP; the others follow.
pub const LBR_FROM0: u32 = 0x1500;
/// IA32_LBR_0_TO_IP; the others follow.
pub const LBR_TO0: u32 = 0x1600;
