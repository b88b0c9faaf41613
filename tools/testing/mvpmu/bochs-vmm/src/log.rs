// SPDX-License-Identifier: GPL-2.0

//! What the core says: its log functions, which are empty in the wheel.
//!
//! They are C variadic. Stable Rust cannot define such a function, so each is
//! a few instructions that build the `va_list` of the x86-64 psABI (3.5.7) and
//! pass it on; `vsnprintf` does the rest.

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_void;
use std::ffi::CStr;

use crate::layout;
use crate::single::SingleThread;
use crate::stop;

extern "C" {
    // The va_list of the psABI, not libc's type: see `forward`.
    fn vsnprintf(out: *mut c_char, size: usize, format: *const c_char, list: *mut c_void) -> c_int;
}

/// How much of it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What ends the run.
    #[default]
    Fatal,
    /// Also errors: why a VM entry failed, for instance.
    Error,
    /// Also information.
    Info,
}

static LEVEL: SingleThread<Level> = SingleThread::new(Level::Fatal);

/// Sets how much is printed.
pub fn set_level(level: Level) {
    LEVEL.with(|current| *current = level);
}

/// Whether messages of this level are printed.
pub fn shows(level: Level) -> bool {
    LEVEL.with(|current| *current >= level)
}

/// Prints a message of the machine itself.
pub fn say(level: Level, message: std::fmt::Arguments<'_>) {
    if shows(level) {
        eprintln!("bochs-vmm: {message}\r");
    }
}

unsafe fn forward(kind: &str, format: *const c_char, list: *mut c_void) {
    let mut text = [0u8; 512];
    // SAFETY: `format` and `list` are those of a variadic call by the core, and
    // `text` is as long as said.
    unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, list) };
    let text = CStr::from_bytes_until_nul(&text)
        .unwrap_or_default()
        .to_string_lossy();
    let rip: u64 = layout::PREV_RIP.get();
    eprintln!("bochs-vmm: core {kind} at {rip:#x}: {text}\r");
}

unsafe extern "C-unwind" fn error(format: *const c_char, list: *mut c_void) {
    if shows(Level::Error) {
        // SAFETY: Passed on.
        unsafe { forward("error", format, list) };
    }
}

unsafe extern "C-unwind" fn info(format: *const c_char, list: *mut c_void) {
    if shows(Level::Info) {
        // SAFETY: Passed on.
        unsafe { forward("info", format, list) };
    }
}

/// How the core says that the guest met a triple fault: no fault of the core's,
/// which goes on to shut the CPU down.
const TRIPLE_FAULT: &[u8] = b"exception(): 3rd";

unsafe extern "C-unwind" fn panic(format: *const c_char, list: *mut c_void) {
    // SAFETY: A C string of the core.
    let message = unsafe { CStr::from_ptr(format) };
    if message.to_bytes().starts_with(TRIPLE_FAULT) {
        return;
    }
    // SAFETY: Passed on.
    unsafe { forward("panic", format, list) };
    stop::now(stop::Reason::CorePanic);
}

unsafe extern "C-unwind" fn debug(_format: *const c_char, _list: *mut c_void) {}

macro_rules! variadic {
    ($($symbol:literal, $shim:ident => $target:ident;)*) => {$(
        /// Builds the `va_list`: 176 bytes of register save area at the bottom
        /// of the frame, 24 bytes of list above it.
        #[unsafe(naked)]
        #[export_name = $symbol]
        unsafe extern "C-unwind" fn $shim() {
            std::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "sub rsp, 208",
                "mov [rsp + 0], rdi",
                "mov [rsp + 8], rsi",
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], rcx",
                "mov [rsp + 32], r8",
                "mov [rsp + 40], r9",
                "test al, al",
                "je 2f",
                "movaps [rsp + 48], xmm0",
                "movaps [rsp + 64], xmm1",
                "movaps [rsp + 80], xmm2",
                "movaps [rsp + 96], xmm3",
                "movaps [rsp + 112], xmm4",
                "movaps [rsp + 128], xmm5",
                "movaps [rsp + 144], xmm6",
                "movaps [rsp + 160], xmm7",
                "2:",
                // gp_offset: `this` and the format are used up; fp_offset.
                "mov dword ptr [rsp + 176], 16",
                "mov dword ptr [rsp + 180], 48",
                "lea rax, [rbp + 16]",
                "mov [rsp + 184], rax",
                "mov [rsp + 192], rsp",
                "mov rdi, rsi",
                "lea rsi, [rsp + 176]",
                "call {target}",
                "leave",
                "ret",
                target = sym $target,
            )
        }
    )*};
}

variadic! {
    "_ZN12logfunctions5errorEPKcz", shim_error => error;
    "_ZN12logfunctions4infoEPKcz", shim_info => info;
    "_ZN12logfunctions5panicEPKcz", shim_panic => panic;
    "_ZN12logfunctions6fatal1EPKcz", shim_fatal => panic;
    "_ZN12logfunctions6ldebugEPKcz", shim_debug => debug;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static SEEN: RefCell<String> = const { RefCell::new(String::new()) };
    }

    unsafe extern "C-unwind" fn record(format: *const c_char, list: *mut c_void) {
        let mut text = [0u8; 128];
        // SAFETY: Called by the shim with the list of the call in the test.
        unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, list) };
        let text = CStr::from_bytes_until_nul(&text).unwrap();
        SEEN.with(|seen| *seen.borrow_mut() = text.to_string_lossy().into_owned());
    }

    variadic! { "mvpmu_test_shim", shim_record => record; }

    extern "C" {
        fn mvpmu_test_shim(this: *mut c_void, format: *const c_char, ...);
    }

    #[test]
    fn arguments_arrive_from_registers_the_stack_and_as_floating_point() {
        let this = std::ptr::null_mut();
        // SAFETY: The format matches the arguments.
        unsafe {
            mvpmu_test_shim(
                this,
                c"%d %x %s %lu %d %d %.1f %c".as_ptr(),
                -1i32,
                0xabcu32,
                c"text".as_ptr(),
                1u64 << 40,
                5i32,
                6i32,
                2.5f64,
                i32::from(b'z'),
            );
        }
        SEEN.with(|seen| assert_eq!(*seen.borrow(), "-1 abc text 1099511627776 5 6 2.5 z"));
    }
}
