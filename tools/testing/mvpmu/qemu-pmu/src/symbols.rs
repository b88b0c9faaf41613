// SPDX-License-Identifier: GPL-2.0
//! What is used of QEMU beyond its plugin API.
//!
//! The API can write every register but not leave an instruction cleanly: `qemu_plugin_set_pc()`
//! does not bring the lazily computed flags up to date in the middle of a block, and keeps the
//! number of an exception that was delivered before. It can neither raise an exception nor have
//! everything translated anew, nor have each instruction translated on its own, nor type. QEMU's own
//! functions do all that (and one that does too much is found here, see [`crate::ignne`]), and stand in the dynamic symbol table of the executable. They are looked up
//! by name at the start, so that a QEMU without one of them is refused with a message rather than a
//! crash.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ffi::CStr;
use std::sync::atomic::AtomicBool;
use std::sync::OnceLock;

use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::OpKind;
use iced_x86::Register;

/// QEMU's `CPUState`.
#[repr(C)]
pub struct CpuState {
    _opaque: [u8; 0],
}

/// `cpu_restore_state()`: brings the registers up to date for the instruction whose translation
/// contains the host address. False when the address is not in translated code.
type RestoreState = unsafe extern "C-unwind" fn(cpu: *mut CpuState, host_pc: usize) -> bool;
/// `cpu_loop_exit_noexc()`: leaves the block, no exception pending; does not return.
type LoopExitNoexc = unsafe extern "C-unwind" fn(cpu: *mut CpuState) -> !;
/// `gdb_write_register()`: writes a register by gdb's number.
type GdbWriteRegister =
    unsafe extern "C-unwind" fn(cpu: *mut CpuState, value: *const u8, number: c_int) -> c_int;
/// `raise_exception_err_ra()`: raises an exception at the instruction whose translation contains
/// the host address, with all that belongs to it (intercepts); does not return.
type RaiseException = unsafe extern "C-unwind" fn(
    env: *mut c_void,
    vector: c_int,
    error_code: c_int,
    host_pc: usize,
) -> !;

/// `queue_tb_flush()`: drops all translations before this CPU goes on.
type QueueTbFlush = unsafe extern "C-unwind" fn(cpu: *mut CpuState);

/// `qemu_chr_find()`: the character device with this name, or NULL.
type ChrFind = unsafe extern "C-unwind" fn(name: *const c_char) -> *mut c_void;
/// `qemu_chr_be_write()`: bytes that have come there, for the device behind it; with the BQL.
type ChrBeWrite = unsafe extern "C-unwind" fn(chardev: *mut c_void, bytes: *const u8, n: c_int);
/// `bql_lock_impl()`: takes QEMU's lock of all devices, which a vCPU that executes does not have.
type BqlLock = unsafe extern "C-unwind" fn(file: *const c_char, line: c_int);
/// `bql_unlock()`
type BqlUnlock = unsafe extern "C-unwind" fn();

/// The functions found.
#[derive(Clone, Copy)]
pub struct Symbols {
    /// `cpu_restore_state()`
    pub cpu_restore_state: RestoreState,
    /// `cpu_loop_exit_noexc()`
    pub cpu_loop_exit_noexc: LoopExitNoexc,
    /// `gdb_write_register()`
    pub gdb_write_register: GdbWriteRegister,
    /// `raise_exception_err_ra()`
    pub raise_exception_err_ra: RaiseException,
    /// `queue_tb_flush()`
    pub queue_tb_flush: QueueTbFlush,
    /// `qemu_chr_find()`
    pub qemu_chr_find: ChrFind,
    /// `qemu_chr_be_write()`
    pub qemu_chr_be_write: ChrBeWrite,
    /// `bql_lock_impl()`
    pub bql_lock_impl: BqlLock,
    /// `bql_unlock()`
    pub bql_unlock: BqlUnlock,
    /// `one_insn_per_tb`: a block is one instruction.
    pub one_insn_per_tb: &'static AtomicBool,
    /// Where in `CPUState` the number of the exception under way is, an `int32_t`; -1: none.
    pub exception_index: usize,
}

static SYMBOLS: OnceLock<Symbols> = OnceLock::new();

/// The thread's `current_cpu` variable.
const CURRENT_CPU: &CStr = c"current_cpu";

/// Looks `name` up in the executable and its libraries.
pub fn find(name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: RTLD_DEFAULT is a valid handle and the name is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() {
        return Err(format!(
            "this QEMU has no symbol {}, which is needed: use qemu-system-x86_64 11.1 of Debian",
            name.to_string_lossy()
        ));
    }
    Ok(address)
}

/// Where in `CPUState` the number of an exception is that waits for QEMU's loop: what the code of
/// `cpu_loop_exit_noexc()` sets to -1.
fn exception_index(code: &[u8]) -> Option<usize> {
    /// What is before it: ENDBR64, the stack.
    const AT_MOST: usize = 8;
    let instructions = Decoder::new(64, code, DecoderOptions::NONE);
    instructions
        .into_iter()
        .take(AT_MOST)
        .find(|insn| {
            insn.code() == Code::Mov_rm32_imm32
                && insn.op0_kind() == OpKind::Memory
                && insn.memory_base() == Register::RDI
                && insn.immediate32().cast_signed() == -1
        })
        .and_then(|insn| usize::try_from(insn.memory_displacement64()).ok())
}

/// Looks everything up; says what is missing.
pub fn load() -> Result<(), String> {
    find(CURRENT_CPU)?;
    let restore = find(c"cpu_restore_state")?;
    let exit = find(c"cpu_loop_exit_noexc")?;
    let write = find(c"gdb_write_register")?;
    let raise = find(c"raise_exception_err_ra")?;
    let flush = find(c"queue_tb_flush")?;
    let chr_find = find(c"qemu_chr_find")?;
    let chr_write = find(c"qemu_chr_be_write")?;
    let lock = find(c"bql_lock_impl")?;
    let unlock = find(c"bql_unlock")?;
    let one = find(c"one_insn_per_tb")?;
    // SAFETY: The function is longer, or others follow it.
    let code = unsafe { std::slice::from_raw_parts(exit.cast::<u8>(), 64) };
    let exception_index = exception_index(code).ok_or(
        "this QEMU has another cpu_loop_exit_noexc(): use qemu-system-x86_64 11.1 of Debian",
    )?;
    // SAFETY: The symbols are these functions of QEMU 11, whose signatures the types repeat.
    let symbols = unsafe {
        Symbols {
            cpu_restore_state: std::mem::transmute::<*mut c_void, RestoreState>(restore),
            cpu_loop_exit_noexc: std::mem::transmute::<*mut c_void, LoopExitNoexc>(exit),
            gdb_write_register: std::mem::transmute::<*mut c_void, GdbWriteRegister>(write),
            raise_exception_err_ra: std::mem::transmute::<*mut c_void, RaiseException>(raise),
            queue_tb_flush: std::mem::transmute::<*mut c_void, QueueTbFlush>(flush),
            qemu_chr_find: std::mem::transmute::<*mut c_void, ChrFind>(chr_find),
            qemu_chr_be_write: std::mem::transmute::<*mut c_void, ChrBeWrite>(chr_write),
            bql_lock_impl: std::mem::transmute::<*mut c_void, BqlLock>(lock),
            bql_unlock: std::mem::transmute::<*mut c_void, BqlUnlock>(unlock),
            // A `bool` that QEMU, too, reads and writes as an atomic one.
            one_insn_per_tb: AtomicBool::from_ptr(one.cast()),
            exception_index,
        }
    };
    SYMBOLS.get_or_init(|| symbols);
    Ok(())
}

/// The functions. [`load`] succeeded before any callback was registered.
pub fn symbols() -> &'static Symbols {
    SYMBOLS.get().expect("symbols are loaded at install")
}

/// Where this thread's `current_cpu` lies: the loader resolves a thread-local symbol for the
/// calling thread.
pub fn current_cpu_slot() -> *const *mut CpuState {
    find(CURRENT_CPU).map_or(std::ptr::null(), |address| address.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: another store is taken for it.
    #[test]
    fn the_number_of_an_exception_is_where_the_code_says() {
        // endbr64; sub $8,%rsp; movl $-1,0x2c0(%rdi); call
        let code = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 8, 0xc7, 0x87, 0xc0, 2, 0, 0, 0xff, 0xff,
            0xff, 0xff, 0xe8, 0, 0, 0, 0,
        ];
        assert_eq!(exception_index(&code), Some(0x2c0));
        // movl $-2,0x2c0(%rdi); ret
        let other = [0xc7, 0x87, 0xc0, 2, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xc3];
        assert_eq!(exception_index(&other), None);
    }

    // Break: take a null pointer for an address.
    #[test]
    fn a_missing_symbol_is_named() {
        assert!(find(c"malloc").is_ok());
        let reason = find(c"cpu_restore_nothing").unwrap_err();
        assert!(reason.contains("cpu_restore_nothing"), "{reason}");
    }
}
