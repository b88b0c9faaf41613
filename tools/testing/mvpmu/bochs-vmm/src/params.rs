// SPDX-License-Identifier: GPL-2.0

//! The core's configuration: it asks for parameters by name.
//!
//! Most come from the table in the wheel. This machine answers for the CPU
//! model and what it must or must not have; a parameter that the table lacks is
//! false or 0.

use std::ffi::c_char;
use std::ffi::c_void;
use std::ffi::CStr;

use crate::core;
use crate::quirks;
use crate::single::SingleCell;

/// Number of the CPU model sapphire_rapids in the core's list.
const MODEL_SAPPHIRE_RAPIDS: u32 = 30;
/// The list is longer than this number, but only its length matters.
const MODELS: usize = 39;

static VMX: SingleCell<bool> = SingleCell::new(true);

/// Sets whether the CPU has VMX.
pub fn set_vmx(present: bool) {
    VMX.set(present);
}

struct Names([*const c_char; MODELS + 1]);

// SAFETY: Constant pointers to constant text.
unsafe impl Sync for Names {}

static MODEL_NAMES: Names = {
    let mut names = [c"model".as_ptr(); MODELS + 1];
    names[MODELS] = std::ptr::null();
    Names(names)
};

/// # Safety
///
/// `name` is a C string of the core.
unsafe fn is(name: *const c_char, expected: &CStr) -> bool {
    // SAFETY: As the caller promises.
    unsafe { CStr::from_ptr(name) == expected }
}

/// Replaces `sim_get_param_enum(name)`.
#[export_name = "sim_get_param_enum"]
unsafe extern "C-unwind" fn param_enum(name: *const c_char) -> *mut c_void {
    // SAFETY: The core passes a C string.
    if unsafe { is(name, c"cpu.model") } {
        return core::new_param_enum(
            c"model".as_ptr(),
            MODEL_NAMES.0.as_ptr(),
            MODEL_SAPPHIRE_RAPIDS,
        );
    }
    core::core_param_enum(name)
}

/// Replaces `sim_get_param_bool(name)`.
#[export_name = "sim_get_param_bool"]
unsafe extern "C-unwind" fn param_bool(name: *const c_char) -> *mut c_void {
    // SAFETY: The core passes a C string.
    if unsafe { is(name, c"cpu.ignore_bad_msrs") } {
        return core::new_param_bool(name, 0);
    }
    let found = core::core_param_bool(name);
    if found.is_null() {
        return core::new_param_bool(name, 0);
    }
    found
}

/// Replaces `sim_get_param_num(name)`.
#[export_name = "sim_get_param_num"]
unsafe extern "C-unwind" fn param_num(name: *const c_char) -> *mut c_void {
    let found = core::core_param_num(name);
    if found.is_null() {
        return core::new_param_num(name, 0, u64::MAX, 0);
    }
    found
}

/// Replaces `sim_get_param_string(name)`.
#[export_name = "sim_get_param_string"]
unsafe extern "C-unwind" fn param_string(name: *const c_char) -> *mut c_void {
    // SAFETY: The core passes a C string.
    if unsafe { is(name, c"cpu.exclude_features") } {
        let excluded = match (quirks::excludes_la57(), VMX.get()) {
            (true, true) => c"la57",
            (true, false) => c"la57,vmx",
            (false, true) => c"",
            (false, false) => c"vmx",
        };
        let size = excluded.to_bytes_with_nul().len() as u32;
        return core::new_param_string(c"exclude_features".as_ptr(), excluded.as_ptr(), size);
    }
    core::core_param_string(name)
}
