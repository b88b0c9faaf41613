// SPDX-License-Identifier: GPL-2.0
//! A CPU with AMD PerfMonV2, as a plugin for stock `qemu-system-x86_64` 11.1 with TCG.
//!
//! ```text
//! qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu EPYC-Genoa,-avx512f ... \
//!     -plugin libqemu_pmu.so,pmu=on,oracle=on,stats=FILE
//! ```
//!
//! The modules are listed from the bottom up: none knows one further down in the list but those it
//! is listed with.
//!
//! QEMU's translated code counts instructions, branches and memory accesses per block
//! ([`translate`], [`emit`], [`callbacks`], [`board`]), what a block did not execute after all is
//! taken back ([`count`], [`discon`], [`rep`]), and the PMU model gets the sums when somebody looks
//! ([`msr`]) or a counter may wrap ([`pmi`]). [`svm`] knows host from guest mode, [`lbr`] is what it
//! switches of last branch records, [`cpuid`] announces the PMU, [`reset`] notices RESET and INIT, [`oracle`] has the PMU model watch whose values are where,
//! [`sweep`] injects interrupts, [`listing`] notes what is executed, [`branches`] records where branches
//! went.
//!
//! What differs from hardware: a PMI comes (or begins to take its time) before the first block that
//! starts after the overflow, not within the block, and when the last block of user mode wraps a
//! counter, before the next one of user mode; events of memory accesses that one instruction makes
//! by the hundred (REP MOVS) may bring it later. A local APIC that is not written like Linux writes
//! it (a 32-bit MOV or XCHG to its fixmap, or x2APIC MSRs) works, but its LVTPC writes are not
//! counted.

// QEMU, and what is known of it.
pub mod api;
pub mod quirks;
pub mod symbols;

// Types, and what can be done with them alone.
pub mod apic;
pub mod args;
pub mod block;
pub mod board;
pub mod decode;
pub mod demand;
pub mod guest;
pub mod ignne;
mod leaf;
pub mod leave;
pub mod listing;
pub mod registers;
pub mod rep;
pub mod stats;

// A vCPU, which has one of each. Then what changes it: its PMU, the oracle, what instructions do.
pub mod vcpu;

pub mod branches;
pub mod pmi;

pub mod count;

pub mod oracle;

pub mod cpuid;
pub mod lbr;
pub mod msr;
pub mod reset;
pub mod svm;
pub mod sweep;

pub mod discon;

// What translated code calls, and how it comes to be there.
pub mod callbacks;

pub mod emit;

pub mod translate;

use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::ffi::CStr;
use std::sync::OnceLock;

use args::Args;

/// Tells QEMU which plugin API this plugin was made for.
#[no_mangle]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: c_int = api::VERSION;

static ARGS: OnceLock<Args> = OnceLock::new();

/// QEMU loads the plugin. A return value other than 0 makes it stop.
///
/// # Safety
///
/// To be called by QEMU.
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: api::PluginId,
    info: *const api::Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU passes its description and `argc` C strings.
    let (info, args) = unsafe {
        let args = (0..argc as usize).map(|n| CStr::from_ptr(*argv.add(n)));
        (&*info, args.map(CStr::to_string_lossy).collect::<Vec<_>>())
    };
    let start = || {
        check_qemu(info)?;
        symbols::load()?;
        args::parse(args.iter().map(AsRef::as_ref))
    };
    match start() {
        Ok(args) => {
            quirks::leave_out(args.without);
            if quirks::active(quirks::Quirk::FpuStatus) {
                if let Err(reason) = ignne::leave_alone() {
                    eprintln!("qemu-pmu: {reason}");
                    return 1;
                }
            }
            if let Some(path) = &args.stats {
                stats::write_to(path.clone(), args.version());
            }
            ARGS.get_or_init(|| args);
        }
        Err(reason) => {
            eprintln!("qemu-pmu: {reason}");
            return 1;
        }
    }
    let none = std::ptr::null_mut();
    // SAFETY: The identity is ours, the callbacks have the types QEMU wants.
    unsafe {
        api::qemu_plugin_register_vcpu_init_cb(id, vcpu_starts, none);
        api::qemu_plugin_register_vcpu_tb_trans_cb(id, translate::translated, none);
        api::qemu_plugin_register_vcpu_discon_cb(
            id,
            api::DISCON_INTERRUPT | api::DISCON_EXCEPTION,
            discontinuity,
            none,
        );
        api::qemu_plugin_register_flush_cb(id, flushed, none);
        api::qemu_plugin_register_atexit_cb(id, exits, none);
    }
    0
}

/// Whether this QEMU is one the plugin can work in.
fn check_qemu(info: &api::Info) -> Result<(), String> {
    // SAFETY: QEMU's name of the target is a C string.
    let target = unsafe { CStr::from_ptr(info.target_name) };
    if target != c"x86_64" || !info.system_emulation {
        return Err("this plugin is for qemu-system-x86_64".into());
    }
    if !(info.version_min..=info.version_cur).contains(&api::VERSION) {
        return Err(format!(
            "this QEMU has plugin API {} to {}, needed is {}: use QEMU 11.1",
            info.version_min,
            info.version_cur,
            api::VERSION
        ));
    }
    Ok(())
}

fn arguments() -> &'static Args {
    ARGS.get().expect("arguments are parsed at install")
}

unsafe extern "C-unwind" fn vcpu_starts(index: c_uint, _data: *mut c_void) {
    let start = || {
        registers::find()?;
        vcpu::start(index, arguments())?;
        // SAFETY: In the vCPU's thread, once, after its start.
        let vcpu = unsafe { vcpu::get(index) };
        if arguments().version().is_some() {
            vcpu.watch(arguments().oracle);
        }
        leave::check(vcpu.cpu_state(), &mut vcpu.bus)?;
        vcpu.arm();
        vcpu.publish();
        Ok(())
    };
    let result: Result<(), String> = start();
    if let Err(reason) = result {
        eprintln!("qemu-pmu: {reason}");
        // SAFETY: Ends the process at once. exit() would wait for this thread.
        unsafe { libc::_exit(1) }
    }
}

unsafe extern "C-unwind" fn discontinuity(
    index: c_uint,
    kind: api::Discontinuity,
    from: u64,
    _to: u64,
    _data: *mut c_void,
) {
    // SAFETY: In the vCPU's thread, once.
    let vcpu = unsafe { vcpu::get(index) };
    discon::happened(vcpu, kind, from);
}

unsafe extern "C" fn flushed(_data: *mut c_void) {
    let used = vcpu::all()
        // SAFETY: The vCPU exists, and QEMU has stopped all of them while it flushes.
        .map(|index| unsafe { (*board::find(index)).block() })
        .collect();
    block::flushed(&used, listing::take);
}

unsafe extern "C" fn exits(_data: *mut c_void) {
    stats::write();
    listing::print();
}
