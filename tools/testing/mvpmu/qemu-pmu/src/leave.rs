// SPDX-License-Identifier: GPL-2.0
//! Ways out of a callback that do not return to translated code.
//!
//! QEMU leaves translated code with siglongjmp(), which drops the frames between here and its
//! main loop without running any destructor. So whoever calls a function of this file, and its
//! callers up to the callback, must own nothing that needs dropping: no guard, no box, no vector.
//! They are `extern "C-unwind"` at the edge, for which this is defined ("plain old frames").

use std::ffi::c_int;
use std::ffi::c_void;

use crate::api;
use crate::registers::handles;
use crate::registers::Bus;
use crate::symbols::symbols;
use crate::symbols::CpuState;

/// gdb's number of RIP.
const GDB_RIP: c_int = 16;
/// #GP
const GENERAL_PROTECTION: c_int = 13;

/// Where in translated code a callback was called: what is needed to leave from there.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The CPU that executes.
    pub cpu: *mut CpuState,
    /// The return address.
    pub host_pc: usize,
    /// QEMU's CPU registers, which translated code keeps in RBP.
    pub env: *mut c_void,
}

/// Brings RIP and the flags up to date for the instruction that is executed at `origin`.
pub fn restore(origin: Origin) {
    // SAFETY: The CPU is the one that executes; a return address lies behind its call.
    unsafe { (symbols().cpu_restore_state)(origin.cpu, origin.host_pc - 1) };
}

/// Leaves the block, to go on at the RIP that is set: interrupts that are due come first.
///
/// # Safety
///
/// No frame up to the callback has anything to drop. The registers are up to date.
pub unsafe fn to_main_loop(origin: Origin) -> ! {
    // SAFETY: In a callback in the CPU's thread; see above for the rest.
    unsafe { (symbols().cpu_loop_exit_noexc)(origin.cpu) }
}

/// The number of the exception that is being delivered.
///
/// # Safety
///
/// `cpu` is QEMU's structure of the CPU whose thread this is, in a callback.
pub unsafe fn exception(cpu: *mut CpuState) -> i32 {
    let offset = symbols().exception_index;
    // SAFETY: The field is where QEMU's own code writes it, and only this thread does.
    unsafe { cpu.byte_add(offset).cast::<i32>().read() }
}

/// Has QEMU forget the exception whose number it keeps: it was delivered.
///
/// # Safety
///
/// `cpu` is QEMU's structure of the CPU whose thread this is, in a callback.
pub unsafe fn forget_exception(cpu: *mut CpuState) {
    let offset = symbols().exception_index;
    // SAFETY: The field is where QEMU's own code writes it, and only this thread does.
    unsafe { cpu.byte_add(offset).cast::<i32>().write(-1) };
}

/// Leaves the block and goes on at `pc`.
///
/// # Safety
///
/// As for [`to_main_loop`].
pub unsafe fn to_pc(origin: Origin, pc: u64) -> ! {
    write_rip(origin.cpu, pc);
    // SAFETY: The caller's promise.
    unsafe { to_main_loop(origin) }
}

/// Goes on at `pc` as the API has it: only to see whether its bugs are gone.
///
/// # Safety
///
/// No frame up to the callback has anything to drop. The callback was registered with
/// [`api::CB_RW_REGS_PC`].
pub unsafe fn by_set_pc(pc: u64) -> ! {
    // SAFETY: The caller's promise.
    unsafe { api::qemu_plugin_set_pc(pc) };
    unreachable!("qemu_plugin_set_pc() does not return")
}

/// Raises #GP(0) at the instruction that is executed at `origin`.
///
/// # Safety
///
/// No frame up to the callback has anything to drop.
pub unsafe fn general_protection(origin: Origin) -> ! {
    // SAFETY: `env` and the return address come from translated code that called.
    unsafe { (symbols().raise_exception_err_ra)(origin.env, GENERAL_PROTECTION, 0, origin.host_pc) }
}

/// Checks that RIP can be written by its number. When the vCPU starts, before it executes.
pub fn check(cpu: *mut CpuState, bus: &mut Bus) -> Result<(), String> {
    if cpu.is_null() {
        return Err("this QEMU has no current_cpu in a vCPU's thread".into());
    }
    let before = bus.register(handles().rip);
    let other = before ^ 0x10;
    write_rip(cpu, other);
    let after = bus.register(handles().rip);
    write_rip(cpu, before);
    if after != other {
        return Err("this QEMU numbers its registers in another way".into());
    }
    Ok(())
}

fn write_rip(cpu: *mut CpuState, pc: u64) {
    let bytes = pc.to_le_bytes();
    // SAFETY: In the CPU's thread; RIP has 8 bytes.
    unsafe { (symbols().gdb_write_register)(cpu, bytes.as_ptr(), GDB_RIP) };
}

/// Makes a plugin callback of a function that wants to know its [`Origin`]:
/// `fn(vcpu: u32, data: *mut c_void, host_pc: usize, env: *mut c_void)`.
///
/// A function cannot read its return address in Rust; two instructions in front of it can.
macro_rules! callback_with_origin {
    ($(#[$attribute:meta])* $name:ident => $function:path) => {
        $(#[$attribute])*
        ///
        /// # Safety
        ///
        /// To be called by translated code.
        #[unsafe(naked)]
        pub unsafe extern "C-unwind" fn $name(
            _vcpu: std::ffi::c_uint,
            _data: *mut std::ffi::c_void,
        ) {
            std::arch::naked_asm!(
                "mov rdx, [rsp]",
                "mov rcx, rbp",
                "jmp {function}",
                function = sym $function,
            )
        }
    };
}

pub(crate) use callback_with_origin;
