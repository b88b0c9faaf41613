// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR: the PMU's registers, IA32_DEBUGCTL, what the VMX capability
//! registers say, and the few that Linux wants and the core lacks.

use std::ops::RangeInclusive;

use pmu_model::intel::msr;
use pmu_model::intel::Codes;
use pmu_model::intel::Intel;
use pmu_model::Fault;

use crate::capability;
use crate::capability::Vmx;
use crate::core;
use crate::cpuid;
use crate::log;
use crate::oracle;
use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;
use crate::pmu;
use crate::quirks;
use crate::single::SingleCell;

/// IA32_PLATFORM_ID.
const PLATFORM_ID: u32 = 0x17;
/// MSR_TEST_CTRL.
const TEST_CTRL: u32 = 0x33;
/// MSR_SMI_COUNT.
const SMI_COUNT: u32 = 0x34;
/// IA32_BIOS_UPDT_TRIG.
const BIOS_UPDATE_TRIGGER: u32 = 0x79;
/// IA32_BIOS_SIGN_ID: the microcode revision is in the high half.
const BIOS_SIGN_ID: u32 = 0x8b;
const MICROCODE_REVISION: u64 = 0x2b00_0fff;
/// MSR_PLATFORM_INFO: the ratio to 100 MHz is in bits 15:8.
const PLATFORM_INFO: u32 = 0xce;
/// IA32_MCG_STATUS: there are no banks.
const MCG_STATUS: u32 = 0x17a;
/// MISC_FEATURES_ENABLES.
const MISC_FEATURES_ENABLES: u32 = 0x140;
/// IA32_MISC_ENABLE.
const MISC_ENABLE: u32 = 0x1a0;

mod misc_enable {
    pub const FAST_STRING: u64 = 1 << 0;
    pub const PERFMON_AVAILABLE: u64 = 1 << 7;
    pub const BTS_UNAVAILABLE: u64 = 1 << 11;
    pub const PEBS_UNAVAILABLE: u64 = 1 << 12;
}

/// IA32_DEBUGCTL: LBR and BTF, kept but without effect: KVM and Linux write
/// back what they read.
const DEBUGCTL_KEPT: u64 = 0b11;

/// MSR_LBR_SELECT and MSR_LASTBRANCH_TOS; of each of 32 last branches from where, to where, and more.
const LAST_BRANCHES: [RangeInclusive<u32>; 4] =
    [0x1c8..=0x1c9, 0x680..=0x69f, 0x6c0..=0x6df, 0xdc0..=0xddf];

/// Whether this is a register of the last branches, which the CPUs before Sapphire Rapids have, says
/// Linux by their models (arch/x86/events/intel/lbr.c): it resets them. No branch is recorded.
fn is_last_branch(index: u32) -> bool {
    pmu::config().is_some_and(|config| config.codes != Codes::SapphireRapids)
        && LAST_BRANCHES.iter().any(|range| range.contains(&index))
}

static VMX: SingleCell<Vmx> = SingleCell::new(Vmx::FULL);
static DEBUGCTL: CpuCell<u64> = CpuCell::new(0);

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 1] = [&DEBUGCTL];

/// Sets which controls the capability registers report.
pub fn set_vmx(vmx: Vmx) {
    VMX.set(vmx);
}

/// IA32_DEBUGCTL. A PMI may have changed it.
pub fn debugctl() -> u64 {
    pmu::with(|pmu| pmu.map().debugctl()).unwrap_or_else(|| DEBUGCTL.get())
}

/// Whether IA32_DEBUGCTL can have this value.
pub fn is_valid_debugctl(value: u64) -> bool {
    let of_pmu = pmu::with(|pmu| Intel::DEBUGCTL_DEFINED | pmu.map().debugctl_of_trace());
    value & !(DEBUGCTL_KEPT | of_pmu.unwrap_or(0)) == 0
}

/// Writes IA32_DEBUGCTL.
pub fn set_debugctl(value: u64) -> Result<(), Fault> {
    if !is_valid_debugctl(value) {
        return Err(Fault::GeneralProtection);
    }
    DEBUGCTL.set(value);
    pmu::set_debugctl(value);
    Ok(())
}

/// RDMSR of IA32_DS_AREA; `None` when it does not exist.
fn ds_area() -> Option<u64> {
    pmu::with(|pmu| pmu.map().ds_area()).flatten()
}

/// WRMSR of IA32_DS_AREA, which takes canonical addresses (SDM volume 4).
fn set_ds_area(value: u64) -> Result<(), Fault> {
    let is_canonical = value.cast_signed() << 16 >> 16 == value.cast_signed();
    if !is_canonical {
        return Err(Fault::GeneralProtection);
    }
    pmu::with(|pmu| pmu.map_mut().set_ds_area(value));
    Ok(())
}

/// Replaces `BX_CPU_C::rdmsr(index, value)`; false is #GP.
#[export_name = "_ZN8BX_CPU_C5rdmsrEjPm"]
unsafe extern "C-unwind" fn rdmsr(index: u32, value: *mut u64) -> bool {
    let ours = match index {
        msr::DEBUGCTL => Some(Ok(debugctl())),
        msr::DS_AREA if ds_area().is_some() => ds_area().map(Ok),
        _ => pmu::rdmsr(index),
    };
    let result = match ours {
        Some(result) => {
            oracle::follow();
            result.ok()
        }
        None => {
            let mut found = 0;
            let hidden = u64::from(quirks::hidden_controls(index)) << 32;
            core::core_rdmsr(index, &mut found).then(|| {
                let found = capability::completed(index, found);
                capability::offered(index, found, VMX.get()) & !hidden
            })
        }
    };
    match result {
        Some(found) => {
            // SAFETY: The core passes its own variable.
            unsafe { value.write(found) };
            true
        }
        None => false,
    }
}

/// Replaces `BX_CPU_C::wrmsr(index, value)`; false is #GP.
#[export_name = "_ZN8BX_CPU_C5wrmsrEjm"]
extern "C-unwind" fn wrmsr(index: u32, value: u64) -> bool {
    let ours = match index {
        msr::DEBUGCTL => {
            let result = set_debugctl(value);
            pmu::debugctl_written();
            Some(result)
        }
        msr::DS_AREA if ds_area().is_some() => Some(set_ds_area(value)),
        _ => pmu::wrmsr(index, value),
    };
    match ours {
        Some(result) => {
            oracle::follow();
            result.is_ok()
        }
        None => core::core_wrmsr(index, value),
    }
}

/// Replaces `BX_CPU_C::handle_unknown_rdmsr(index, value)`.
#[export_name = "_ZN8BX_CPU_C20handle_unknown_rdmsrEjPm"]
unsafe extern "C-unwind" fn unknown_rdmsr(index: u32, value: *mut u64) -> bool {
    let found = match index {
        PLATFORM_ID | TEST_CTRL | SMI_COUNT | MCG_STATUS | MISC_FEATURES_ENABLES => 0,
        _ if is_last_branch(index) => 0,
        BIOS_SIGN_ID => MICROCODE_REVISION << 32,
        PLATFORM_INFO => u64::from(cpuid::tsc_mhz() / 100) << 8 | 1 << 31,
        MISC_ENABLE => {
            let unavailable = match pmu::config() {
                Some(config) if config.bts => misc_enable::PEBS_UNAVAILABLE,
                _ => misc_enable::BTS_UNAVAILABLE | misc_enable::PEBS_UNAVAILABLE,
            };
            let perfmon = match pmu::config() {
                Some(_) => misc_enable::PERFMON_AVAILABLE,
                None => 0,
            };
            misc_enable::FAST_STRING | unavailable | perfmon
        }
        _ => {
            log::say(log::Level::Info, format_args!("rdmsr of {index:#x}: #GP"));
            return false;
        }
    };
    // SAFETY: The core passes its own variable.
    unsafe { value.write(found) };
    true
}

/// Replaces `BX_CPU_C::handle_unknown_wrmsr(index, value)`.
#[export_name = "_ZN8BX_CPU_C20handle_unknown_wrmsrEjm"]
extern "C-unwind" fn unknown_wrmsr(index: u32, value: u64) -> bool {
    match index {
        TEST_CTRL
        | BIOS_UPDATE_TRIGGER
        | BIOS_SIGN_ID
        | MCG_STATUS
        | MISC_FEATURES_ENABLES
        | MISC_ENABLE => true,
        _ if is_last_branch(index) => true,
        _ => {
            log::say(
                log::Level::Info,
                format_args!("wrmsr of {value:#x} to {index:#x}: #GP"),
            );
            false
        }
    }
}
