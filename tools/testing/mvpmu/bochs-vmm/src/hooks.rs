// SPDX-License-Identifier: GPL-2.0

//! The core's other callbacks: HLT, VM exits and the marks of guests, reset, and
//! the instrumentation entry points that nothing here needs. All have to be
//! replaced: the wheel's own look for a CPU object of its own kind.

use std::ffi::c_void;

use pmu_model::mark::Mark;
use pmu_model::stats::LEAF;

use crate::core;
use crate::cpus;
use crate::gather;
use crate::layout;
use crate::layout::gpr;
use crate::listing;
use crate::pmu;
use crate::quirks;
use crate::single::SingleThread;
use crate::stop;

/// Basic exit reasons that are told apart.
pub const EXIT_REASONS: usize = 80;

const EXIT_REASON_CPUID: usize = 10;

static EXITS: SingleThread<[u64; EXIT_REASONS]> = SingleThread::new([0; EXIT_REASONS]);

/// VM exits by basic exit reason.
pub fn exits() -> [u64; EXIT_REASONS] {
    EXITS.with(|exits| *exits)
}

static MARKS: SingleThread<Vec<Mark>> = SingleThread::new(Vec::new());

/// What guests have marked.
pub fn marks() -> Vec<Mark> {
    MARKS.with(|marks| marks.clone())
}

/// A guest has executed CPUID.
fn mark() {
    let register = |n| layout::GPR.element(n).get::<u64>() as u32;
    let stats = pmu::stats().unwrap_or_default();
    let (eax, ecx) = (register(gpr::RAX), register(gpr::RCX));
    if eax == LEAF {
        listing::guest_mark(ecx);
    }
    let mark = Mark::of(eax, ecx, gather::retired(), &stats);
    MARKS.with(|marks| marks.extend(mark));
}

#[no_mangle]
extern "C-unwind" fn bx_instr_vmexit(_cpu: u32, reason: u32, _qualification: u64) {
    let basic = (reason & 0xffff) as usize;
    EXITS.with(|exits| {
        if let Some(count) = exits.get_mut(basic) {
            *count += 1;
        }
    });
    if basic == EXIT_REASON_CPUID {
        mark();
    }
}

/// HLT, or TPAUSE.
#[no_mangle]
extern "C-unwind" fn bx_instr_hlt(_cpu: u32) {
    let len = layout::RIP
        .get::<u64>()
        .wrapping_sub(layout::PREV_RIP.get());
    let in_guest = layout::IN_VMX_GUEST.get::<u8>() != 0;
    let for_good = quirks::is_hlt(len) && !in_guest && !layout::takes_interrupts();
    if for_good && cpus::others_are_halted_for_good() {
        stop::now(stop::Reason::HaltedForGood);
    }
}

/// Replaces `BX_CPU_C::enter_sleep_state(state)`.
#[export_name = "_ZN8BX_CPU_C17enter_sleep_stateEj"]
extern "C-unwind" fn enter_sleep_state(state: u32) {
    const SHUTDOWN: u32 = 2;
    if state == SHUTDOWN && layout::IN_VMX_GUEST.get::<u8>() == 0 {
        stop::now(stop::Reason::TripleFault);
    }
    core::core_enter_sleep_state(state);
    cpus::halted();
}

/// Replaces `bx_pc_system_c::Reset(type)`.
#[export_name = "_ZN14bx_pc_system_c5ResetEj"]
extern "C-unwind" fn reset(_this: *mut c_void, _kind: u32) -> i32 {
    stop::now(stop::Reason::Reset);
    0
}

/// Replaces `bx_pc_system_c::invlpg(address)`: INVLPG is about one CPU.
#[export_name = "_ZN14bx_pc_system_c6invlpgEm"]
extern "C-unwind" fn invlpg(_this: *mut c_void, _address: u64) {}

/// Replaces `bx_pc_system_c::get_enable_a20()`.
#[export_name = "_ZN14bx_pc_system_c14get_enable_a20Ev"]
extern "C-unwind" fn a20(_this: *mut c_void) -> bool {
    true
}

/// Replaces `BX_CPU_C::debug(offset)`: a dump of the registers.
#[export_name = "_ZN8BX_CPU_C5debugEm"]
extern "C-unwind" fn debug(_offset: u64) {}

macro_rules! unused_hooks {
    ($($name:ident)*) => {$(
        #[no_mangle]
        extern "C-unwind" fn $name() {}
    )*};
}

unused_hooks! {
    bx_instr_cache_cntrl bx_instr_exception bx_instr_exit bx_instr_exit_env
    bx_instr_init_env bx_instr_initialize bx_instr_inp bx_instr_inp2 bx_instr_interrupt
    bx_instr_mwait bx_instr_opcode bx_instr_outp bx_instr_phy_access bx_instr_prefetch_hint
    bx_instr_repeat_iteration bx_instr_reset bx_instr_wrmsr
}
