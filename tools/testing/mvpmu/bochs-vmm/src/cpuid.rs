// SPDX-License-Identifier: GPL-2.0

//! CPUID: the core's Sapphire Rapids, with what this machine has, without what
//! it has not, and by the name of the CPU that it is.

use std::ffi::c_void;

use pmu_model::intel;
use pmu_model::intel::Config;
use pmu_model::profile;
use pmu_model::profile::Signature;
use pmu_model::stats;
use pmu_model::stats::Instructions;

use crate::core;
use crate::core::CpuidLeaf;
use crate::cpus;
use crate::gather;
use crate::layout;
use crate::listing;
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

static SIGNATURE: SingleCell<&'static Signature> =
    SingleCell::new(&profile::SAPPHIRE_RAPIDS.signature);

/// Sets family, model, stepping and name.
pub fn set_signature(signature: &'static Signature) {
    SIGNATURE.set(signature);
}

/// The first leaf of the name, in words.
const BRAND: u32 = 0x8000_0002;

/// The characters of the name that a leaf has, four to a register.
fn brand(leaf: u32) -> CpuidLeaf {
    let mut text = [0; 48];
    let name = SIGNATURE.get().brand.as_bytes();
    text[..name.len()].copy_from_slice(name);
    let register = |n: usize| {
        let at = 16 * (leaf - BRAND) as usize + 4 * n;
        u32::from_le_bytes(text[at..at + 4].try_into().expect("four of them"))
    };
    CpuidLeaf {
        eax: register(0),
        ebx: register(1),
        ecx: register(2),
        edx: register(3),
    }
}

/// Leaf 1, ECX.
mod ecx1 {
    pub const DTES64: u32 = 1 << 2;
    pub const DS_CPL: u32 = 1 << 4;
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

/// Leaf 7, EDX: there are architectural last branch records.
const ARCH_LBR: u32 = 1 << 19;

/// Leaf 7, EBX: there is PT.
const PT: u32 = 1 << 25;

/// Leaf 7, EDX: the machine has core types that differ.
const HYBRID: u32 = 1 << 15;

/// Leaf 6, EAX: the APIC timer runs always.
const ARAT: u32 = 1 << 2;

/// Whether leaf 7 says so.
static IS_HYBRID: SingleCell<bool> = SingleCell::new(false);

/// Announces core types that differ, though the cores are alike.
pub fn set_hybrid(hybrid: bool) {
    IS_HYBRID.set(hybrid);
}

/// Each CPU is a core of its own, and all are in one package: what CPUID says of that (SDM volume 2,
/// CPUID, leaves 1, 4, 0BH and 1FH; the IDs are those of the local APICs).
fn place(leaf: u32, subleaf: u32, cpus: usize, id: u32, out: &mut CpuidLeaf) {
    const MULTIPLE: u32 = 1 << 28;
    const TYPE_THREAD: u32 = 1;
    const TYPE_CORE: u32 = 2;
    let ids = cpus.next_power_of_two() as u32;
    match leaf {
        0x1 if cpus > 1 => {
            out.ebx = out.ebx & 0xffff | ids << 16 | id << 24;
            out.edx |= MULTIPLE;
        }
        // A cache has one thread, but that of the last level, which all share.
        0x4 if cpus > 1 && out.eax & 0x1f != 0 => {
            let sharing = if out.eax >> 5 & 7 > 2 { ids } else { 1 };
            out.eax = out.eax & 0x3fff | (sharing - 1) << 14 | (ids - 1) << 26;
        }
        0xb | 0x1f if cpus > 1 => {
            let (shift, number, kind) = match subleaf {
                0 => (0, 1, TYPE_THREAD),
                1 => (ids.ilog2(), cpus as u32, TYPE_CORE),
                _ => (0, 0, 0),
            };
            *out = CpuidLeaf {
                eax: shift,
                ebx: number,
                ecx: subleaf & 0xff | kind << 8,
                edx: id,
            };
        }
        _ => {}
    }
}

/// A leaf that the PMU has.
fn of_pmu(leaf: impl FnOnce(&Config) -> Option<intel::CpuidLeaf>) -> CpuidLeaf {
    let leaf = pmu::config().and_then(|config| leaf(&config));
    leaf.map_or_else(CpuidLeaf::default, |leaf| CpuidLeaf {
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
    })
}

fn adjust(leaf: u32, subleaf: u32, out: &mut CpuidLeaf) {
    match leaf {
        0x1 => {
            out.eax = SIGNATURE.get().cpuid();
            out.ecx &= !(ecx1::MONITOR | ecx1::EIST | ecx1::TM2 | ecx1::PDCM);
            out.ecx &= !(ecx1::DTES64 | ecx1::DS_CPL);
            out.edx &= !(edx1::DS | edx1::ACPI | edx1::TM);
            if let Some(config) = pmu::config() {
                out.ecx |= ecx1::PDCM;
                if config.bts {
                    out.ecx |= ecx1::DTES64 | ecx1::DS_CPL;
                    out.edx |= edx1::DS;
                }
            }
        }
        0x5 => *out = CpuidLeaf::default(),
        0x6 => {
            *out = CpuidLeaf {
                eax: ARAT,
                ..CpuidLeaf::default()
            }
        }
        0x7 if subleaf == 0 => {
            out.ebx &= !PT;
            if pmu::config().is_some_and(|config| config.pt) {
                out.ebx |= PT;
            }
            out.edx &= !ARCH_LBR;
            if pmu::config().is_some_and(|config| config.lbr) {
                out.edx |= ARCH_LBR;
            }
            if IS_HYBRID.get() {
                out.edx |= HYBRID;
            }
        }
        0xa => *out = of_pmu(|config| Some(config.cpuid_leaf_a())),
        0x14 => *out = of_pmu(|config| config.cpuid_leaf_14(subleaf)),
        0x1c => *out = of_pmu(Config::cpuid_leaf_1c),
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
        BRAND..=0x8000_0004 => *out = brand(leaf),
        stats::LEAF => {
            sweep::mark(subleaf);
            listing::mark(subleaf);
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
    let out = unsafe { &mut *out };
    adjust(leaf, subleaf, out);
    place(leaf, subleaf, cpus::count(), cpus::current() as u32, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(leaf: u32, subleaf: u32, cpus: usize, out: CpuidLeaf) -> [u32; 4] {
        let mut out = out;
        place(leaf, subleaf, cpus, 2, &mut out);
        [out.eax, out.ebx, out.ecx, out.edx]
    }

    // Has to fail when the numbers of IDs and of CPUs are taken for each other.
    #[test]
    fn three_cpus_are_cores_of_a_package() {
        let features = CpuidLeaf {
            ebx: 0xff01_0800,
            ..CpuidLeaf::default()
        };
        assert_eq!(placed(1, 0, 3, features), [0, 0x0204_0800, 0, 1 << 28]);
        let none = CpuidLeaf::default();
        for leaf in [0xb, 0x1f] {
            assert_eq!(placed(leaf, 0, 3, none), [0, 1, 0x100, 2]);
            assert_eq!(placed(leaf, 1, 3, none), [2, 3, 0x201, 2]);
            assert_eq!(placed(leaf, 2, 3, none), [0, 0, 2, 2]);
        }
    }

    // Has to fail when a cache of the first level is shared, or there is one more.
    #[test]
    fn three_cpus_share_the_cache_of_the_last_level() {
        let cache = |eax| CpuidLeaf {
            eax,
            ..CpuidLeaf::default()
        };
        let eax = |of| placed(4, 0, 3, cache(of))[0];
        assert_eq!(eax(0x121), 3 << 26 | 0x121);
        assert_eq!(eax(0x163), 3 << 26 | 3 << 14 | 0x163);
        assert_eq!(eax(0), 0);
    }

    #[test]
    fn of_one_cpu_nothing_is_said() {
        for leaf in [1, 4, 0xb, 0x1f] {
            assert_eq!(placed(leaf, 0, 1, CpuidLeaf::default()), [0; 4]);
        }
    }
}
