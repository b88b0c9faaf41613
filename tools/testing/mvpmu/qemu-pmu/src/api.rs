// SPDX-License-Identifier: GPL-2.0
//! The part of QEMU's TCG plugin API, version 7, that is used here.
//!
//! No header is packaged for it, so it is declared by hand. The names are QEMU's.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_void;

/// The version of the plugin API this file declares.
pub const VERSION: c_int = 7;

/// Names a loaded plugin.
pub type PluginId = u64;

/// A translation block that is being translated.
#[repr(C)]
pub struct Tb {
    _opaque: [u8; 0],
}

/// An instruction of such a block.
#[repr(C)]
pub struct Insn {
    _opaque: [u8; 0],
}

/// A register of the emulated CPU.
#[repr(C)]
pub struct Register {
    _opaque: [u8; 0],
}

/// Data per vCPU that translated code can reach.
#[repr(C)]
pub struct Scoreboard {
    _opaque: [u8; 0],
}

/// A 64-bit field of a scoreboard entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct U64Field {
    /// The scoreboard.
    pub score: *mut Scoreboard,
    /// Where in its entries.
    pub offset: usize,
}

/// What QEMU says about itself when it loads a plugin.
#[repr(C)]
pub struct Info {
    /// The emulated architecture.
    pub target_name: *const c_char,
    /// The oldest plugin API it offers.
    pub version_min: c_int,
    /// The newest plugin API it offers.
    pub version_cur: c_int,
    /// Not `qemu-user`.
    pub system_emulation: bool,
    /// vCPUs at the start.
    pub smp_vcpus: c_int,
    /// vCPUs at most.
    pub max_vcpus: c_int,
}

/// GLib's GByteArray.
#[repr(C)]
pub struct GByteArray {
    /// The bytes.
    pub data: *mut u8,
    /// How many.
    pub len: c_uint,
}

/// GLib's GArray.
#[repr(C)]
pub struct GArray {
    /// The elements.
    pub data: *mut c_char,
    /// How many.
    pub len: c_uint,
}

/// An element of what [`qemu_plugin_get_registers`] returns.
#[repr(C)]
pub struct RegisterDescriptor {
    /// To name it to QEMU.
    pub handle: *mut Register,
    /// Its name, as gdb knows it.
    pub name: *const c_char,
    /// The gdb feature it belongs to.
    pub feature: *const c_char,
    /// Whether the API refuses to write it.
    pub is_readonly: bool,
}

/// What a callback does with the registers, which translated code then brings up to date.
pub type CallbackFlags = c_int;
/// Reads registers.
pub const CB_R_REGS: CallbackFlags = 1;
/// Reads and writes registers.
pub const CB_RW_REGS: CallbackFlags = 2;
/// Reads and writes registers and may leave the block.
pub const CB_RW_REGS_PC: CallbackFlags = 3;

/// Condition of a conditional callback, unsigned.
pub type Condition = c_int;
/// The field is the number.
pub const COND_EQ: Condition = 2;
/// The field is less than the number.
pub const COND_LT: Condition = 4;
/// The field is the number or larger.
pub const COND_GE: Condition = 7;

/// An operation in translated code.
pub type InlineOp = c_int;
/// Adds the number to the field.
pub const INLINE_ADD_U64: InlineOp = 0;
/// Stores the number in the field.
pub const INLINE_STORE_U64: InlineOp = 1;

/// Which memory accesses.
pub type MemRw = c_int;
/// Reads.
pub const MEM_R: MemRw = 1;
/// Writes.
pub const MEM_W: MemRw = 2;

/// Why the flow of instructions broke.
pub type Discontinuity = c_int;
/// An interrupt, or an exception, was delivered.
pub const DISCON_INTERRUPT: Discontinuity = 1;
/// An exception was raised.
pub const DISCON_EXCEPTION: Discontinuity = 2;

/// A callback without a vCPU.
pub type Callback = unsafe extern "C" fn(data: *mut c_void);
/// A callback in a vCPU's thread. It may not return: see [`crate::leave`].
pub type VcpuCallback = unsafe extern "C-unwind" fn(vcpu: c_uint, data: *mut c_void);
/// Called when a block is translated.
pub type TranslateCallback = unsafe extern "C-unwind" fn(tb: *mut Tb, data: *mut c_void);
/// Called at a discontinuity.
pub type DiscontinuityCallback = unsafe extern "C-unwind" fn(
    vcpu: c_uint,
    kind: Discontinuity,
    from: u64,
    to: u64,
    data: *mut c_void,
);
/// Called at a memory access.
pub type MemCallback =
    unsafe extern "C-unwind" fn(vcpu: c_uint, info: u32, vaddr: u64, data: *mut c_void);

// QEMU's header and GLib's documentation describe them.
#[allow(missing_docs)]
extern "C-unwind" {
    pub fn g_byte_array_new() -> *mut GByteArray;
    pub fn g_byte_array_set_size(array: *mut GByteArray, len: c_uint) -> *mut GByteArray;

    pub fn qemu_plugin_register_vcpu_init_cb(id: PluginId, cb: VcpuCallback, data: *mut c_void);
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: PluginId,
        cb: TranslateCallback,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_discon_cb(
        id: PluginId,
        kinds: Discontinuity,
        cb: DiscontinuityCallback,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_flush_cb(id: PluginId, cb: Callback, data: *mut c_void);
    pub fn qemu_plugin_register_atexit_cb(id: PluginId, cb: Callback, data: *mut c_void);

    pub fn qemu_plugin_set_pc(vaddr: u64);

    pub fn qemu_plugin_register_vcpu_tb_exec_cb(
        tb: *mut Tb,
        cb: VcpuCallback,
        flags: CallbackFlags,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_tb_exec_cond_cb(
        tb: *mut Tb,
        cb: VcpuCallback,
        flags: CallbackFlags,
        cond: Condition,
        entry: U64Field,
        imm: u64,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        tb: *mut Tb,
        op: InlineOp,
        entry: U64Field,
        imm: u64,
    );
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        cb: VcpuCallback,
        flags: CallbackFlags,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        insn: *mut Insn,
        op: InlineOp,
        entry: U64Field,
        imm: u64,
    );
    pub fn qemu_plugin_register_vcpu_mem_inline_per_vcpu(
        insn: *mut Insn,
        rw: MemRw,
        op: InlineOp,
        entry: U64Field,
        imm: u64,
    );
    pub fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut Insn,
        cb: MemCallback,
        flags: CallbackFlags,
        rw: MemRw,
        data: *mut c_void,
    );

    pub fn qemu_plugin_tb_n_insns(tb: *const Tb) -> usize;
    pub fn qemu_plugin_tb_vaddr(tb: *const Tb) -> u64;
    pub fn qemu_plugin_tb_get_insn(tb: *const Tb, index: usize) -> *mut Insn;
    pub fn qemu_plugin_insn_data(insn: *const Insn, dest: *mut c_void, len: usize) -> usize;
    pub fn qemu_plugin_insn_size(insn: *const Insn) -> usize;
    pub fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;

    pub fn qemu_plugin_get_registers() -> *mut GArray;
    pub fn qemu_plugin_read_register(handle: *mut Register, buf: *mut GByteArray) -> bool;
    pub fn qemu_plugin_write_register(handle: *mut Register, buf: *mut GByteArray) -> bool;
    pub fn qemu_plugin_read_memory_vaddr(addr: u64, data: *mut GByteArray, len: usize) -> bool;
    pub fn qemu_plugin_read_memory_hwaddr(addr: u64, data: *mut GByteArray, len: usize) -> c_int;
    pub fn qemu_plugin_write_memory_hwaddr(addr: u64, data: *mut GByteArray) -> c_int;
    pub fn qemu_plugin_get_hwaddr(info: u32, vaddr: u64) -> *mut c_void;
    pub fn qemu_plugin_hwaddr_phys_addr(hwaddr: *const c_void) -> u64;

    pub fn qemu_plugin_scoreboard_new(size: usize) -> *mut Scoreboard;
    pub fn qemu_plugin_scoreboard_find(score: *mut Scoreboard, vcpu: c_uint) -> *mut c_void;
}
