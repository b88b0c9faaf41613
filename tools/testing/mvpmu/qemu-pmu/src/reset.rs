// SPDX-License-Identifier: GPL-2.0
//! RESET and INIT.
//!
//! A plugin is not told of them. But the first instruction afterwards is known, and the registers
//! have values then that they all have at no other time.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use pmu_model::Reset;

use crate::registers::handles;
use crate::vcpu::Vcpu;

/// Where a CPU starts after RESET, and the bootstrap processor after INIT.
const RESET_VECTOR: u64 = 0xffff_fff0;
/// CR0 after RESET and INIT: ET, and caching off.
const CR0_INITIAL: u64 = 0x6000_0010;
/// CR0: protected mode.
pub const CR0_PE: u64 = 1;

/// RESETs so far. One resets all CPUs, but is seen on the bootstrap processor first: the others
/// start by a start-up IPI as after an INIT, and learn here that it was more.
static RESETS: AtomicU64 = AtomicU64::new(0);

/// Whether a CPU could start at `vaddr`: at the reset vector, or at the start of a page below
/// 1 MiB where a start-up IPI sends it.
pub fn may_start_at(vaddr: u64) -> bool {
    vaddr == RESET_VECTOR || vaddr & 0xfff == 0 && vaddr < 1 << 20
}

/// A block in real mode starts where [`may_start_at`] is true: is it the first one after RESET or
/// INIT?
pub fn check(vcpu: &mut Vcpu, vaddr: u64) {
    let names = handles();
    let bus = &mut vcpu.bus;
    let cleared = [
        names.rax, names.rbx, names.rcx, names.rsi, names.rdi, names.cr2, names.cr4, names.efer,
    ];
    if bus.register(names.cr0) != CR0_INITIAL || cleared.iter().any(|r| bus.register(*r) != 0) {
        return;
    }
    let resets = if vaddr == RESET_VECTOR {
        RESETS.fetch_add(1, Ordering::Relaxed) + 1
    } else {
        RESETS.load(Ordering::Relaxed)
    };
    let reset = if vcpu.resets == resets {
        Reset::Init
    } else {
        Reset::Reset
    };
    vcpu.resets = resets;
    vcpu.fold();
    vcpu.pmu.reset(reset);
    if reset == Reset::Reset {
        vcpu.pmi_delay.reset();
    }
    vcpu.arm();
    vcpu.apic.reset(reset);
    vcpu.guest = None;
    vcpu.exited = false;
    vcpu.asked = None;
    vcpu.lbr_of = None;
    vcpu.cpuid = None;
    vcpu.rep = None;
    vcpu.exception = false;
    vcpu.fetch_fault = None;
    vcpu.board().leave();
    vcpu.oracle_follow();
    vcpu.pmu.stats_mut().resets += 1;
    vcpu.publish();
}
