// SPDX-License-Identifier: GPL-2.0

//! VM entry and VM exit: IA32_PERF_GLOBAL_CTRL, IA32_DEBUGCTL, IA32_LBR_CTL and IA32_RTIT_CTL.
//!
//! The core has the VMCS fields and the control bits for the first two, but moves
//! nothing. SDM volume 3, "Loading Guest Control Registers, Debug Registers, and
//! MSRs" (VM entry), "Saving Control Registers, Debug Registers, and MSRs" and
//! "Loading Host Control Registers, Debug Registers, MSRs" (VM exit).

use pmu_model::intel::Intel;

use crate::capability::ENTRY_CONCEAL;
use crate::capability::ENTRY_LOAD_GLOBAL_CTRL;
use crate::capability::ENTRY_LOAD_LBR_CTL;
use crate::capability::ENTRY_LOAD_RTIT_CTL;
use crate::capability::EXIT_CLEAR_LBR_CTL;
use crate::capability::EXIT_CLEAR_RTIT_CTL;
use crate::capability::EXIT_CONCEAL;
use crate::capability::EXIT_LOAD_GLOBAL_CTRL;
use crate::capability::EXIT_SAVE_GLOBAL_CTRL;
use crate::capability::GUEST_LBR_CTL;
use crate::capability::GUEST_RTIT_CTL;
use crate::capability::SECONDARY_PT_GUEST_PHYSICAL;
use crate::core;
use crate::layout;
use crate::lbr;
use crate::mode;
use crate::msr;
use crate::oracle;
use crate::pmu;
use crate::pt;
use crate::quirks;

/// VMCS fields.
pub mod field {
    pub const EPT_POINTER: u32 = 0x201a;
    pub const GUEST_PHYSICAL_ADDRESS: u32 = 0x2400;
    pub const PROC_CONTROLS: u32 = 0x4002;
    pub const SECONDARY_CONTROLS: u32 = 0x401e;
    pub const EXIT_CONTROLS: u32 = 0x400c;
    pub const ENTRY_CONTROLS: u32 = 0x4012;
    pub const GUEST_DEBUGCTL: u32 = 0x2802;
    pub const GUEST_GLOBAL_CTRL: u32 = 0x2808;
    pub const GUEST_RIP: u32 = 0x681e;
    pub const HOST_GLOBAL_CTRL: u32 = 0x2c04;
}

const ENTRY_LOAD_DEBUG: u32 = 1 << 2;
const EXIT_SAVE_DEBUG: u32 = 1 << 2;

const PROC_SECONDARY: u32 = 1 << 31;
const SECONDARY_EPT: u32 = 1 << 1;

/// Basic exit reason and VM-instruction errors of the failures below.
const INVALID_GUEST_STATE: u32 = 33;
const INVALID_CONTROLS: u32 = 7;
const INVALID_HOST_STATE: u32 = 8;

/// Whether `value` may be loaded into IA32_PERF_GLOBAL_CTRL.
fn is_valid(value: u64) -> bool {
    pmu::config().is_none_or(|config| Intel::new(config).set_global_ctrl(value).is_ok())
}

/// The same of IA32_LBR_CTL.
fn is_valid_lbr(value: u64) -> bool {
    pmu::config().is_some_and(|config| Intel::new(config).set_lbr_control(value).is_ok())
}

/// The same of IA32_RTIT_CTL.
fn is_valid_rtit(value: u64) -> bool {
    pmu::config().is_some_and(|config| Intel::new(config).set_pt_control(value).is_ok())
}

/// The secondary VM-execution controls of the current VMCS.
pub fn secondary_controls() -> u32 {
    match core::vmread32(field::PROC_CONTROLS) & PROC_SECONDARY {
        0 => 0,
        _ => core::vmread32(field::SECONDARY_CONTROLS),
    }
}

/// Whether the controls that are about PT fit together, and what PT does now. The SDM has that in "VM-Execution
/// Control Fields" and "VM-Entry Control Fields": what uses guest-physical addresses has EPT, loads IA32_RTIT_CTL
/// and clears it; what loads it finds TraceEn 0.
fn can_trace() -> bool {
    let loads = core::vmread32(field::ENTRY_CONTROLS) & ENTRY_LOAD_RTIT_CTL != 0;
    let clears = core::vmread32(field::EXIT_CONTROLS) & EXIT_CLEAR_RTIT_CTL != 0;
    let secondary = secondary_controls();
    let has_ept = secondary & SECONDARY_EPT != 0;
    let guest_physical = secondary & SECONDARY_PT_GUEST_PHYSICAL != 0;
    let traces = pmu::with(|pmu| pmu.map().traces()) == Some(true);
    !(loads && traces) && (!guest_physical || has_ept && loads && clears)
}

/// Replaces `BX_CPU_C::VMenterLoadCheckVmControls()`; the result is the VM-instruction error, 0 for none.
#[export_name = "_ZN8BX_CPU_C26VMenterLoadCheckVmControlsEv"]
extern "C-unwind" fn check_controls() -> u32 {
    match core::core_vmenter_check_controls() {
        0 if !can_trace() => {
            oracle::entry_fails();
            INVALID_CONTROLS
        }
        error => error,
    }
}

/// Replaces `BX_CPU_C::VMenterLoadCheckHostState()`; the result is the
/// VM-instruction error, 0 for none.
#[export_name = "_ZN8BX_CPU_C25VMenterLoadCheckHostStateEv"]
extern "C-unwind" fn check_host() -> u32 {
    let error = core::core_vmenter_check_host();
    if error == 0
        && core::vmread32(field::EXIT_CONTROLS) & EXIT_LOAD_GLOBAL_CTRL != 0
        && !is_valid(core::vmread64(field::HOST_GLOBAL_CTRL))
    {
        return INVALID_HOST_STATE;
    }
    error
}

/// Replaces `BX_CPU_C::VMenterLoadCheckGuestState(qualification)`; the result is
/// the exit reason of a failed entry, 0 for none.
#[export_name = "_ZN8BX_CPU_C26VMenterLoadCheckGuestStateEPm"]
unsafe extern "C-unwind" fn load_guest(qualification: *mut u64) -> u32 {
    let entry = oracle::before_entry();
    let controls = core::vmread32(field::ENTRY_CONTROLS);
    let global_ctrl =
        (controls & ENTRY_LOAD_GLOBAL_CTRL != 0).then(|| core::vmread64(field::GUEST_GLOBAL_CTRL));
    let debugctl =
        (controls & ENTRY_LOAD_DEBUG != 0).then(|| core::vmread64(field::GUEST_DEBUGCTL));
    let lbr_ctl = (controls & ENTRY_LOAD_LBR_CTL != 0).then(|| core::vmread64(GUEST_LBR_CTL));
    let rtit_ctl = (controls & ENTRY_LOAD_RTIT_CTL != 0).then(|| core::vmread64(GUEST_RTIT_CTL));
    let is_valid = global_ctrl.is_none_or(is_valid)
        && debugctl.is_none_or(msr::is_valid_debugctl)
        && lbr_ctl.is_none_or(is_valid_lbr)
        && rtit_ctl.is_none_or(is_valid_rtit);
    if !is_valid {
        // SAFETY: The core passes its own variable.
        unsafe { qualification.write(0) };
        return INVALID_GUEST_STATE;
    }
    let reason = core::core_vmenter_load_guest(qualification);
    if reason != 0 {
        return reason;
    }
    pmu::vm_entry(global_ctrl);
    oracle::enter(entry);
    if let Some(debugctl) = debugctl {
        // Checked above.
        let _ = msr::set_debugctl(debugctl);
    }
    if let Some(lbr_ctl) = lbr_ctl {
        pmu::load_lbr_control(lbr_ctl);
    }
    let rip: u64 = layout::RIP.get();
    pt::entered(rip, controls & ENTRY_CONCEAL != 0);
    if let Some(rtit_ctl) = rtit_ctl {
        pmu::load_pt_control(rtit_ctl);
        pt::control_written(rip, rip, true);
    }
    0
}

/// Replaces `BX_CPU_C::VMexitSaveGuestState(..)`.
#[export_name = "_ZN8BX_CPU_C20VMexitSaveGuestStateEjj"]
extern "C-unwind" fn save_guest(a: u32, b: u32) {
    core::core_vmexit_save_guest(a, b);
    let global_ctrl = pmu::vm_exit();
    let controls = core::vmread32(field::EXIT_CONTROLS);
    if controls & EXIT_SAVE_GLOBAL_CTRL != 0 {
        if let Some(global_ctrl) = global_ctrl {
            core::vmwrite64(field::GUEST_GLOBAL_CTRL, global_ctrl);
        }
    }
    if controls & EXIT_SAVE_DEBUG != 0 {
        core::vmwrite64(field::GUEST_DEBUGCTL, msr::debugctl());
    }
    // Whatever the controls say, if there is one to load it.
    if let Some(lbr_ctl) = pmu::with(|pmu| pmu.map().lbr_control()).flatten() {
        core::vmwrite64(GUEST_LBR_CTL, lbr_ctl);
    }
    if let Some(rtit_ctl) = pmu::with(|pmu| pmu.map().pt_control()).flatten() {
        core::vmwrite64(GUEST_RTIT_CTL, rtit_ctl);
    }
}

/// Replaces `BX_CPU_C::VMexitLoadHostState()`.
#[export_name = "_ZN8BX_CPU_C19VMexitLoadHostStateEv"]
extern "C-unwind" fn load_host() {
    if core::vmread32(field::EXIT_CONTROLS) & EXIT_LOAD_GLOBAL_CTRL != 0 {
        pmu::load_global_ctrl(core::vmread64(field::HOST_GLOBAL_CTRL));
    }
    if core::vmread32(field::EXIT_CONTROLS) & EXIT_CLEAR_LBR_CTL != 0 {
        pmu::clear_lbr_control();
    }
    let controls = core::vmread32(field::EXIT_CONTROLS);
    let guest_rip = core::vmread64(field::GUEST_RIP);
    if controls & EXIT_CLEAR_RTIT_CTL != 0 {
        pmu::load_pt_control(0);
        pt::control_written(guest_rip, guest_rip, true);
    }
    // Cleared at every VM exit, which is why KVM restores it.
    let _ = msr::set_debugctl(0);
    core::core_vmexit_load_host();
    pt::exited(guest_rip, controls & EXIT_CONCEAL != 0);
    oracle::exit();
}

/// Replaces `BX_CPU_C::StoreMSRs(count, address)`; the result is the number of
/// the entry that failed, 0 for none.
#[export_name = "_ZN8BX_CPU_C9StoreMSRsEjm"]
extern "C-unwind" fn store_msrs(count: u32, address: u64) -> u32 {
    mode::for_the_host(|| core::core_store_msrs(count, address))
}

/// Replaces `BX_CPU_C::LoadMSRs(count, address)`; the result is the number of
/// the entry that failed, 0 for none.
#[export_name = "_ZN8BX_CPU_C8LoadMSRsEjm"]
extern "C-unwind" fn load_msrs(count: u32, address: u64) -> u32 {
    mode::for_the_host(|| core::core_load_msrs(count, address))
}

/// Replaces `BX_CPU_C::VMenterInjectEvents()`.
#[export_name = "_ZN8BX_CPU_C19VMenterInjectEventsEv"]
extern "C-unwind" fn inject_events() {
    quirks::before_inject_events();
    lbr::injecting(core::core_vmenter_inject);
}

/// Replaces `BX_CPU_C::HandleExtInterrupt()`.
#[export_name = "_ZN8BX_CPU_C18HandleExtInterruptEv"]
extern "C-unwind" fn handle_ext_interrupt() {
    quirks::before_external_interrupt();
    core::core_handle_ext_interrupt();
}
