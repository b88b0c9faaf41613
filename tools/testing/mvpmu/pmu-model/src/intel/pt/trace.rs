// SPDX-License-Identifier: GPL-2.0
//! What is traced: which packets come of what happens.
//!
//! | rule (sections are those of SDM volume 3, "Intel Processor Trace") | source |
//! |---|---|
//! | TriggerEn: TraceEn without Stopped and Error; ContextEn: the CPL, and CR3 with CR3Filter; FilterEn: in a range that filters, if there is one; PacketEn: all of them and BranchEn | "Packet Generation Enable Controls" |
//! | FilterEn and stop ranges are looked at where a taken branch or an event leads to, and where tracing begins | "Filtering by IP", "TraceStop" |
//! | the packets of each event, by PacketEn before and after it | table "Packet Generation under Different Enable Conditions", whose cases are named below |
//! | TIP.PGD has an IP when only FilterEn went away, but not that of a conditional branch | cases 6b, 7e, 9c, 10d, 11d |
//! | PSB after 2K << PSBFreq bytes, and when tracing begins with PacketByteCnt 0; with it TSC, PIP, VMCS, CBR, MODE.Exec, FUP, PSBEND | "PSB Packet", "Enabling and Disabling Packet Generation with TraceEn" |
//! | PIP has to do with OS and ContextEn; VMX shows in it unless concealed | "PIP Packet", "VMX-Specific Packets and VMCS Controls" |
//! | MODE.Exec before TIP and TIP.PGE if the mode is another one than in the last, or there was none since PSB | cases 6c to 17i |
//! | CYC before packets, if cycles have passed | "CYC Packet" |
//! | OVF when packets were lost, then where it goes on: FUP, or TIP.PGE later | "Overflow (OVF)"; that TIP.PGD is lost with them: "Buffer Overflow" |
//! | the first IP after TraceEn was set is not compressed | no source: the register that a decoder needs is none, and a hypervisor switches traces |
//! | returns are never compressed, with DisRETC or without | "Indirect Transfer Compression for Returns": the CPU may |
//!
//! Software interrupts are events with the IP of the instruction (case 12). INIT and SIPI are not traced,
//! nor are there TSX, SGX and SMIs.

use super::bits::control;
use super::bits::range;
use super::bits::status;
use super::output::PhysicalMemory;
use super::output::PtOutcome;
use super::packet::ExecMode;
use super::packet::IpKind;
use super::packet::Packet;
use super::Pt;
use super::PT_RANGES;

/// The CPU as it is after what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// CPL > 0.
    pub user: bool,
    /// CR3.
    pub cr3: u64,
    /// How it executes.
    pub mode: ExecMode,
    /// VMX non-root operation that is not concealed.
    pub non_root: bool,
    /// The current VMCS (all ones: none), in VMX operation that is not concealed.
    pub vmcs: Option<u64>,
    /// The TSC as software reads it.
    pub tsc: u64,
    /// Cycles so far.
    pub cycles: u64,
    /// The ratio of the core's clock to 100 MHz.
    pub ratio: u8,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PtEvent {
    /// A conditional branch is not taken.
    NotTaken,
    /// One is, to there.
    Taken(u64),
    /// A near jump or call, whose target is in the instruction.
    Direct(u64),
    /// Another near branch.
    Indirect(u64),
    /// An instruction that is a far transfer.
    Far(u64),
    /// An interrupt or an exception: from where, to where.
    Asynchronous(u64, u64),
    /// MOV to CR3, before the instruction there.
    Cr3(u64),
    /// VMPTRLD of this pointer.
    Vmptrld(u64),
    /// VM entry to there; concealed or not.
    VmEntry(u64, bool),
    /// VM exit, from where to where; concealed or not.
    VmExit(u64, u64, bool),
    /// Nothing but that what waits may be written now, before the instruction there.
    Resumed(u64),
}

/// What there is of a transfer of control.
struct Transfer {
    /// Where it comes in between, if it is an event.
    from: Option<u64>,
    to: u64,
    /// Of PIP.
    pip: bool,
}

impl Transfer {
    fn to(to: u64) -> Transfer {
        Transfer {
            from: None,
            to,
            pip: false,
        }
    }
}

/// The state of tracing that is in no register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) trigger_en: bool,
    pub(super) context_en: bool,
    pub(super) filter_en: bool,
    /// Branches that are not in a packet yet.
    pub(super) branches: u8,
    pub(super) branch_count: u32,
    /// The last IP, if the next may lean on it.
    pub(super) last_ip: Option<u64>,
    /// That of the last MODE.Exec since PSB.
    pub(super) mode: Option<ExecMode>,
    /// When the last CYC was.
    pub(super) cycles: u64,
    /// Packets were lost.
    pub(super) overflow: bool,
    /// A range stops it when what comes before is written.
    pub(super) stops: bool,
}

impl Pt {
    pub(super) fn has(&self, bit: u64) -> bool {
        self.applied & bit != 0
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.status & (status::STOPPED | status::ERROR) != 0
    }

    pub(super) fn packet_en(&self) -> bool {
        let state = &self.state;
        state.trigger_en && state.context_en && state.filter_en && self.has(control::BRANCH_EN)
    }

    /// Whether `ip` is in a range for this, and whether there is one.
    fn in_range(&self, purpose: u64, ip: u64) -> (bool, bool) {
        let mut of_purpose = (0..PT_RANGES)
            .filter(|n| self.applied >> (control::ADDR_CFG_SHIFT as usize + 4 * n) & 0xf == purpose)
            .map(|n| self.ranges[n])
            .peekable();
        let exists = of_purpose.peek().is_some();
        (
            of_purpose.any(|[from, to]| (from..=to).contains(&ip)),
            exists,
        )
    }

    fn follow_context(&mut self, now: &Moment) {
        const ADDRESS: u64 = !0x1f;
        let at_cpl = match now.user {
            false => self.has(control::OS),
            true => self.has(control::USER),
        };
        let in_process = !self.has(control::CR3_FILTER) || now.cr3 & ADDRESS == self.cr3_match;
        self.state.context_en = at_cpl && in_process;
    }

    /// Control goes on at `ip`. True when that is where tracing stops.
    fn follow_ip(&mut self, ip: u64) -> bool {
        let stops = self.state.context_en && self.in_range(range::STOP, ip).0;
        let (inside, exists) = self.in_range(range::FILTER, ip);
        self.state.filter_en = (inside || !exists) && !stops;
        stops
    }

    /// Puts what a transfer of control comes to; `tip` does when PacketEn stays set, `pgd` when only
    /// FilterEn goes away.
    fn transfer(
        &mut self,
        transfer: Transfer,
        now: &Moment,
        tip: impl FnOnce(&mut Pt),
        pgd: impl FnOnce(&mut Pt),
    ) {
        let before = self.packet_en();
        self.follow_context(now);
        let stops = self.follow_ip(transfer.to);
        let after = self.packet_en();
        if let Some(from) = transfer.from.filter(|_| before) {
            self.put_branches(now);
            self.put_ip(IpKind::Fup, from, now);
        }
        if transfer.pip {
            self.put_branches(now);
            self.put_pip(now);
        }
        match (before, after) {
            (true, true) => tip(self),
            (true, false) => {
                self.put_branches(now);
                match self.state.context_en {
                    true => pgd(self),
                    false => self.put_timed(Packet::no_ip(IpKind::TipPgd), now),
                }
            }
            (false, true) => {
                self.put_mode(now);
                self.put_ip(IpKind::TipPge, transfer.to, now);
            }
            (false, false) => {}
        }
        if stops {
            self.put(Packet::trace_stop());
            self.state.trigger_en = false;
            self.state.stops = true;
        }
    }

    /// The same of one that needs its target in the trace.
    fn transfer_with_ip(&mut self, transfer: Transfer, now: &Moment) {
        let to = transfer.to;
        let tip = |pt: &mut Pt| {
            pt.put_branches(now);
            pt.put_mode(now);
            pt.put_ip(IpKind::Tip, to, now);
        };
        self.transfer(transfer, now, tip, |pt| pt.put_ip(IpKind::TipPgd, to, now));
    }

    fn handle(&mut self, event: PtEvent, now: &Moment) -> Option<u64> {
        match event {
            PtEvent::NotTaken => {
                if self.packet_en() {
                    self.branch(false, now);
                }
                return None;
            }
            PtEvent::Taken(to) => {
                let taken = |pt: &mut Pt| pt.branch(true, now);
                let pgd = |pt: &mut Pt| pt.put_timed(Packet::no_ip(IpKind::TipPgd), now);
                self.transfer(Transfer::to(to), now, taken, pgd);
            }
            PtEvent::Direct(to) => {
                let pgd = |pt: &mut Pt| pt.put_ip(IpKind::TipPgd, to, now);
                self.transfer(Transfer::to(to), now, |_| (), pgd);
            }
            PtEvent::Indirect(to) | PtEvent::Far(to) => {
                self.transfer_with_ip(Transfer::to(to), now);
            }
            PtEvent::Asynchronous(from, to) => {
                let from = Some(from);
                let pip = false;
                self.transfer_with_ip(Transfer { from, to, pip }, now);
            }
            PtEvent::VmEntry(to, concealed) => {
                let (from, pip) = (None, !concealed);
                self.transfer_with_ip(Transfer { from, to, pip }, now);
            }
            PtEvent::VmExit(from, to, concealed) => {
                let (from, pip) = (Some(from), !concealed);
                self.transfer_with_ip(Transfer { from, to, pip }, now);
            }
            PtEvent::Cr3(next) => {
                // No branch: FilterEn stays, and so does the decoder's IP.
                let before = self.packet_en();
                self.follow_context(now);
                self.put_branches(now);
                self.put_pip(now);
                match (before, self.packet_en()) {
                    (true, false) => self.put_timed(Packet::no_ip(IpKind::TipPgd), now),
                    (false, true) => {
                        self.put_mode(now);
                        self.put_ip(IpKind::TipPge, next, now);
                    }
                    _ => {}
                }
                return Some(next);
            }
            PtEvent::Vmptrld(pointer) => {
                if self.state.context_en && now.vmcs.is_some() {
                    self.put_branches(now);
                    self.put_timed(Packet::vmcs(pointer), now);
                }
                return None;
            }
            PtEvent::Resumed(next) => return Some(next),
        }
        match event {
            PtEvent::Taken(to)
            | PtEvent::Direct(to)
            | PtEvent::Indirect(to)
            | PtEvent::Far(to)
            | PtEvent::Asynchronous(_, to)
            | PtEvent::VmEntry(to, _)
            | PtEvent::VmExit(_, to, _) => Some(to),
            _ => None,
        }
    }

    /// This has happened, and the CPU is like that now.
    pub(super) fn happens(
        &mut self,
        event: PtEvent,
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        if !self.state.trigger_en {
            return PtOutcome::default();
        }
        let next = self.handle(event, now);
        let mut outcome = self.flush(memory);
        if let Some(ip) = next.filter(|_| self.buffer.is_empty()) {
            if self.state.overflow {
                self.put_overflow(ip, now);
            }
            let count = (self.status & status::BYTE_CNT) >> status::BYTE_CNT_SHIFT;
            if self.state.trigger_en && count >= self.psb_period() {
                self.put_psb(ip, now);
            }
            if !self.buffer.is_empty() {
                let more = self.flush(memory);
                outcome.pmi |= more.pmi;
                outcome.unmapped = more.unmapped;
                outcome.written |= more.written;
            }
        }
        self.follow_stop();
        outcome
    }

    /// A range or an entry has stopped it.
    fn follow_stop(&mut self) {
        if std::mem::take(&mut self.state.stops) {
            self.status |= status::STOPPED;
        }
        if self.is_stopped() {
            self.state.trigger_en = false;
        }
    }

    /// TraceEn is set now, before the instruction at `ip`.
    pub(super) fn start(
        &mut self,
        ip: u64,
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        self.applied = self.control;
        self.state = State {
            cycles: now.cycles,
            ..State::default()
        };
        self.buffer.clear();
        if self.is_stopped() {
            return PtOutcome::default();
        }
        let unmapped = self.translate_ahead(memory);
        if unmapped.is_some() {
            return PtOutcome {
                unmapped,
                ..PtOutcome::default()
            };
        }
        self.state.trigger_en = true;
        self.follow_context(now);
        if self.status & status::BYTE_CNT == 0 {
            // PacketEn comes afterwards.
            self.put_psb(ip, now);
        } else {
            if self.has(control::TSC_EN) {
                self.put_timed(Packet::tsc(now.tsc), now);
            }
            self.put(Packet::cbr(now.ratio));
        }
        let stops = self.follow_ip(ip);
        if self.packet_en() {
            self.put_mode(now);
            self.put_ip(IpKind::TipPge, ip, now);
        }
        if stops {
            self.put(Packet::trace_stop());
            self.state.stops = true;
        }
        let outcome = self.flush(memory);
        self.follow_stop();
        outcome
    }

    /// TraceEn is no longer set, by the instruction at `ip` or before it.
    pub(super) fn stop(
        &mut self,
        ip: u64,
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        if self.state.trigger_en {
            self.put_branches(now);
            if self.packet_en() {
                self.put_ip(IpKind::Fup, ip, now);
                self.put_timed(Packet::no_ip(IpKind::TipPgd), now);
            }
        }
        let outcome = self.flush(memory);
        self.buffer.clear();
        self.state = State::default();
        self.applied = 0;
        outcome
    }
}
