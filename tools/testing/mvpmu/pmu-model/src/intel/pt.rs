// SPDX-License-Identifier: GPL-2.0
//! Intel Processor Trace: registers. What is traced, into which packets, and where they go stands in `trace.rs`,
//! `emit.rs`, `packet.rs` and `output.rs`.
//!
//! | rule (sections are those of SDM volume 3, "Intel Processor Trace", unless said otherwise) | source |
//! |---|---|
//! | it is there with CPUID.07H:EBX\[25\]; what there is of it is in leaf 14H | "CPUID Enumeration", table "CPUID Leaf 14H Enumeration" |
//! | what is offered: CR3 filtering, PSB frequencies of 2K to 64K, two address ranges, ToPA with many entries, a single range; IPs are RIPs | that the CPUs have at least that: Linux' and perf's use of it, `pt_caps`; two ranges: no source |
//! | what is not, though the CPUs have it: MTC, PTWRITE, power events; cycle-accurate mode is offered together with PSB frequencies, with a threshold of 0 | as above |
//! | IA32_RTIT_CTL: reserved bits and encodings raise #GP, and so does a write while TraceEn is set, but for one that clears it or changes nothing | "IA32_RTIT_CTL MSR", "General Considerations" |
//! | the others raise #GP when they are written while TraceEn is set | "General Considerations" and each register's section |
//! | IA32_RTIT_STATUS: FilterEn, ContextEn, TriggerEn are the CPU's, writes of them are ignored; Error, Stopped and PacketByteCnt can be written; #GP for the others | "IA32_RTIT_STATUS MSR" |
//! | IA32_RTIT_OUTPUT_BASE: #GP for bits 6:0 and those from MAXPHYADDR on | "IA32_RTIT_OUTPUT_BASE MSR" |
//! | IA32_RTIT_OUTPUT_MASK_PTRS: bits 6:0 are 1, writes of them are ignored | "IA32_RTIT_OUTPUT_MASK_PTRS MSR"; Linux, vmx.c, init_vmcs() |
//! | IA32_RTIT_CR3_MATCH: #GP for bits 4:0 | "IA32_RTIT_CR3_MATCH MSR" |
//! | IA32_RTIT_ADDRn_A, _B: #GP for addresses that are not canonical | "IA32_RTIT_ADDRn_A and IA32_RTIT_ADDRn_B MSRs" |
//! | RESET clears all; INIT changes nothing | "General Considerations": cold RESET; INIT: table "Power-up, Reset, INIT", what all other MSRs do |
//! | VM entry loads IA32_RTIT_CTL if asked to, after a check of its reserved bits; it fails when TraceEn is set before that | "VM-Entry Control Fields"; quoted in Linux' commit "KVM: VMX: Bury Intel PT virtualization (guest/host mode) behind CONFIG_BROKEN" |
//! | VM exit saves it, and clears it if asked to | "VM-Exit Controls"; that it is saved whatever the controls say: as of IA32_LBR_CTL, no source |

mod bits;
mod emit;
mod output;
mod packet;
mod registers;
mod trace;

use crate::options::Random;
use crate::Fault;

use super::bits::status as global;
use super::Config;
use super::CpuidLeaf;
use super::Intel;

use bits::control;
use bits::mask_ptrs;
use bits::status;
use trace::State;

pub use output::PhysicalMemory;
pub use output::PtOutcome;
pub use output::Unmapped;
pub use packet::ExecMode;
pub use registers::PtRegister;
pub use trace::Moment;
pub use trace::PtEvent;

/// Address ranges that tracing can be confined to, or stopped by.
pub const PT_RANGES: usize = 2;

/// Physical addresses have so many bits: MAXPHYADDR of the machine that has PT.
const PHYSICAL_BITS: u32 = 40;

/// The registers, and what is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pt {
    control: u64,
    /// The control that is followed: 0 while nothing is traced.
    applied: u64,
    state: State,
    /// Bytes of packets that are to be written.
    buffer: Vec<u8>,
    /// What software can write of IA32_RTIT_STATUS.
    status: u64,
    output_base: u64,
    mask_ptrs: u64,
    cr3_match: u64,
    /// A and B of each range.
    ranges: [[u64; 2]; PT_RANGES],
}

impl Default for Pt {
    fn default() -> Self {
        Pt {
            control: 0,
            applied: 0,
            state: State::default(),
            buffer: Vec::new(),
            status: 0,
            output_base: 0,
            mask_ptrs: mask_ptrs::LOWER_MASK,
            cr3_match: 0,
            ranges: [[0; 2]; PT_RANGES],
        }
    }
}

impl Pt {
    /// IA32_RTIT_STATUS.
    fn status(&self) -> u64 {
        let of = |bit, is_set| if is_set { bit } else { 0 };
        self.status
            | of(status::FILTER_EN, self.state.filter_en)
            | of(status::CONTEXT_EN, self.state.context_en)
            | of(status::TRIGGER_EN, self.state.trigger_en)
    }

    /// Tracing has begun, or would have if there were a place for it.
    fn is_applied(&self) -> bool {
        self.applied & control::TRACE_EN != 0
    }

    fn is_on(&self) -> bool {
        self.control & control::TRACE_EN != 0
    }

    /// Fills the registers with what they can hold; nothing is traced, as firmware does not do it.
    pub(super) fn scramble(&mut self, random: &mut Random) {
        let mut write = |register, value| {
            let _ = self.write(register, value);
        };
        write(PtRegister::Control, random.next() & control::SCRAMBLED);
        write(PtRegister::OutputBase, random.next() >> 24 & !0xfff);
        write(PtRegister::OutputMaskPtrs, random.next());
        write(PtRegister::Cr3Match, random.next() & !0x1f);
    }
}

impl Config {
    /// CPUID leaf 14H; `None` without PT.
    pub fn cpuid_leaf_14(&self, subleaf: u32) -> Option<CpuidLeaf> {
        /// EBX: CR3 filtering, PSB frequency and cycle-accurate mode, address ranges.
        const FEATURES: u32 = 0b111;
        /// ECX: ToPA, of many entries, and output to a single range.
        const OUTPUT: u32 = 0b111;
        /// The last subleaf.
        const SUBLEAVES: u32 = 1;
        self.pt.then(|| match subleaf {
            0 => CpuidLeaf {
                eax: SUBLEAVES,
                ebx: FEATURES,
                ecx: OUTPUT,
                edx: 0,
            },
            1 => CpuidLeaf {
                eax: PT_RANGES as u32,
                ebx: bits::PSB_FREQUENCIES << 16 | bits::CYCLE_THRESHOLDS,
                ecx: 0,
                edx: 0,
            },
            _ => CpuidLeaf::default(),
        })
    }
}

impl Intel {
    pub(super) fn read_pt(&self, register: PtRegister) -> Result<u64, Fault> {
        let pt = self.pt.as_ref().ok_or(Fault::GeneralProtection)?;
        Ok(pt.read(register))
    }

    pub(super) fn write_pt(&mut self, register: PtRegister, value: u64) -> Result<(), Fault> {
        let pt = self.pt.as_mut().ok_or(Fault::GeneralProtection)?;
        pt.write(register, value)
    }

    /// What a register holds that somebody has put there: without what the CPU says of itself, and bits that are
    /// always set.
    pub(super) fn kept_of_pt(&self, register: PtRegister) -> u64 {
        let read = self.read_pt(register).unwrap_or(0);
        match register {
            PtRegister::Status => read & status::WRITABLE,
            PtRegister::OutputMaskPtrs => read & !mask_ptrs::LOWER_MASK,
            _ => read,
        }
    }

    /// IA32_RTIT_CTL, as a VM exit saves it; `None` without PT.
    pub fn pt_control(&self) -> Option<u64> {
        self.pt.as_ref().map(|pt| pt.control)
    }

    /// Loads IA32_RTIT_CTL, as VM entry and exit do. Reserved bits are [a fault](Fault), which for VM
    /// entry means a failed check.
    pub fn set_pt_control(&mut self, value: u64) -> Result<(), Fault> {
        self.write_pt(PtRegister::Control, value)
    }

    /// TraceEn of IA32_RTIT_CTL is set.
    pub fn traces(&self) -> bool {
        self.pt.as_ref().is_some_and(Pt::is_on)
    }

    /// The same of what is followed: before a write of it, or behind.
    pub(super) fn is_tracing_applied(&self) -> bool {
        self.pt.as_ref().is_some_and(Pt::is_applied)
    }

    /// Something may be traced: it has to be told.
    pub fn follows_branches(&self) -> bool {
        self.pt.as_ref().is_some_and(|pt| pt.state.trigger_en)
    }

    /// [`pt_follow`](Intel::pt_follow) has something to do.
    pub fn has_to_follow_pt(&self) -> bool {
        self.pt
            .as_ref()
            .is_some_and(|pt| pt.is_applied() != pt.is_on())
    }

    /// This has happened, and the CPU is like that `now`.
    pub fn pt_event(
        &mut self,
        event: PtEvent,
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        self.with_pt(|pt| pt.happens(event, now, memory))
    }

    /// Begins or ends tracing, after IA32_RTIT_CTL was written by the instruction at `ip`, before the one
    /// at `next`.
    pub fn pt_follow(
        &mut self,
        (ip, next): (u64, u64),
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        self.with_pt(|pt| match (pt.is_applied(), pt.is_on()) {
            (false, true) => pt.start(next, now, memory),
            (true, false) => pt.stop(ip, now, memory),
            _ => PtOutcome::default(),
        })
    }

    fn with_pt(&mut self, happens: impl FnOnce(&mut Pt) -> PtOutcome) -> PtOutcome {
        let outcome = self.pt.as_mut().map(happens).unwrap_or_default();
        if outcome.pmi {
            self.global_status |= global::TRACE_TOPA_PMI;
            self.freeze();
        }
        outcome
    }
}
