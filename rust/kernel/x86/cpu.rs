// SPDX-License-Identifier: GPL-2.0

//! What the CPU is and can do.
//!
//! C header: [`arch/x86/include/asm/processor.h`](srctree/arch/x86/include/asm/processor.h)

use core::arch::x86_64::__cpuid;

/// The vendor, by the instruction set extensions it defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// AMD, and Hygon, whose CPUs follow AMD's manual.
    Amd,
    /// Intel.
    Intel,
    /// Any other.
    Other,
}

impl Vendor {
    /// The vendor of this machine's CPUs, by CPUID leaf 0: EBX, EDX and ECX spell its name.
    pub fn of_host() -> Self {
        let id = __cpuid(0);

        match [id.ebx, id.edx, id.ecx]
            .map(u32::to_le_bytes)
            .as_flattened()
        {
            b"AuthenticAMD" | b"HygonGenuine" => Self::Amd,
            b"GenuineIntel" => Self::Intel,
            _ => Self::Other,
        }
    }
}

/// Whether the CPU can run virtual machines: AMD SVM (APM volume 3, CPUID Fn8000_0001_ECX bit 2) or
/// Intel VMX (SDM volume 2, CPUID.01H:ECX bit 5).
pub fn has_virtualization() -> bool {
    match Vendor::of_host() {
        Vendor::Amd => __cpuid(0x8000_0001).ecx & (1 << 2) != 0,
        Vendor::Intel => __cpuid(1).ecx & (1 << 5) != 0,
        Vendor::Other => false,
    }
}

/// Whether the CPU mixes core types, whose PMUs differ (Intel SDM volume 2, CPUID.07H.0:EDX bit 15).
pub fn is_hybrid() -> bool {
    Vendor::of_host() == Vendor::Intel && __cpuid(7).edx & (1 << 15) != 0
}
