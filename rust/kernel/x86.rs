// SPDX-License-Identifier: GPL-2.0

//! x86 specifics.

pub mod cpu;
pub mod msr;
pub mod pmu;
pub mod tsc;
pub mod vmx;
