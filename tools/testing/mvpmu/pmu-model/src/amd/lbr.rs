// SPDX-License-Identifier: GPL-2.0
//! The last branch record stack, LbrExtV2: from where to where the last branches went.
//!
//! | rule | source |
//! |---|---|
//! | it is there with CPUID Fn8000_0022_EAX\[LbrStack\] (bit 1), and has EBX\[LbrStackSize\] (bits 9:4) entries | APM 13.1.8 |
//! | 16 entries on Zen 4 and Zen 5 | what Linux says there at boot: "16-deep LBR" |
//! | DebugExtnCtl (C000_010F): bit 6 (LBRSE) has branches recorded, whatever DebugCtl.LBR says; all others must be zero | APM 13.1.1, "Debug-Extension-Control MSR" |
//! | #DB clears LBRSE | the same |
//! | LastBranchStackSelect (C000_010E): bits 8:0 each suppress a kind of branch; the others read as zero | APM 13.1.1, "Last Branch Stack Registers" |
//! | what a branch is: near jumps, calls, returns, conditional ones; far are far jumps, calls and returns, INTn, IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT, interrupts and exceptions | APM 13.1.6 for the list; that interrupts and exceptions are on the stack, too, and that those are far: no source |
//! | VMRUN and #VMEXIT are none | they are not in the list of APM 13.1.6 |
//! | the CPL by which a branch is suppressed is that where it ends | APM, as above |
//! | LastBranchStackFromIp n is C001_0300 + 2n, LastBranchStackToIp n C001_0301 + 2n; of the addresses bits 56:0, with the sign extended above | APM 13.1.1 and appendix A; Linux, arch/x86/events/amd/lbr.c, `struct branch_entry` |
//! | From\[63\]: mispredicted; To\[63:62\]: valid, speculative; both 0: nothing was recorded; To\[61\] is 0 | APM table 13-3; Linux, the same file, `amd_pmu_lbr_read()` |
//! | entry 0 is the newest | Linux, the same function |
//! | software can write the entries, reserved bits too | APM: they are read/write; of the reserved bits: no source |
//! | while PerfCntrGlobalStatus.LBRSF (bit 58) is set, by whomever, nothing is recorded | APM 13.1.1, "Debug-Control MSR", for a PMI that sets it; for software that does: no source |
//! | with a VMCB's LBR virtualization, VMRUN keeps the host's DebugCtl and DebugExtnCtl, and loads these, LastBranchStackSelect and the entries from the VMCB; #VMEXIT saves the guest's there and brings the host's two back, but leaves the entries and LastBranchStackSelect as they are | APM 15.23.1 |
//! | bits that are not defined in what VMRUN loads are dropped | as Linux has it for DebugCtl, `nested_vmcb02_prepare_save()`; for the others: no source |
//! | without it these registers are the host's and the guest's alike | APM 15.23 |
//! | INIT leaves all as it is, RESET clears it | no source |
//! | without the feature each of these MSRs is #GP | APM volume 3, RDMSR, WRMSR |
//!
//! What is modelled rather than real: a branch is mispredicted when it is a near jump or call whose
//! target is not in the instruction (see [`SourceSet::MISPREDICTED`](crate::SourceSet::MISPREDICTED),
//! of which those that are not taken are not recorded). None is speculative. The address is that of
//! the branch itself, never that of an instruction fused with it.

use crate::options::Random;
use crate::Fault;

use super::Amd;
use super::Version;
use super::LBRSF;

/// LastBranchStackSelect.
pub const MSR_LBR_SELECT: u32 = 0xc000_010e;
/// DebugExtnCtl.
pub const MSR_DEBUG_EXTN_CTL: u32 = 0xc000_010f;
/// LastBranchStackFromIp 0; LastBranchStackToIp 0 is the next one, the others follow in pairs.
pub const MSR_LBR_FROM0: u32 = 0xc001_0300;

/// How many branches are kept.
pub const LBR_ENTRIES: usize = 16;

/// DebugExtnCtl: branches are recorded.
pub const LBRSE: u64 = 1 << 6;

/// LastBranchStackSelect: the bits there are.
const SELECT_DEFINED: u64 = 0x1ff;
/// LastBranchStackSelect: suppress branches ending at CPL 0, at CPL > 0.
const SUPPRESS_CPL: [u64; 2] = [1 << 0, 1 << 1];

/// From: the branch was mispredicted.
const MISPREDICTED: u64 = 1 << 63;
/// From: the address with its sign.
const FROM_ADDRESS: u64 = !MISPREDICTED;
/// To: the entry is valid.
const VALID: u64 = 1 << 63;
/// To: the address with its sign.
const TO_ADDRESS: u64 = (1 << 61) - 1;

/// The kinds of branches, by the bits of LastBranchStackSelect that suppress them.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchKind {
    /// Conditional.
    Conditional = 1 << 2,
    /// A near call, whose target is in the instruction.
    CallRelative = 1 << 3,
    /// A near call, whose target is not.
    CallIndirect = 1 << 4,
    /// A near return.
    Return = 1 << 5,
    /// A near jump, whose target is not in the instruction.
    JumpIndirect = 1 << 6,
    /// A near jump, whose target is.
    JumpRelative = 1 << 7,
    /// All else, with interrupts and exceptions.
    Far = 1 << 8,
}

/// What a VMCB has of the registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedLbr {
    /// DebugCtl.
    pub debugctl: u64,
    /// DebugExtnCtl.
    pub control: u64,
    /// LastBranchStackSelect.
    pub select: u64,
    /// From and to of each entry, the newest first.
    pub entries: [[u64; 2]; LBR_ENTRIES],
}

/// What they were before VMRUN. Of this DebugCtl and DebugExtnCtl come back with #VMEXIT.
#[derive(Clone, Debug)]
pub struct HostLbr {
    debugctl: u64,
    lbr: Lbr,
}

/// A branch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The address of the instruction, or of the one that was interrupted.
    pub from: u64,
    /// Where it goes on.
    pub to: u64,
    /// What it is.
    pub kind: BranchKind,
    /// It ends at CPL > 0.
    pub user: bool,
}

/// A register of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbrRegister {
    /// LastBranchStackSelect.
    Select,
    /// DebugExtnCtl.
    Control,
    /// LastBranchStackFromIp n.
    From(usize),
    /// LastBranchStackToIp n.
    To(usize),
}

impl LbrRegister {
    /// The register with this MSR number, if it is one.
    pub fn of(msr: u32) -> Option<LbrRegister> {
        match msr {
            MSR_LBR_SELECT => Some(LbrRegister::Select),
            MSR_DEBUG_EXTN_CTL => Some(LbrRegister::Control),
            _ => {
                let n = msr.checked_sub(MSR_LBR_FROM0)? as usize;
                (n < 2 * LBR_ENTRIES).then_some(match n % 2 {
                    0 => LbrRegister::From(n / 2),
                    _ => LbrRegister::To(n / 2),
                })
            }
        }
    }
}

/// The stack and its registers.
#[derive(Clone, Debug, Default)]
pub struct Lbr {
    select: u64,
    control: u64,
    /// Of each entry, from and to.
    entries: [[u64; 2]; LBR_ENTRIES],
    /// Which entry is number 0.
    newest: usize,
}

impl Lbr {
    /// Where entry `n` is.
    fn at(&self, n: usize) -> usize {
        (self.newest + n) % LBR_ENTRIES
    }

    /// RDMSR.
    pub fn read(&self, register: LbrRegister) -> u64 {
        match register {
            LbrRegister::Select => self.select,
            LbrRegister::Control => self.control,
            LbrRegister::From(n) => self.entries[self.at(n)][0],
            LbrRegister::To(n) => self.entries[self.at(n)][1],
        }
    }

    /// WRMSR.
    pub fn write(&mut self, register: LbrRegister, value: u64) -> Result<(), Fault> {
        match register {
            LbrRegister::Select => self.select = value & SELECT_DEFINED,
            LbrRegister::Control if value & !LBRSE != 0 => return Err(Fault::GeneralProtection),
            LbrRegister::Control => self.control = value,
            LbrRegister::From(n) => self.entries[self.at(n)][0] = value,
            LbrRegister::To(n) => self.entries[self.at(n)][1] = value,
        }
        Ok(())
    }

    /// VMRUN loads all of it.
    pub fn load(&mut self, saved: &SavedLbr) {
        *self = Lbr {
            select: saved.select & SELECT_DEFINED,
            control: saved.control & LBRSE,
            entries: saved.entries,
            newest: 0,
        };
    }

    /// #VMEXIT saves all of it.
    pub fn save(&self, debugctl: u64) -> SavedLbr {
        SavedLbr {
            debugctl,
            control: self.control,
            select: self.select,
            entries: std::array::from_fn(|n| self.entries[self.at(n)]),
        }
    }

    /// Whether branches are recorded.
    pub fn is_on(&self) -> bool {
        self.control & LBRSE != 0
    }

    /// Records a branch, unless it is suppressed; whether it has.
    pub fn record(&mut self, branch: Branch) -> bool {
        let suppressed = branch.kind as u64 | SUPPRESS_CPL[usize::from(branch.user)];
        if self.select & suppressed != 0 {
            return false;
        }
        let mispredicted = match branch.kind {
            BranchKind::CallIndirect | BranchKind::JumpIndirect => MISPREDICTED,
            _ => 0,
        };
        self.newest = self.at(LBR_ENTRIES - 1);
        self.entries[self.newest] = [
            branch.from & FROM_ADDRESS | mispredicted,
            branch.to & TO_ADDRESS | VALID,
        ];
        true
    }

    /// #DB is raised.
    pub fn debug_exception(&mut self) {
        self.control &= !LBRSE;
    }

    /// Fills the registers with what they can hold.
    pub fn scramble(&mut self, random: &mut Random) {
        self.select = random.next() & SELECT_DEFINED;
        self.control = random.next() & LBRSE;
        for entry in &mut self.entries {
            *entry = [random.next(), random.next()];
        }
    }
}

impl Amd {
    /// The same, with a last branch record stack or without. Only PerfMonV2 has one.
    pub fn with_lbr(self, there: bool) -> Amd {
        let there = there && self.version >= Version::PerfMonV2;
        Amd {
            lbr: there.then(Lbr::default),
            ..self
        }
    }

    /// Whether there is a last branch record stack.
    pub fn has_lbr(&self) -> bool {
        self.lbr.is_some()
    }

    /// Whether branches are recorded now.
    pub fn records_branches(&self) -> bool {
        let frozen = self.global_status & LBRSF != 0;
        !frozen && self.lbr.as_ref().is_some_and(Lbr::is_on)
    }

    /// A branch was taken, an interrupt or an exception; whether it was recorded.
    pub(super) fn branch(&mut self, branch: Branch) -> bool {
        let records = self.records_branches();
        let lbr = self.lbr.as_mut().filter(|_| records);
        lbr.is_some_and(|lbr| lbr.record(branch))
    }

    /// #DB is raised.
    pub fn debug_exception(&mut self) {
        if let Some(lbr) = &mut self.lbr {
            lbr.debug_exception();
        }
    }

    /// VMRUN with LBR virtualization: loads the guest's registers. What they were before is to be given to
    /// [`lbr_exit`](Amd::lbr_exit).
    pub(super) fn lbr_enter(&mut self, guest: &SavedLbr) -> Option<HostLbr> {
        let lbr = self.lbr.as_mut()?;
        let host = HostLbr {
            debugctl: self.debugctl,
            lbr: lbr.clone(),
        };
        lbr.load(guest);
        self.set_debugctl(guest.debugctl);
        Some(host)
    }

    /// #VMEXIT with LBR virtualization: what is to be saved of the guest.
    pub(super) fn lbr_exit(&mut self, host: &HostLbr) -> Option<SavedLbr> {
        let debugctl = self.debugctl;
        let lbr = self.lbr.as_mut()?;
        let guest = lbr.save(debugctl);
        lbr.control = host.lbr.control;
        self.set_debugctl(host.debugctl);
        Some(guest)
    }

    /// VMRUN has entered nothing after all.
    pub(super) fn lbr_not_entered(&mut self, host: HostLbr) {
        self.lbr = Some(host.lbr);
        self.set_debugctl(host.debugctl);
    }
}
