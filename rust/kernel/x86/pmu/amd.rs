// SPDX-License-Identifier: GPL-2.0

//! The registers of AMD's PerfMonV2 (APM volume 2, "Performance Monitoring Counters").

use super::{
    Register,
    RegisterArray, //
};
use crate::x86::msr::{
    ReadOnly,
    WriteOnly, //
};

/// Core counters there can be.
const COUNTERS: u32 = bindings::AMD64_NUM_COUNTERS_CORE;

// SAFETY: The registers of the core PMU only count and raise PMIs; AMD's has no debug store. That
// holds for all definitions of this module.
/// `PERF_CTLn`, the event selectors.
pub const PERF_CTL: RegisterArray =
    unsafe { RegisterArray::new(bindings::MSR_F15H_PERF_CTL, 2, COUNTERS) };

/// The other numbers of the first selectors (`PerfEvtSel0` to 3).
pub const LEGACY_PERF_CTL: core::ops::Range<u32> =
    bindings::MSR_K7_EVNTSEL0..bindings::MSR_K7_EVNTSEL0 + bindings::AMD64_NUM_COUNTERS;

// SAFETY: As above.
/// `PERF_CTRn`, the counters, 48 bits.
pub const PERF_CTR: RegisterArray =
    unsafe { RegisterArray::new(bindings::MSR_F15H_PERF_CTR, 2, COUNTERS) };

// SAFETY: As above.
/// `PerfCntrGlobalStatus`: bit n, counter n overflowed.
pub const GLOBAL_STATUS: Register<ReadOnly> =
    unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS) };

// SAFETY: As above.
/// `PerfCntrGlobalCtl`: bit n enables counter n.
pub const GLOBAL_CTL: Register = unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_CTL) };

// SAFETY: As above.
/// `PerfCntrGlobalStatusClr`: ones clear bits of the status.
pub const GLOBAL_STATUS_CLR: Register<WriteOnly> =
    unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR) };

// SAFETY: As above.
/// `PerfCntrGlobalStatusSet`: ones set bits of the status.
pub const GLOBAL_STATUS_SET: Register<WriteOnly> =
    unsafe { Register::new(bindings::MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_SET) };
