// SPDX-License-Identifier: GPL-2.0

//! Whether there is VMX, and which controls its capability registers offer for
//! IA32_PERF_GLOBAL_CTRL, IA32_LBR_CTL and PT.

use crate::core;
use crate::layout;
use crate::layout::CpuField;
use crate::pmu;

/// VM-entry control: load IA32_PERF_GLOBAL_CTRL.
pub const ENTRY_LOAD_GLOBAL_CTRL: u32 = 1 << 13;
/// VM-exit control: load IA32_PERF_GLOBAL_CTRL.
pub const EXIT_LOAD_GLOBAL_CTRL: u32 = 1 << 12;
/// VM-exit control: save IA32_PERF_GLOBAL_CTRL.
pub const EXIT_SAVE_GLOBAL_CTRL: u32 = 1 << 30;
/// VM-entry control: load IA32_LBR_CTL.
pub const ENTRY_LOAD_LBR_CTL: u32 = 1 << 21;
/// VM-exit control: clear IA32_LBR_CTL.
pub const EXIT_CLEAR_LBR_CTL: u32 = 1 << 26;
/// The VMCS field for the guest's IA32_LBR_CTL.
pub const GUEST_LBR_CTL: u32 = 0x2816;
/// Its high half.
const GUEST_LBR_CTL_HIGH: u32 = 0x2817;

/// VM-entry controls: conceal VMX from PT, load IA32_RTIT_CTL.
pub const ENTRY_CONCEAL: u32 = 1 << 17;
pub const ENTRY_LOAD_RTIT_CTL: u32 = 1 << 18;
/// VM-exit controls: conceal VMX from PT, clear IA32_RTIT_CTL.
pub const EXIT_CONCEAL: u32 = 1 << 24;
pub const EXIT_CLEAR_RTIT_CTL: u32 = 1 << 25;
/// Secondary VM-execution controls: conceal VMX from PT, PT uses guest-physical addresses.
pub const SECONDARY_CONCEAL: u32 = 1 << 19;
pub const SECONDARY_PT_GUEST_PHYSICAL: u32 = 1 << 24;
/// The VMCS field for the guest's IA32_RTIT_CTL.
pub const GUEST_RTIT_CTL: u32 = 0x2814;
/// Its high half.
const GUEST_RTIT_CTL_HIGH: u32 = 0x2815;

/// IA32_VMX_MISC, and that PT can be used in VMX operation.
const MISC: u32 = 0x485;
const MISC_PT: u64 = 1 << 14;

/// IA32_VMX_EXIT_CTLS, IA32_VMX_ENTRY_CTLS and their TRUE versions. What may be
/// 1 is in the high half.
const CAPABILITY_EXIT: [u32; 2] = [0x483, 0x48f];
const CAPABILITY_ENTRY: [u32; 2] = [0x484, 0x490];

/// Whether there is VMX, and which VM-entry and VM-exit controls for
/// IA32_PERF_GLOBAL_CTRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmx {
    /// VMX is there.
    pub present: bool,
    /// Load at VM entry and at VM exit.
    pub load: bool,
    /// Save at VM exit.
    pub save: bool,
}

impl Vmx {
    /// With all of it.
    pub const FULL: Vmx = Vmx {
        present: true,
        load: true,
        save: true,
    };
}

/// Whether there is an IA32_LBR_CTL.
fn has_lbr() -> bool {
    pmu::config().is_some_and(|config| config.lbr)
}

/// Whether there is PT.
fn has_pt() -> bool {
    pmu::config().is_some_and(|config| config.pt)
}

/// Adds controls to those that there are.
fn add(field: CpuField, controls: u32) {
    field.set(field.get::<u32>() | controls);
}

/// Replaces `BX_CPU_C::init_secondary_proc_based_vmexec_ctrls()`: the core knows no PT.
#[export_name = "_ZN8BX_CPU_C38init_secondary_proc_based_vmexec_ctrlsEv"]
extern "C-unwind" fn init_secondary_controls() {
    core::core_init_secondary_controls();
    if has_pt() {
        let controls = SECONDARY_CONCEAL | SECONDARY_PT_GUEST_PHYSICAL;
        add(layout::SECONDARY_CONTROLS, controls);
    }
}

/// Replaces `BX_CPU_C::init_vmexit_ctrls()`: the core knows neither that nor last branch records.
#[export_name = "_ZN8BX_CPU_C17init_vmexit_ctrlsEv"]
extern "C-unwind" fn init_exit_controls() {
    core::core_init_exit_controls();
    if has_lbr() {
        add(layout::EXIT_CONTROLS, EXIT_CLEAR_LBR_CTL);
    }
    if has_pt() {
        add(layout::EXIT_CONTROLS, EXIT_CONCEAL | EXIT_CLEAR_RTIT_CTL);
    }
}

/// Replaces `BX_CPU_C::init_vmentry_ctrls()`.
#[export_name = "_ZN8BX_CPU_C18init_vmentry_ctrlsEv"]
extern "C-unwind" fn init_entry_controls() {
    core::core_init_entry_controls();
    if has_lbr() {
        add(layout::ENTRY_CONTROLS, ENTRY_LOAD_LBR_CTL);
    }
    if has_pt() {
        add(layout::ENTRY_CONTROLS, ENTRY_CONCEAL | ENTRY_LOAD_RTIT_CTL);
    }
}

/// Replaces `BX_CPU_C::vmcs_field_supported(field)`; the core has room for all.
#[export_name = "_ZN8BX_CPU_C20vmcs_field_supportedEj"]
extern "C-unwind" fn has_field(field: u32) -> bool {
    match field {
        GUEST_LBR_CTL | GUEST_LBR_CTL_HIGH => has_lbr(),
        GUEST_RTIT_CTL | GUEST_RTIT_CTL_HIGH => has_pt(),
        _ => core::core_has_field(field),
    }
}

/// A capability register, with what the core does not know.
pub fn completed(index: u32, value: u64) -> u64 {
    match index {
        MISC if has_pt() => value | MISC_PT,
        _ => value,
    }
}

/// A capability register, without what is hidden.
pub fn offered(index: u32, value: u64, vmx: Vmx) -> u64 {
    let mut hidden = 0;
    if CAPABILITY_EXIT.contains(&index) {
        if !vmx.save {
            hidden |= EXIT_SAVE_GLOBAL_CTRL;
        }
        if !vmx.load {
            hidden |= EXIT_LOAD_GLOBAL_CTRL;
        }
    }
    if CAPABILITY_ENTRY.contains(&index) && !vmx.load {
        hidden |= ENTRY_LOAD_GLOBAL_CTRL;
    }
    value & !(u64::from(hidden) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    #[test]
    fn everything_is_reported_unless_hidden() {
        for index in 0x480..0x492 {
            assert_eq!(offered(index, ALL, Vmx::FULL), ALL);
        }
    }

    #[test]
    fn without_save_only_the_exit_controls_lack_bit_30() {
        let vmx = Vmx {
            save: false,
            ..Vmx::FULL
        };
        assert_eq!(offered(0x483, ALL, vmx), ALL & !(1 << 62));
        assert_eq!(offered(0x48f, ALL, vmx), ALL & !(1 << 62));
        assert_eq!(offered(0x484, ALL, vmx), ALL);
    }

    #[test]
    fn without_load_entry_and_exit_lack_their_bits() {
        let vmx = Vmx {
            load: false,
            ..Vmx::FULL
        };
        assert_eq!(offered(0x48f, ALL, vmx), ALL & !(1 << 44));
        assert_eq!(offered(0x484, ALL, vmx), ALL & !(1 << 45));
        assert_eq!(offered(0x490, ALL, vmx), ALL & !(1 << 45));
    }
}
