// SPDX-License-Identifier: GPL-2.0
//! The leaves of CPUID that announce the PMU, or tell the host what was counted.

use pmu_model::amd::DF_COUNTERS;
use pmu_model::amd::LBR_ENTRIES;

use crate::registers::handles;
use crate::registers::Bus;

/// A leaf that speaks of the PMU.
#[derive(Clone, Copy)]
pub enum Leaf {
    /// Fn8000_0001: extended features.
    Features,
    /// Fn8000_000A: SVM, which switches last branch records or not.
    Svm {
        /// It does.
        lbr: bool,
    },
    /// Fn8000_0022: extended performance monitoring, with a last branch record stack or without.
    PerfMon {
        /// How many core counters there are.
        counters: usize,
        /// With it.
        lbr: bool,
    },
    /// The machine's own: what it has counted.
    Counted([u32; 4]),
}

/// Fn8000_0001 ECX: TOPOEXT, which perf asks for before the next two, and PERFCTR_CORE, PERFCTR_NB
/// and PERFCTR_LLC: the counters of the core, the data fabric and the L3.
const PERFCTR: u64 = 1 << 22 | 1 << 23 | 1 << 24 | 1 << 28;
/// Fn8000_000A EDX: NRIPS, nRIP is saved at #VMEXIT.
const NRIPS: u64 = 1 << 3;
/// Fn8000_000A EDX: LBR virtualization.
const LBR_VIRT: u64 = 1 << 1;
/// Fn8000_0022 EAX: PerfMonV2.
const PERF_MON_V2: u64 = 1;
/// Fn8000_0022 EAX: there is a last branch record stack.
const LBR_STACK: u64 = 1 << 1;
/// Fn8000_0022 EAX: a PMI can freeze the counters and the LBR stack.
const LBR_AND_PMC_FREEZE: u64 = 1 << 2;
/// Fn8000_0022 EBX: number of core counters.
const NUM_PERF_CTR_CORE: u64 = 0xf;
/// Fn8000_0022 EBX: number of entries of the last branch record stack.
const LBR_STACK_SIZE_SHIFT: u32 = 4;
/// The bits of it.
const LBR_STACK_SIZE: u64 = 0x3f << LBR_STACK_SIZE_SHIFT;
/// Fn8000_0022 EBX: number of counters of the data fabric.
const NUM_PERF_CTR_NB_SHIFT: u32 = 10;
/// The bits of it.
const NUM_PERF_CTR_NB: u64 = 0x3f << NUM_PERF_CTR_NB_SHIFT;

/// Changes what CPUID returned; returns RAX if that is to be changed too.
pub fn announce(bus: &mut Bus, leaf: Leaf, rax: u64) -> Option<u64> {
    match leaf {
        Leaf::Features => {
            let rcx = bus.register(handles().rcx);
            bus.set_register(handles().rcx, rcx | PERFCTR);
            None
        }
        Leaf::Svm { lbr } => {
            let rdx = bus.register(handles().rdx);
            let lbr_virt = if lbr { LBR_VIRT } else { 0 };
            bus.set_register(handles().rdx, rdx & !LBR_VIRT | NRIPS | lbr_virt);
            None
        }
        Leaf::PerfMon { counters, lbr } => {
            let (stack, entries) = match lbr {
                true => (LBR_STACK, LBR_ENTRIES as u64),
                false => (0, 0),
            };
            let rbx = bus.register(handles().rbx);
            let rbx = rbx & !(NUM_PERF_CTR_CORE | LBR_STACK_SIZE | NUM_PERF_CTR_NB)
                | counters as u64
                | entries << LBR_STACK_SIZE_SHIFT
                | (DF_COUNTERS as u64) << NUM_PERF_CTR_NB_SHIFT;
            bus.set_register(handles().rbx, rbx);
            Some(rax & !LBR_STACK | PERF_MON_V2 | LBR_AND_PMC_FREEZE | stack)
        }
        Leaf::Counted([eax, ebx, ecx, edx]) => {
            bus.set_register(handles().rbx, ebx.into());
            bus.set_register(handles().rcx, ecx.into());
            bus.set_register(handles().rdx, edx.into());
            Some(eax.into())
        }
    }
}
