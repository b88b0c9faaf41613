// SPDX-License-Identifier: GPL-2.0

//! CPUID: the core's Sapphire Rapids, with what this machine has and without
//! what it has not.

use std::ffi::c_void;

use pmu_model::stats;
use pmu_model::stats::Instructions;

use crate::core;
use crate::core::CpuidLeaf;
use crate::gather;
use crate::layout;
use crate::pmu;
use crate::single::SingleCell;
use crate::sweep;
use crate::timers;

static MHZ: SingleCell<u32> = SingleCell::new(timers::TSC_MHZ);

/// Sets the frequency of the TSC.
pub fn set_tsc_mhz(mhz: u32) {
    MHZ.set(mhz);
}

/// The frequency of the TSC.
pub fn tsc_mhz() -> u32 {
    MHZ.get()
}

/// Leaf 1, ECX.
mod ecx1 {
    pub const MONITOR: u32 = 1 << 3;
    pub const EIST: u32 = 1 << 7;
    pub const TM2: u32 = 1 << 8;
    pub const PDCM: u32 = 1 << 15;
}

/// Leaf 1, EDX.
mod edx1 {
    pub const DS: u32 = 1 << 21;
    pub const ACPI: u32 = 1 << 22;
    pub const TM: u32 = 1 << 29;
}

/// Leaf 7, EDX: the machine has core types that differ.
const HYBRID: u32 = 1 << 15;

/// Leaf 6, EAX: the APIC timer runs always.
const ARAT: u32 = 1 << 2;

/// Whether leaf 7 says so.
static IS_HYBRID: SingleCell<bool> = SingleCell::new(false);

/// Announces core types that differ, though there is one core.
pub fn set_hybrid(hybrid: bool) {
    IS_HYBRID.set(hybrid);
}

fn adjust(leaf: u32, subleaf: u32, out: &mut CpuidLeaf) {
    match leaf {
        0x1 => {
            out.ecx &= !(ecx1::MONITOR | ecx1::EIST | ecx1::TM2 | ecx1::PDCM);
            out.edx &= !(edx1::DS | edx1::ACPI | edx1::TM);
            if pmu::config().is_some() {
                out.ecx |= ecx1::PDCM;
            }
        }
        0x5 => *out = CpuidLeaf::default(),
        0x6 => {
            *out = CpuidLeaf {
                eax: ARAT,
                ..CpuidLeaf::default()
            }
        }
        0x7 if subleaf == 0 && IS_HYBRID.get() => out.edx |= HYBRID,
        0xa => {
            *out = pmu::config().map_or_else(CpuidLeaf::default, |config| {
                let leaf = config.cpuid_leaf_a();
                CpuidLeaf {
                    eax: leaf.eax,
                    ebx: leaf.ebx,
                    ecx: leaf.ecx,
                    edx: leaf.edx,
                }
            });
        }
        // TSC = crystal * EBX / EAX.
        0x15 => {
            *out = CpuidLeaf {
                eax: 1,
                ebx: 1,
                ecx: tsc_mhz() * 1_000_000,
                edx: 0,
            }
        }
        0x16 => {
            *out = CpuidLeaf {
                eax: tsc_mhz(),
                ebx: tsc_mhz(),
                ecx: tsc_mhz(),
                edx: 0,
            }
        }
        stats::LEAF => {
            sweep::mark(subleaf);
            let stats = pmu::stats().unwrap_or_default();
            let instructions = Instructions {
                all: layout::ICOUNT.get(),
                retired: gather::retired(),
            };
            let [eax, ebx, ecx, edx] = stats.leaf(subleaf, &instructions);
            *out = CpuidLeaf { eax, ebx, ecx, edx };
        }
        _ => {}
    }
}

/// Replaces `sapphire_rapids_t::get_cpuid_leaf(leaf, subleaf, out)`.
#[export_name = "_ZNK17sapphire_rapids_t14get_cpuid_leafEjjP16cpuid_function_t"]
unsafe extern "C-unwind" fn get_cpuid_leaf(
    model: *const c_void,
    leaf: u32,
    subleaf: u32,
    out: *mut CpuidLeaf,
) {
    core::core_cpuid_leaf(model, leaf, subleaf, out);
    // SAFETY: The core passes its own four registers.
    adjust(leaf, subleaf, unsafe { &mut *out });
}
