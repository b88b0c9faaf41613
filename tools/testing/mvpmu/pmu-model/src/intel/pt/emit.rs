// SPDX-License-Identifier: GPL-2.0
//! Packets with what they depend on: the last IP, branches that wait, cycles, and the room for them. The rules stand
//! in `trace.rs`.

use super::bits::control;
use super::bits::status;
use super::packet::IpKind;
use super::packet::Packet;
use super::packet::TNT_BRANCHES;
use super::trace::Moment;
use super::Pt;

/// So many bytes wait at most for memory.
const BUFFER: usize = 256;

impl Pt {
    pub(super) fn put(&mut self, packet: Packet) {
        let bytes = packet.bytes();
        if self.state.overflow || self.buffer.len() + bytes.len() > BUFFER {
            self.state.overflow = true;
            return;
        }
        self.buffer.extend_from_slice(bytes);
        let count = self
            .status
            .wrapping_add((bytes.len() as u64) << status::BYTE_CNT_SHIFT);
        self.status = self.status & !status::BYTE_CNT | count & status::BYTE_CNT;
    }

    /// Puts a packet before which there is CYC.
    pub(super) fn put_timed(&mut self, packet: Packet, now: &Moment) {
        let cycles = now.cycles.wrapping_sub(self.state.cycles);
        if self.has(control::CYC_EN) && cycles > 0 {
            self.put(Packet::cyc(cycles));
            self.state.cycles = now.cycles;
        }
        self.put(packet);
    }

    pub(super) fn put_ip(&mut self, kind: IpKind, ip: u64, now: &Moment) {
        let packet = Packet::ip(kind, ip, self.state.last_ip);
        self.state.last_ip = Some(ip);
        match kind {
            IpKind::Fup => self.put(packet),
            _ => self.put_timed(packet, now),
        }
    }

    pub(super) fn put_branches(&mut self, now: &Moment) {
        let (branches, count) = (self.state.branches, self.state.branch_count);
        (self.state.branches, self.state.branch_count) = (0, 0);
        if count > 0 {
            self.put_timed(Packet::tnt(branches, count), now);
        }
    }

    pub(super) fn put_mode(&mut self, now: &Moment) {
        if self.state.mode != Some(now.mode) {
            self.state.mode = Some(now.mode);
            self.put_timed(Packet::mode_exec(now.mode), now);
        }
    }

    pub(super) fn put_pip(&mut self, now: &Moment) {
        if self.state.context_en && self.has(control::OS) {
            self.put_timed(Packet::pip(now.cr3, now.non_root), now);
        }
    }

    /// PSB and what belongs to it, before the instruction at `ip`.
    pub(super) fn put_psb(&mut self, ip: u64, now: &Moment) {
        self.put_branches(now);
        self.status &= !status::BYTE_CNT;
        self.state.last_ip = Some(0);
        self.state.mode = None;
        self.put(Packet::psb());
        if self.has(control::TSC_EN) {
            self.put_timed(Packet::tsc(now.tsc), now);
        }
        self.put_pip(now);
        if let Some(pointer) = now.vmcs.filter(|_| self.state.context_en) {
            self.put_timed(Packet::vmcs(pointer), now);
        }
        self.put(Packet::cbr(now.ratio));
        if self.packet_en() {
            self.put_mode(now);
            self.put_ip(IpKind::Fup, ip, now);
        }
        self.put(Packet::psbend());
    }

    /// Bytes between two PSB.
    pub(super) fn psb_period(&self) -> u64 {
        2048 << (self.applied >> control::PSB_FREQ_SHIFT & 0xf)
    }

    pub(super) fn branch(&mut self, taken: bool, now: &Moment) {
        let state = &mut self.state;
        state.branches = state.branches << 1 | u8::from(taken);
        state.branch_count += 1;
        if state.branch_count == TNT_BRANCHES {
            self.put_branches(now);
        }
    }

    /// Packets that were lost: says so, and where it goes on.
    pub(super) fn put_overflow(&mut self, ip: u64, now: &Moment) {
        self.state.overflow = false;
        (self.state.branches, self.state.branch_count) = (0, 0);
        self.state.last_ip = None;
        self.put_timed(Packet::ovf(), now);
        if self.packet_en() {
            self.put_ip(IpKind::Fup, ip, now);
        }
    }
}
