// SPDX-License-Identifier: GPL-2.0

//! Counting, instruction by instruction: the core's instrumentation entry
//! points before and after each one, and what it does in between.
//!
//! This is the hot path: the instructions that retire are always counted, all else only when somebody
//! watches: see [`watch`].

use std::ffi::c_void;

use pmu_model::intel::BranchKind;
use pmu_model::intel::PtEvent;
use pmu_model::Source;

use crate::bts;
use crate::gather;
use crate::gather::did;
use crate::gather::Branch;
use crate::lbr;
use crate::listing;
use crate::oracle;
use crate::pmu;
use crate::pt;
use crate::sweep;
use crate::watch;
use crate::watch::by;

/// The current instruction retires.
#[inline(always)]
pub fn retire() {
    if gather::retire() {
        pmu::fold();
    }
}

#[no_mangle]
extern "C-unwind" fn bx_instr_before_execution(_cpu: u32, _instruction: *const c_void) {
    const RARE: u32 = by::SWEEP | by::LISTING | by::PMI;
    let watched = watch::get();
    if watched & RARE != 0 {
        rarely(watched);
    }
    if watched & by::ORACLE != 0 {
        oracle::step();
    }
    gather::begin();
}

#[cold]
fn rarely(watched: u32) {
    if watched & by::SWEEP != 0 {
        sweep::step();
    }
    if watched & by::LISTING != 0 {
        listing::step();
    }
    // An interrupt of a sweep may be one.
    if watch::get() & by::PMI != 0 {
        pmu::step();
    }
}

#[no_mangle]
extern "C-unwind" fn bx_instr_after_execution(_cpu: u32, _instruction: *const c_void) {
    retire();
}

/// The current instruction branches: tells those who record it.
#[inline(always)]
fn record(from: u64, to: u64, kind: BranchKind, event: PtEvent) {
    const RECORD: u32 = by::BTS | by::LBR | by::PT;
    #[cold]
    fn tell(from: u64, to: u64, kind: BranchKind, event: PtEvent) {
        bts::branch(from, to);
        lbr::branch(kind, from, to);
        pt::event(event);
    }
    if watch::get() & RECORD != 0 {
        tell(from, to, kind, event);
    }
}

#[no_mangle]
extern "C-unwind" fn bx_instr_cnear_branch_taken(_cpu: u32, from: u64, to: u64) {
    record(from, to, BranchKind::Conditional, PtEvent::Taken(to));
    gather::branches(Branch::near(Source::Taken));
}

#[no_mangle]
extern "C-unwind" fn bx_instr_cnear_branch_not_taken(_cpu: u32, _from: u64) {
    if watch::get() & by::PT != 0 {
        pt::event(PtEvent::NotTaken);
    }
    gather::branches(Branch::near(Source::NotTaken));
}

/// The core's kinds of near branches.
mod near {
    pub const JUMP_INDIRECT: u32 = 11;
    pub const CALL: u32 = 12;
    pub const CALL_INDIRECT: u32 = 13;
    pub const RETURN: u32 = 14;
}

#[no_mangle]
extern "C-unwind" fn bx_instr_ucnear_branch(_cpu: u32, what: u32, from: u64, to: u64) {
    let (kind, branch) = match what {
        near::JUMP_INDIRECT => (BranchKind::JumpIndirect, Branch::indirect(Source::Jumps)),
        near::CALL => (BranchKind::CallRelative, Branch::near(Source::Calls)),
        near::CALL_INDIRECT => (BranchKind::CallIndirect, Branch::indirect(Source::Calls)),
        near::RETURN => (BranchKind::Return, Branch::near(Source::Returns)),
        _ => (BranchKind::JumpRelative, Branch::near(Source::Jumps)),
    };
    let event = match kind {
        BranchKind::JumpRelative | BranchKind::CallRelative => PtEvent::Direct(to),
        _ => PtEvent::Indirect(to),
    };
    record(from, to, kind, event);
    gather::branches(branch);
}

/// The core's kind of far branches that deliver an interrupt.
const FAR_INT: u32 = 16;

#[no_mangle]
extern "C-unwind" fn bx_instr_far_branch(
    _cpu: u32,
    what: u32,
    _from_cs: u16,
    from: u64,
    _to_cs: u16,
    to: u64,
) {
    bts::branch(from, to);
    // The others are recorded where they are delivered.
    if what != FAR_INT {
        lbr::branch(BranchKind::Other, from, to);
        pt::event(PtEvent::Far(to));
    }
    gather::branches(Branch::near(Source::FarBranches));
}

#[no_mangle]
extern "C-unwind" fn bx_instr_hwinterrupt(_cpu: u32, _vector: u32, _cs: u16, _rip: u64) {
    if gather::interrupted() {
        pmu::fold();
    }
}

#[no_mangle]
extern "C-unwind" fn bx_instr_clflush(_cpu: u32, _linear: u64, _physical: u64) {
    gather::note(did::FLUSH);
}

#[no_mangle]
extern "C-unwind" fn bx_instr_lin_access(
    _cpu: u32,
    _linear: u64,
    _physical: u64,
    _len: u32,
    _memory_type: u32,
    kind: u32,
) {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const READ_MODIFY_WRITE: u32 = 3;
    gather::note(match kind {
        READ => did::LOAD,
        WRITE => did::STORE,
        READ_MODIFY_WRITE => did::LOAD | did::STORE,
        _ => 0,
    });
}
