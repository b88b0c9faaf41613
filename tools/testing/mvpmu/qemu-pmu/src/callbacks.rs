// SPDX-License-Identifier: GPL-2.0
//! What translated code calls.
//!
//! Each function is called by QEMU in the vCPU's thread, with the block or the site it was
//! registered with: that is the condition for all of them.
#![allow(clippy::missing_safety_doc)]

use std::ffi::c_uint;
use std::ffi::c_void;

use pmu_model::Class;

use crate::api;
use crate::apic;
use crate::block::Block;
use crate::block::Site;
use crate::cpuid;
use crate::leave;
use crate::leave::callback_with_origin;
use crate::leave::Origin;
use crate::msr;
use crate::quirks;
use crate::quirks::Quirk;
use crate::reset;
use crate::vcpu;
use crate::vcpu::Vcpu;

/// What callbacks get: the vCPU, and what was registered.
///
/// # Safety
///
/// Once in a callback of QEMU in the vCPU's thread; `data` is what was registered.
unsafe fn context<'a, T>(index: c_uint, data: *mut c_void) -> (&'a mut Vcpu, &'a T) {
    // SAFETY: The caller's promise. What was registered lives as long as the translation.
    unsafe { (vcpu::get(index), &*data.cast_const().cast()) }
}

fn origin(vcpu: &Vcpu, host_pc: usize, env: *mut c_void) -> Origin {
    let cpu = vcpu.cpu_state();
    Origin { cpu, host_pc, env }
}

/// The block where the host goes on after a #VMEXIT.
pub unsafe extern "C-unwind" fn after_vmrun(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.in_guest();
    if std::mem::take(&mut vcpu.exited) {
        // Only a block of the guest would have noticed a wrap in its last one.
        vcpu.fold();
        vcpu.leave_lbr();
        vcpu.oracle_exit(block.vaddr);
    }
}

/// A block where a CPU may start.
pub unsafe extern "C-unwind" fn first_block(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    reset::check(vcpu, block.vaddr);
}

/// The block before ended with a conditional branch that was not taken.
pub unsafe extern "C-unwind" fn not_taken(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.branched_to(block.vaddr, block.class);
}

/// The block before was left in the middle, or CPUID was its last instruction.
pub unsafe extern "C-unwind" fn left_open(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    cpuid::executed(vcpu);
    if vcpu.board().has_cpuid() {
        vcpu.board().leave();
    } else if quirks::active(Quirk::SelfModifyingCode) {
        vcpu.broke_at(block.vaddr, false);
    }
}

callback_with_origin!(
    /// An accumulator is full.
    alarm => on_alarm
);

unsafe extern "C-unwind" fn on_alarm(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.suspend_rep(block);
    if vcpu.fold() {
        // The interrupt comes before the block.
        let origin = origin(vcpu, host_pc, env);
        leave::restore(origin);
        // SAFETY: There is nothing to drop in this frame, the only one.
        unsafe { leave::to_main_loop(origin) }
    }
}

callback_with_origin!(
    /// A block of the host's kernel that is swept.
    swept => on_swept
);

unsafe extern "C-unwind" fn on_swept(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    if vcpu.sweep_step(block.vaddr) {
        // The interrupt comes before the block.
        let origin = origin(vcpu, host_pc, env);
        leave::restore(origin);
        // SAFETY: There is nothing to drop in this frame, the only one.
        unsafe { leave::to_main_loop(origin) }
    }
}

/// A block, while branches are recorded.
pub unsafe extern "C-unwind" fn recorded(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.enter_recorded(block);
}

/// A block, while there is a listing.
pub unsafe extern "C-unwind" fn listed(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.lister.enter(block);
}

/// Before VMRUN.
pub unsafe extern "C-unwind" fn vmrun(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    vcpu.vmrun(site);
}

callback_with_origin!(
    /// Before RDMSR and WRMSR.
    msr_access => on_msr_access
);

unsafe extern "C-unwind" fn on_msr_access(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    // SAFETY: There is nothing to drop in this frame, the only one.
    unsafe { msr::execute(vcpu, site, origin(vcpu, host_pc, env)) };
}

callback_with_origin!(
    /// Before RDPMC.
    rdpmc => on_rdpmc
);

unsafe extern "C-unwind" fn on_rdpmc(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    // SAFETY: There is nothing to drop in this frame, the only one.
    unsafe { msr::execute_rdpmc(vcpu, site, origin(vcpu, host_pc, env)) };
}

/// Before CPUID.
pub unsafe extern "C-unwind" fn cpuid(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    cpuid::execute(vcpu, site);
}

/// Before the instruction behind a CPUID.
pub unsafe extern "C-unwind" fn cpuid_done(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, _) = unsafe { context::<Site>(index, data) };
    cpuid::executed(vcpu);
}

/// Before a string instruction with a repeat prefix.
pub unsafe extern "C-unwind" fn rep_string(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    vcpu.enter_rep(site);
}

/// A block of the host's user mode, when something of a guest is in the PMU.
pub unsafe extern "C-unwind" fn user_mode(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.oracle_user(block);
}

/// Before the stack pointer is loaded from memory.
pub unsafe extern "C-unwind" fn stack_load(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    if let Some(from) = site.insn().stack_load {
        vcpu.oracle_switch(site, from);
    }
}

/// After a store that may be to the local APIC.
pub unsafe extern "C-unwind" fn fixmap_store(
    index: c_uint,
    info: u32,
    vaddr: u64,
    _data: *mut c_void,
) {
    if !apic::may_be_lvtpc(vaddr) {
        return;
    }
    // SAFETY: In a callback of a memory access, as the calls demand.
    let physical = unsafe {
        let hwaddr = api::qemu_plugin_get_hwaddr(info, vaddr);
        if hwaddr.is_null() {
            return;
        }
        api::qemu_plugin_hwaddr_phys_addr(hwaddr)
    };
    // SAFETY: In the vCPU's thread, once.
    let vcpu = unsafe { vcpu::get(index) };
    if let Some(value) = apic::lvtpc_at(&mut vcpu.bus, physical) {
        // A callback of a store is not told which instruction it is.
        vcpu.lvtpc_written(value, 0, vcpu.access(Class::HostKernel));
    }
}
