// SPDX-License-Identifier: GPL-2.0

//! What software does to the PMU otherwise than by RDMSR and WRMSR: RDPMC, and the LVTPC.

use std::ffi::c_void;

use crate::core;
use crate::count;
use crate::layout;
use crate::layout::gpr;
use crate::lvtpc;
use crate::oracle;
use crate::pmu;

const GENERAL_PROTECTION: u32 = 13;
const EXIT_REASON_RDPMC: u32 = 15;
const RDPMC_EXITING: u32 = 1 << 11;
const CR4_PCE: u32 = 1 << 8;

/// Replaces `BX_CPU_C::RDPMC(instruction)`: the core's knows no PMU.
///
/// The order of the checks is that of SDM volume 2, RDPMC, and volume 3,
/// "Relative Priority of Faults and VM Exits".
#[export_name = "_ZN8BX_CPU_C5RDPMCEP15bxInstruction_c"]
unsafe extern "C-unwind" fn rdpmc(_instruction: *const c_void) {
    if layout::CR4.get::<u32>() & CR4_PCE == 0 && layout::CPL.get::<u8>() != 0 {
        core::exception(GENERAL_PROTECTION, 0);
    }
    let in_guest = layout::IN_VMX_GUEST.get::<u8>() != 0;
    if in_guest && layout::PROC_CONTROLS.get::<u32>() & RDPMC_EXITING != 0 {
        core::vm_exit(EXIT_REASON_RDPMC, 0);
    }
    let value = pmu::rdpmc(layout::GPR.element(gpr::RCX).get::<u64>() as u32);
    oracle::follow();
    let Some(Ok(value)) = value else {
        core::exception(GENERAL_PROTECTION, 0);
        return;
    };
    layout::GPR.element(gpr::RAX).set(value & 0xffff_ffff);
    layout::GPR.element(gpr::RDX).set(value >> 32);
    // What the core does at the end of each instruction. Returning ends the
    // trace, which is always allowed.
    layout::PREV_RIP.set(layout::RIP.get::<u64>());
    count::retire();
    layout::ICOUNT.set(layout::ICOUNT.get::<u64>() + 1);
}

/// Replaces `bx_local_apic_c::set_lvt_entry(register, value)`: counts what
/// software writes.
#[export_name = "_ZN15bx_local_apic_c13set_lvt_entryEjj"]
extern "C-unwind" fn set_lvt_entry(lapic: *mut c_void, register: u32, value: u32) {
    if register == lvtpc::REGISTER {
        pmu::lvtpc_written(value);
        oracle::follow();
    }
    core::lapic_set_lvt(lapic, register, value);
}
