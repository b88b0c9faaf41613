// SPDX-License-Identifier: GPL-2.0
//! CPUID announces the PMU, tells the host what was counted, and is how a guest marks a place.
//!
//! QEMU executes the instruction; its result is changed before the next one.

use pmu_model::amd::Version;
use pmu_model::mark::Mark;
use pmu_model::stats;

use crate::block::Site;
use crate::leaf;
use crate::leaf::Leaf;
use crate::registers::handles;
use crate::stats::keep_mark;
use crate::vcpu::Vcpu;

/// CPUID is about to be executed.
pub fn execute(vcpu: &mut Vcpu, site: &Site) {
    let eax = vcpu.bus.register(handles().rax) as u32;
    if vcpu.guest.as_ref().is_some_and(|g| g.intercepts_cpuid()) {
        let ecx = vcpu.bus.register(handles().rcx) as u32;
        if eax == stats::LEAF {
            list_from(vcpu, ecx, true);
        }
        let retired = vcpu.instructions_before(site).retired;
        keep_mark(Mark::of(eax, ecx, retired, vcpu.pmu.stats()));
        return;
    }
    let lbr = vcpu.pmu.map().has_lbr();
    let counters = vcpu.pmu.counters().len();
    let leaf = match eax {
        0x8000_0001 => Leaf::Features,
        0x8000_000a => Leaf::Svm { lbr },
        0x8000_0022 if vcpu.version == Some(Version::PerfMonV2) => Leaf::PerfMon { counters, lbr },
        stats::LEAF => {
            let ecx = vcpu.bus.register(handles().rcx) as u32;
            let instructions = vcpu.instructions_before(site);
            let stats = vcpu.pmu.stats_with_oracle();
            list_from(vcpu, ecx, false);
            match vcpu.sweep_mark(ecx) {
                Some(address) => Leaf::Counted(stats::leaf_with(address)),
                None => Leaf::Counted(stats.leaf(ecx, &instructions)),
            }
        }
        _ => return,
    };
    vcpu.cpuid = Some(leaf);
    if site.index + 1 == site.block().insns.len() {
        vcpu.board().leave_with_cpuid();
    }
}

/// A place in the run is marked, where a listing may begin or end.
fn list_from(vcpu: &mut Vcpu, mark: u32, guest: bool) {
    if let Some(on) = vcpu.lister.mark(mark, guest) {
        vcpu.board().listing = on.into();
    }
}

/// CPUID was executed, its result is in the registers.
pub fn executed(vcpu: &mut Vcpu) {
    if let Some(leaf) = vcpu.cpuid.take() {
        let rax = vcpu.bus.register(handles().rax);
        if let Some(rax) = leaf::announce(&mut vcpu.bus, leaf, rax) {
            vcpu.bus.set_register(handles().rax, rax);
        }
    }
}
