// SPDX-License-Identifier: GPL-2.0
//! CPUID announces the PMU, tells the host what was counted, and is how a guest marks a place.
//!
//! QEMU executes the instruction; its result is changed before the next one.

use pmu_model::amd::Version;
use pmu_model::amd::COUNTERS;
use pmu_model::mark::Mark;
use pmu_model::stats;

use crate::block::Site;
use crate::registers::handles;
use crate::registers::Bus;
use crate::stats::keep_mark;
use crate::vcpu::Vcpu;

/// A leaf that speaks of the PMU.
#[derive(Clone, Copy)]
pub enum Leaf {
    /// Fn8000_0001: extended features.
    Features,
    /// Fn8000_0022: extended performance monitoring.
    PerfMon,
    /// The machine's own: what it has counted.
    Counted([u32; 4]),
}

/// Fn8000_0001 ECX: PERFCTR_CORE.
const PERFCTR_CORE: u64 = 1 << 23;
/// Fn8000_0022 EAX: PerfMonV2.
const PERF_MON_V2: u64 = 1;
/// Fn8000_0022 EBX: number of core counters.
const NUM_PERF_CTR_CORE: u64 = 0xf;

/// CPUID is about to be executed.
pub fn execute(vcpu: &mut Vcpu, site: &Site) {
    let eax = vcpu.bus.register(handles().rax) as u32;
    // The block has added all of its instructions.
    let ahead = site.block().counts_from(site.index).0;
    if vcpu.guest.as_ref().is_some_and(|g| g.intercepts_cpuid()) {
        let ecx = vcpu.bus.register(handles().rcx) as u32;
        let instructions = vcpu.instructions() - ahead;
        keep_mark(Mark::of(eax, ecx, instructions, vcpu.pmu.stats()));
        return;
    }
    let leaf = match eax {
        0x8000_0001 => Leaf::Features,
        0x8000_0022 if vcpu.version == Some(Version::PerfMonV2) => Leaf::PerfMon,
        stats::LEAF => {
            let ecx = vcpu.bus.register(handles().rcx) as u32;
            let instructions = vcpu.instructions() - ahead;
            Leaf::Counted(vcpu.pmu.stats().leaf(ecx, Some(instructions)))
        }
        _ => return,
    };
    vcpu.cpuid = Some(leaf);
    if site.index + 1 == site.block().insns.len() {
        vcpu.board().leave_with_cpuid();
    }
}

/// CPUID was executed, its result is in the registers.
pub fn executed(vcpu: &mut Vcpu) {
    if let Some(leaf) = vcpu.cpuid.take() {
        let rax = vcpu.bus.register(handles().rax);
        if let Some(rax) = announce(&mut vcpu.bus, leaf, rax) {
            vcpu.bus.set_register(handles().rax, rax);
        }
    }
}

/// Changes what CPUID returned; returns RAX if that is to be changed too.
pub fn announce(bus: &mut Bus, leaf: Leaf, rax: u64) -> Option<u64> {
    match leaf {
        Leaf::Features => {
            let rcx = bus.register(handles().rcx);
            bus.set_register(handles().rcx, rcx | PERFCTR_CORE);
            None
        }
        Leaf::PerfMon => {
            let rbx = bus.register(handles().rbx);
            let rbx = rbx & !NUM_PERF_CTR_CORE | COUNTERS as u64;
            bus.set_register(handles().rbx, rbx);
            Some(rax | PERF_MON_V2)
        }
        Leaf::Counted([eax, ebx, ecx, edx]) => {
            bus.set_register(handles().rbx, ebx.into());
            bus.set_register(handles().rcx, ecx.into());
            bus.set_register(handles().rdx, edx.into());
            Some(eax.into())
        }
    }
}
