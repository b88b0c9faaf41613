// SPDX-License-Identifier: GPL-2.0
//! Architectural last branch records: from where to where the last branches went.
//!
//! | rule (sections are those of SDM volume 3, "Last Branch Records", unless said otherwise) | source |
//! |---|---|
//! | they are there with CPUID.07H:EDX\[19\]; what there is of them is in leaf 1CH | volume 2, CPUID |
//! | depths of 8, 16 and 32: bits 0, 1 and 3 of EAX there | that Sapphire Rapids has 32: what Linux says at boot; of the others: no source |
//! | EBX there: filters by CPL and by kind, call-stack mode; ECX: mispredictions and kinds are recorded, cycles are not | volume 2, CPUID; that this is what there is: as Linux wants it, but for cycles, which a CPU counts |
//! | IA32_LBR_CTL: LBREn (bit 0) has branches recorded, OS and USR (1, 2) at those CPLs, CALL_STACK (3), bits 22:16 those of a kind; #GP for the others | volume 4, IA32_LBR_CTL |
//! | of an operation that changes the CPL that where it ends counts; when that where it began is not recorded, FROM_IP is all ones | "CPL Filtering" |
//! | IA32_LBR_DEPTH: #GP for a depth that CPUID does not offer; a write clears all entries; it is the largest at first | "LBR Depth"; Linux, arch/x86/events/intel/lbr.c, intel_pmu_arch_lbr_reset() |
//! | #GP for the registers of entries beyond the depth | "LBR Depth" |
//! | entry 0 is the newest; older ones shift | "Last Branch Records", the introduction |
//! | INFO: MISPRED (63), IN_TSX, TSX_ABORT, CYC_CNT_VALID (60), BR_TYPE (59:56), CYC_CNT (15:0); the others are undefined | volume 4, IA32_LBR_x_INFO |
//! | kinds: COND with LOOP and JCXZ, near jumps, calls and returns; OTHER_BRANCH are far ones, SYSCALL and the like, INTn, IRET, interrupts and exceptions | "Branch Type Enabling and Filtering", "Branch Types" |
//! | FROM_IP is the address of the branch or of the instruction that faults, after an interrupt of the next one | "Logged Operations" |
//! | #DB, VM entry and VM exit are not recorded | "Logged Operations" |
//! | #DB clears LBREn | "Debug Breakpoints": quoted as "On a debug breakpoint event (#DB), IA32_LBR_CTL.LBREn is cleared" in patches of KVM (2022) |
//! | call-stack mode: a near return that would be recorded takes entry 0 off instead, and the oldest becomes 0 | "Call-Stack Mode" |
//! | while LBR_FRZ of IA32_PERF_GLOBAL_STATUS is set, by a PMI or by software, nothing is recorded | "Last Branch Records", the introduction; "Streamlined Freeze_LBRs_On_PMI" |
//! | RESET clears all. A warm reset would keep all but LBREn; there is none | "Resets", as quoted by the same patches |
//! | INIT changes nothing | table "Power-up, Reset, INIT": what all other MSRs do; the section on last branch records does not say it |
//! | VM entry loads IA32_LBR_CTL if asked to, after a check of its reserved bits; VM exit saves it always, and clears it if asked to | "Checks on Guest Control Registers, Debug Registers, and MSRs", "Loading ...", "Saving Control Registers, Debug Registers, and MSRs", "VM-Exit Controls" |
//! | the records stay as they are in VM entry and exit | nothing there says otherwise |
//! | an event that VM entry injects is recorded as others are, #DB neither is nor does it clear LBREn | for #DB: "Vectored-Event Injection", IA32_DEBUGCTL; else no source |
//! | software can write the entries, addresses as it likes; the undefined bits of INFO stay 0 | volume 4: they are read/write; of addresses that are not canonical: no source |
//!
//! What is modelled rather than real: a branch is mispredicted when it is a near jump or call whose target is
//! not in the instruction (as on the AMD machine: [`SourceSet::MISPREDICTED`](crate::SourceSet::MISPREDICTED)).
//! A call of the next instruction is recorded, which a CPU leaves out. INIT and SIPI are not recorded. There are
//! neither the last event record (IA32_LER_*) nor XSAVE's component for all this.

use crate::options::Random;
use crate::oracle::Recorded;
use crate::Fault;

use super::bits::status;
use super::checked;
use super::msr;
use super::Config;
use super::CpuidLeaf;
use super::Intel;

/// How many branches are kept at most.
pub const LBR_ENTRIES: usize = 32;
/// The numbers of them that can be chosen.
pub const LBR_DEPTHS: [usize; 3] = [8, 16, LBR_ENTRIES];

/// IA32_LBR_CTL.
mod control {
    /// Branches are recorded.
    pub const LBREN: u64 = 1 << 0;
    /// Those that end at CPL 0, at CPL > 0.
    pub const CPL: [u64; 2] = [1 << 1, 1 << 2];
    /// Returns take calls away.
    pub const CALL_STACK: u64 = 1 << 3;
    /// Those of each kind.
    pub const KINDS: u64 = 0x7f << 16;
    /// What there is.
    pub const DEFINED: u64 = LBREN | CPL[0] | CPL[1] | CALL_STACK | KINDS;
}

/// IA32_LBR_x_INFO.
mod info {
    pub const MISPRED: u64 = 1 << 63;
    pub const BR_TYPE_SHIFT: u32 = 56;
    /// All but the undefined bits.
    pub const DEFINED: u64 = 0xff00_0000_0000_ffff;
}

/// FROM_IP of what comes from a CPL that is not recorded.
const FROM_ELSEWHERE: u64 = u64::MAX;

/// The kinds of branches, by their bits in IA32_LBR_CTL.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchKind {
    /// Conditional.
    Conditional = 1 << 16,
    /// A near jump, whose target is in the instruction.
    JumpRelative = 1 << 17,
    /// A near jump, whose target is not.
    JumpIndirect = 1 << 18,
    /// A near call, whose target is in the instruction.
    CallRelative = 1 << 19,
    /// A near call, whose target is not.
    CallIndirect = 1 << 20,
    /// A near return.
    Return = 1 << 21,
    /// All else, with interrupts and exceptions.
    Other = 1 << 22,
}

impl BranchKind {
    /// BR_TYPE of INFO.
    fn br_type(self) -> u64 {
        match self {
            BranchKind::Conditional => 0,
            BranchKind::JumpIndirect => 1,
            BranchKind::JumpRelative => 2,
            BranchKind::CallIndirect => 3,
            BranchKind::CallRelative => 4,
            BranchKind::Return => 5,
            BranchKind::Other => 8,
        }
    }
}

/// Control was transferred: a branch was taken, an interrupt or an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The address of the instruction, or of the one that was interrupted.
    pub from: u64,
    /// Where it goes on.
    pub to: u64,
    /// What it is.
    pub kind: BranchKind,
    /// It began at CPL > 0.
    pub from_user: bool,
    /// It ends there.
    pub to_user: bool,
}

/// A register of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbrRegister {
    /// IA32_LBR_CTL.
    Control,
    /// IA32_LBR_DEPTH.
    Depth,
    /// IA32_LBR_n_FROM_IP.
    From(usize),
    /// IA32_LBR_n_TO_IP.
    To(usize),
    /// IA32_LBR_n_INFO.
    Info(usize),
}

impl LbrRegister {
    /// The register with this MSR number, if it is one.
    pub fn of(number: u32) -> Option<LbrRegister> {
        let entry = |first: u32| {
            let n = number.checked_sub(first)? as usize;
            (n < LBR_ENTRIES).then_some(n)
        };
        match number {
            msr::LBR_CTL => Some(LbrRegister::Control),
            msr::LBR_DEPTH => Some(LbrRegister::Depth),
            _ => (entry(msr::LBR_FROM0).map(LbrRegister::From))
                .or_else(|| entry(msr::LBR_TO0).map(LbrRegister::To))
                .or_else(|| entry(msr::LBR_INFO0).map(LbrRegister::Info)),
        }
    }
}

/// From, to and more of a branch.
type Entry = [u64; 3];

/// Which of an [`Entry`] a register is, and of which one.
fn place(register: LbrRegister) -> Option<(usize, usize)> {
    match register {
        LbrRegister::Control | LbrRegister::Depth => None,
        LbrRegister::From(n) => Some((n, 0)),
        LbrRegister::To(n) => Some((n, 1)),
        LbrRegister::Info(n) => Some((n, 2)),
    }
}

/// The records and their registers.
#[derive(Clone, Debug)]
pub(super) struct Lbr {
    control: u64,
    depth: usize,
    /// The first `depth` of them are in use, as a ring.
    entries: [Entry; LBR_ENTRIES],
    /// Which entry is number 0.
    newest: usize,
}

impl Default for Lbr {
    fn default() -> Self {
        Lbr {
            control: 0,
            depth: LBR_ENTRIES,
            entries: [[0; 3]; LBR_ENTRIES],
            newest: 0,
        }
    }
}

impl Lbr {
    /// Where entry `n` is; there is none beyond the depth.
    fn at(&self, n: usize) -> Result<usize, Fault> {
        match n < self.depth {
            true => Ok((self.newest + n) % self.depth),
            false => Err(Fault::GeneralProtection),
        }
    }

    fn read(&self, register: LbrRegister) -> Result<u64, Fault> {
        Ok(match (register, place(register)) {
            (_, Some((n, field))) => self.entries[self.at(n)?][field],
            (LbrRegister::Control, _) => self.control,
            _ => self.depth as u64,
        })
    }

    fn write(&mut self, register: LbrRegister, value: u64) -> Result<(), Fault> {
        let drops = match register {
            LbrRegister::Info(_) => !info::DEFINED,
            _ => 0,
        };
        match (register, place(register)) {
            (_, Some((n, field))) => self.entries[self.at(n)?][field] = value & !drops,
            (LbrRegister::Control, _) => self.control = checked(value, !control::DEFINED)?,
            _ => {
                let depth = LBR_DEPTHS.into_iter().find(|depth| *depth as u64 == value);
                *self = Lbr {
                    control: self.control,
                    depth: depth.ok_or(Fault::GeneralProtection)?,
                    ..Lbr::default()
                };
            }
        }
        Ok(())
    }

    fn is_on(&self) -> bool {
        self.control & control::LBREN != 0
    }

    /// Whether branches that end at this CPL are recorded.
    fn records_at(&self, user: bool) -> bool {
        self.control & control::CPL[usize::from(user)] != 0
    }

    /// Records a branch, unless a filter leaves it out; what it has recorded.
    fn record(&mut self, transfer: Transfer) -> Option<Recorded> {
        let kind = transfer.kind;
        if self.control & kind as u64 == 0 || !self.records_at(transfer.to_user) {
            return None;
        }
        if kind == BranchKind::Return && self.control & control::CALL_STACK != 0 {
            self.entries[self.newest] = [0; 3];
            self.newest = (self.newest + 1) % self.depth;
            return Some(Recorded::Return);
        }
        let from = match self.records_at(transfer.from_user) {
            true => transfer.from,
            false => FROM_ELSEWHERE,
        };
        let mispredicted = match kind {
            BranchKind::CallIndirect | BranchKind::JumpIndirect => info::MISPRED,
            _ => 0,
        };
        self.newest = (self.newest + self.depth - 1) % self.depth;
        self.entries[self.newest] = [
            from,
            transfer.to,
            kind.br_type() << info::BR_TYPE_SHIFT | mispredicted,
        ];
        Some(Recorded::Branch)
    }

    /// Fills the registers with what they can hold.
    pub(super) fn scramble(&mut self, random: &mut Random) {
        self.control = random.next() & control::DEFINED;
        self.depth = LBR_DEPTHS[random.next() as usize % LBR_DEPTHS.len()];
        for entry in &mut self.entries[..self.depth] {
            *entry = [random.next(), random.next(), random.next() & info::DEFINED];
        }
    }
}

impl Config {
    /// CPUID leaf 1CH; `None` without last branch records.
    pub fn cpuid_leaf_1c(&self) -> Option<CpuidLeaf> {
        /// EBX: filters by CPL, by kind, call-stack mode.
        const MODES: u32 = 0b111;
        /// ECX: mispredictions, kinds.
        const RECORDED: u32 = 0b101;
        let depth = |depths, depth: usize| depths | 1 << (depth / 8 - 1);
        self.lbr.then(|| CpuidLeaf {
            eax: LBR_DEPTHS.into_iter().fold(0, depth),
            ebx: MODES,
            ecx: RECORDED,
            edx: 0,
        })
    }
}

impl Intel {
    pub(super) fn read_lbr(&self, register: LbrRegister) -> Result<u64, Fault> {
        let lbr = self.lbr.as_ref().ok_or(Fault::GeneralProtection)?;
        lbr.read(register)
    }

    pub(super) fn write_lbr(&mut self, register: LbrRegister, value: u64) -> Result<(), Fault> {
        let lbr = self.lbr.as_mut().ok_or(Fault::GeneralProtection)?;
        lbr.write(register, value)
    }

    /// IA32_LBR_CTL, as a VM exit saves it; `None` without last branch records.
    pub fn lbr_control(&self) -> Option<u64> {
        self.lbr.as_ref().map(|lbr| lbr.control)
    }

    /// Loads IA32_LBR_CTL, as VM entry and exit do. Reserved bits are [a fault](Fault), which for VM
    /// entry means a failed check.
    pub fn set_lbr_control(&mut self, value: u64) -> Result<(), Fault> {
        self.write_lbr(LbrRegister::Control, value)
    }

    /// Whether branches are recorded now.
    pub fn records_branches(&self) -> bool {
        let frozen = self.global_status & status::LBR_FRZ != 0;
        !frozen && self.lbr.as_ref().is_some_and(Lbr::is_on)
    }

    /// Records a branch, if it is to be; what it has recorded.
    pub(super) fn transferred(&mut self, transfer: Transfer) -> Option<Recorded> {
        let records = self.records_branches();
        let lbr = self.lbr.as_mut().filter(|_| records)?;
        lbr.record(transfer)
    }

    /// #DB is raised.
    pub fn debug_exception(&mut self) {
        if let Some(lbr) = &mut self.lbr {
            lbr.control &= !control::LBREN;
        }
    }
}
