// SPDX-License-Identifier: GPL-2.0

//! Where the oracle of the PMU model is told what happens, and what is done when it objects.
//!
//! Task switches are found by looking at the stack pointer before each instruction: one test. When
//! it is on another stack the instruction before tells whether Linux has switched tasks. CPL 3 is
//! looked at as long as something of a guest is in the PMU in host mode.

use std::ops::Range;
use std::sync::OnceLock;

use pmu_model::intel::msr;
use pmu_model::intel::Config;
use pmu_model::intel::Intel;
use pmu_model::intel::PtRegister;
use pmu_model::intel::PT_RANGES;
use pmu_model::oracle::stack_load;
use pmu_model::oracle::BranchRegister;
use pmu_model::oracle::Entry;
use pmu_model::oracle::Finding;
use pmu_model::oracle::Mode;
use pmu_model::oracle::Oracle;
use pmu_model::oracle::Reported;
use pmu_model::oracle::SharedVcpus;
use pmu_model::oracle::TraceEntry;
use pmu_model::oracle::TraceFunctions;
use pmu_model::Pmu;

use crate::capability::ENTRY_LOAD_LBR_CTL;
use crate::capability::ENTRY_LOAD_RTIT_CTL;
use crate::capability::GUEST_LBR_CTL;
use crate::capability::GUEST_RTIT_CTL;
use crate::core;
use crate::gather;
use crate::layout;
use crate::layout::gpr;
use crate::memory;
use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;
use crate::pmu;
use crate::single::SingleCell;
use crate::single::SingleThread;
use crate::stop;
use crate::watch;

/// VMCS fields and bits.
mod vmcs {
    pub const PROC_CONTROLS: u32 = 0x4002;
    pub const ENTRY_CONTROLS: u32 = 0x4012;
    pub const MSR_BITMAP: u32 = 0x2004;
    pub const EXIT_REASON: u32 = 0x4402;
    pub const EXIT_INTERRUPTION: u32 = 0x4404;
    pub const GUEST_CR0: u32 = 0x6800;
    pub const HOST_CR3: u32 = 0x6c02;
    /// Exit reason: WRMSR.
    pub const WRMSR: u32 = 32;
    pub const RDPMC_EXITING: u32 = 1 << 11;
    pub const USE_MSR_BITMAPS: u32 = 1 << 28;
    /// In the bitmap: WRMSR of low MSRs.
    pub const WRITE_LOW: u64 = 0x800;
    /// IA32_LBR_CTL: branches are recorded.
    pub const LBREN: u64 = 1 << 0;
}

/// As large as a kernel stack, or smaller.
const STACK_MASK: u64 = (16 << 10) - 1;
/// CR3: the physical address, without the bit that tells the two page tables of a process.
const PAGE_TABLE: u64 = 0x000f_ffff_ffff_e000;
/// CR0: protected mode.
const CR0_PE: u64 = 1;
/// Kernel addresses.
const KERNEL: u64 = 1 << 63;
/// The longest instruction.
const INSTRUCTION_MAX: u64 = 15;

static MODE: SingleCell<Mode> = SingleCell::new(Mode::Off);
/// Between VM entry and exit.
static INSIDE: CpuCell<bool> = CpuCell::new(false);
/// In host mode, and something of a guest is in the PMU.
static LEFT: CpuCell<bool> = CpuCell::new(false);
/// In host mode CPL 3 was seen, and the oracle does not know yet.
static USER: CpuCell<bool> = CpuCell::new(false);
/// The stack pointer, when it was on another stack before.
static STACK: CpuCell<u64> = CpuCell::new(0);
/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 4] = [&INSIDE, &LEFT, &USER, &STACK];

/// What all CPUs know.
static VCPUS: OnceLock<SharedVcpus> = OnceLock::new();
static REPORTED: SingleThread<Option<Reported>> = SingleThread::new(None);

/// Has the oracle watch the PMU of CPU number `cpu`, whose turn it is. `branch_functions` are those of the kernel
/// that save and load last branch records of guests, `trace_functions` those for registers of Intel PT.
pub fn create(
    cpu: usize,
    mode: Mode,
    branch_functions: &[Range<u64>],
    trace_functions: &TraceFunctions,
) {
    if mode == Mode::Off {
        return;
    }
    pmu::with(|pmu| {
        let vcpus = VCPUS.get_or_init(SharedVcpus::default).clone();
        let oracle = Oracle::new(cpu as u32, vcpus);
        let oracle = oracle.with_branch_functions(branch_functions);
        pmu.watch(oracle.with_trace_functions(trace_functions.clone()));
        MODE.set(mode);
        watch::set(watch::by::ORACLE, true);
    });
}

/// An instruction is about to be executed, of which [`gather`] does not know yet.
#[inline(always)]
pub fn step() {
    let stack = layout::GPR.element(gpr::RSP).get::<u64>();
    if (stack ^ STACK.get()) & !STACK_MASK != 0 {
        stack_moved(stack);
    }
    if layout::CPL.get::<u8>() == 3 && !INSIDE.get() {
        USER.set(true);
        if LEFT.get() {
            user();
        }
    }
}

#[inline(never)]
fn stack_moved(stack: u64) {
    let from = STACK.get();
    STACK.set(stack);
    if INSIDE.get() || from & stack & KERNEL == 0 || layout::CPL.get::<u8>() != 0 {
        return;
    }
    let rip = gather::last_rip();
    if stack_load(&code(rip)).is_none() {
        return;
    }
    pmu::event(rip, |pmu| {
        follow_user(pmu);
        pmu.switch(from, stack);
    });
    follow();
}

/// Tells the oracle whether the host was in user mode.
fn follow_user(pmu: &mut Pmu<Intel>) {
    if let (true, Some(oracle)) = (USER.get(), pmu.oracle_mut()) {
        oracle.has_run_user();
    }
    USER.set(false);
}

#[cold]
fn user() {
    pmu::event(layout::PREV_RIP.get(), |pmu| pmu.user());
    follow();
}

/// The code at `rip`, as far as it is mapped.
fn code(rip: u64) -> Vec<u8> {
    (rip..rip.saturating_add(INSTRUCTION_MAX))
        .map_while(|linear| {
            let (mut physical, mut mask) = (0, 0);
            core::xlate(linear, &mut physical, &mut mask, false, false)
                .then(|| memory::byte(physical))
                .flatten()
        })
        .collect()
}

/// Whether RDPMC of the guest does not exit.
fn has_rdpmc() -> bool {
    core::vmread32(vmcs::PROC_CONTROLS) & vmcs::RDPMC_EXITING == 0
}

/// An MSR bitmap, or that there is none.
#[derive(Clone, Copy)]
struct Bitmap(Option<u64>);

impl Bitmap {
    /// That of the current VMCS.
    fn current() -> Bitmap {
        let controls = core::vmread32(vmcs::PROC_CONTROLS);
        let used = controls & vmcs::USE_MSR_BITMAPS != 0;
        Bitmap(used.then(|| core::vmread64(vmcs::MSR_BITMAP)))
    }

    /// Whether this access to an MSR, one of the low ones, leads to a VM exit.
    fn exits(self, msr: u32, part: u64) -> bool {
        let byte = self
            .0
            .and_then(|map| memory::byte(map + part + u64::from(msr) / 8));
        byte.is_none_or(|byte| byte >> (msr % 8) & 1 != 0)
    }

    /// Whether the guest can read the MSR.
    fn reads(self, msr: u32) -> bool {
        !self.exits(msr, 0)
    }

    /// Whether it can write it.
    fn writes(self, msr: u32) -> bool {
        !self.exits(msr, vmcs::WRITE_LOW)
    }

    /// Whether it can do either.
    fn is_within(self, msr: u32) -> bool {
        self.reads(msr) || self.writes(msr)
    }
}

/// What the guest can read or write without a VM exit: counters, a bit for each, and the status.
fn reach(config: &Config, map: Bitmap) -> (u64, bool) {
    let metrics = (config.metrics > 0).then_some(config.gp + config.fixed);
    let status = map.reads(msr::GLOBAL_STATUS);
    if has_rdpmc() {
        let all = (1 << (config.gp + config.fixed + usize::from(metrics.is_some()))) - 1;
        return (all, status);
    }
    let mut counters = 0;
    for n in 0..config.gp {
        let n_msr = n as u32;
        if map.is_within(msr::PMC0 + n_msr) || map.is_within(msr::A_PMC0 + n_msr) {
            counters |= 1 << n;
        }
    }
    for n in 0..config.fixed {
        if map.is_within(msr::FIXED_CTR0 + n as u32) {
            counters |= 1 << (config.gp + n);
        }
    }
    if let Some(n) = metrics.filter(|_| map.is_within(msr::PERF_METRICS)) {
        counters |= 1 << n;
    }
    (counters, status)
}

/// The last branch records that the guest can read without a VM exit, or has recorded: the bit of each.
fn reach_of_branches(map: Bitmap) -> u128 {
    let loads = core::vmread32(vmcs::ENTRY_CONTROLS) & ENTRY_LOAD_LBR_CTL != 0;
    let is_on = || core::vmread64(GUEST_LBR_CTL) & vmcs::LBREN != 0;
    let mut bits = 0;
    if loads && (is_on() || map.writes(msr::LBR_CTL)) {
        bits |= BranchRegister::BITS_OF_ENTRIES;
    }
    if !loads && map.reads(msr::LBR_CTL) {
        bits |= BranchRegister::Control.bit();
    }
    let reads = |register: &BranchRegister| match *register {
        BranchRegister::From(n) => map.reads(msr::LBR_FROM0 + n as u32),
        BranchRegister::To(n) => map.reads(msr::LBR_TO0 + n as u32),
        BranchRegister::Info(n) => map.reads(msr::LBR_INFO0 + n as u32),
        _ => false,
    };
    let read = BranchRegister::of_entries().filter(reads);
    bits = read.fold(bits, |bits, register| bits | register.bit());
    bits
}

/// What the VM entry has to do with Intel PT.
fn trace_entry(map: Bitmap) -> TraceEntry {
    let loads = core::vmread32(vmcs::ENTRY_CONTROLS) & ENTRY_LOAD_RTIT_CTL != 0;
    let mut reads = 0;
    let mut add = |register, msr| {
        if map.reads(msr) {
            reads |= TraceEntry::bit(register);
        }
    };
    add(PtRegister::Status, msr::RTIT_STATUS);
    add(PtRegister::OutputBase, msr::RTIT_OUTPUT_BASE);
    add(PtRegister::OutputMaskPtrs, msr::RTIT_OUTPUT_MASK_PTRS);
    add(PtRegister::Cr3Match, msr::RTIT_CR3_MATCH);
    for n in 0..PT_RANGES {
        let a = msr::RTIT_ADDR0_A + 2 * n as u32;
        add(PtRegister::AddrA(n), a);
        add(PtRegister::AddrB(n), a + 1);
    }
    TraceEntry {
        control: loads.then(|| core::vmread64(GUEST_RTIT_CTL)),
        reads,
    }
}

/// A VM entry fails, for its controls. It may be that TraceEn is set.
pub fn entry_fails() {
    if MODE.get() != Mode::Off && pmu::with(|pmu| pmu.map().traces()) == Some(true) {
        pmu::event(layout::PREV_RIP.get(), |pmu| pmu.entry_failed_of_trace());
        follow();
    }
}

/// A VM entry begins: what is to be known of it as long as the host's registers are there.
pub fn before_entry() -> Option<Entry> {
    if MODE.get() == Mode::Off {
        return None;
    }
    let (config, map) = (pmu::config()?, Bitmap::current());
    let (counters, status) = reach(&config, map);
    pmu::is_at(layout::PREV_RIP.get());
    let reason = core::vmread32(vmcs::EXIT_REASON) | core::vmread32(vmcs::EXIT_INTERRUPTION);
    Some(Entry {
        guest: layout::VMCS_POINTER.get(),
        process: core::vmread64(vmcs::HOST_CR3) & PAGE_TABLE,
        initial: core::vmread64(vmcs::GUEST_CR0) & CR0_PE == 0,
        // KVM makes a VMCS of zeroes. Reason 0 is an exception, which is then described.
        fresh: reason == 0,
        stack: layout::GPR.element(gpr::RSP).get(),
        counters,
        status,
        rdpmc: has_rdpmc(),
        branches: match config.lbr {
            true => reach_of_branches(map),
            false => 0,
        },
        trace: match config.pt {
            true => trace_entry(map),
            false => TraceEntry::default(),
        },
    })
}

/// The VM entry has succeeded.
pub fn enter(entry: Option<Entry>) {
    if let Some(entry) = entry {
        INSIDE.set(true);
        // Still on account of the instruction that enters: PREV_RIP is the guest's by now.
        pmu::with(|pmu| {
            follow_user(pmu);
            pmu.enter(entry);
        });
        STACK.set(layout::GPR.element(gpr::RSP).get());
        follow();
    }
}

/// VM exit: the host's registers are loaded.
pub fn exit() {
    if MODE.get() == Mode::Off {
        return;
    }
    INSIDE.set(false);
    let asked = (core::vmread32(vmcs::EXIT_REASON) == vmcs::WRMSR).then(|| {
        let register = |n| layout::GPR.element(n).get::<u64>();
        let value = register(gpr::RDX) << 32 | register(gpr::RAX) & 0xffff_ffff;
        (register(gpr::RCX) as u32, value)
    });
    pmu::event(layout::RIP.get(), |pmu| {
        pmu.exit();
        if let Some((msr, value)) = asked {
            if let Some(register) = pmu.register(msr) {
                pmu.asks(layout::VMCS_POINTER.get(), register, value);
            }
        }
    });
    STACK.set(layout::GPR.element(gpr::RSP).get());
    gather::forget_rip();
    follow();
}

/// Something was done to the PMU: acts on what the oracle says.
pub fn follow() {
    let finding = pmu::with(|pmu| {
        let finding = pmu.oracle_mut()?.take_finding();
        LEFT.set(!INSIDE.get() && pmu.has_left());
        finding
    });
    if let Some(finding) = finding.flatten() {
        report(&finding);
    }
}

#[cold]
fn report(finding: &Finding) {
    let new = REPORTED.with(|reported| reported.get_or_insert_default().is_new(finding));
    if new {
        let code = code(finding.place.rip);
        let code: Vec<_> = code.iter().map(|byte| format!("{byte:02x}")).collect();
        eprint!("{finding}oracle:   code: {}\noracle: end\n", code.join(" "));
    }
    if MODE.get() == Mode::On {
        stop::now(stop::Reason::Violation);
    }
}
