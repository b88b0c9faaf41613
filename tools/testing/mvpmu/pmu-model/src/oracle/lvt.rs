// SPDX-License-Identifier: GPL-2.0
//! The local APIC's entry for PMIs. SDM volume 3, "Local Vector Table".

/// LVT: delivery mode.
pub const MODE: u32 = 7 << 8;
/// LVT: delivery mode fixed.
pub const FIXED: u32 = 0;
/// LVT: delivery mode NMI.
pub const NMI: u32 = 4 << 8;
/// LVT: the vector.
pub const VECTOR: u32 = 0xff;
/// The first vector that there is.
pub const FIRST_VECTOR: u32 = 16;
/// LVT: masked.
pub const MASKED: u32 = 1 << 16;
