// SPDX-License-Identifier: GPL-2.0
//! Branches that are taken, for the last branch record stack.
//!
//! A block ends with a branch, if it has one. So translated code notes when a block has come to its
//! branch, and where the next block starts, or what comes in place of one, the branch went. That is
//! only done in translations that are made once a CPU records branches.
//!
//! A conditional branch whose target is the instruction behind it is one that is not taken.

use pmu_model::amd::Branch;
use pmu_model::amd::BranchKind;
use pmu_model::oracle::Oracle;

use crate::block::Block;
use crate::decode::Kind;
use crate::demand;
use crate::leave;
use crate::registers::handles;
use crate::vcpu::Vcpu;

/// EFER: long mode is active.
const EFER_LMA: u64 = 1 << 10;
/// #DB
const DEBUG: i32 = 1;
/// What INT n is long, and INT1 (ICEBP) is not.
const INT_N: u8 = 2;

impl Vcpu {
    /// The registers of the PMU have changed: branches are recorded or not. True when everything has to
    /// be translated anew for it.
    pub fn follow_branches(&mut self) -> bool {
        let on = self.pmu.map().records_branches();
        let board = self.board();
        if on && board.recording == 0 {
            board.branch = 0;
        }
        board.recording = on.into();
        on && demand::want_branches_seen()
    }

    /// A block is entered while branches are recorded.
    pub fn enter_recorded(&mut self, block: &Block) {
        let rip = self.bus.register(handles().rip);
        self.settle_branch(rip, Some(block.class.is_user()));
        self.block_start = rip;
    }

    /// The CPU goes on at `rip`, for which the segment's base is not added. If the block that was
    /// entered last has come to its branch, that led there, or it raised an exception. `user` is
    /// whether the CPU is at CPL > 0 now; else it is where the branch was.
    pub fn settle_branch(&mut self, rip: u64, user: Option<bool>) {
        if std::mem::take(&mut self.board().branch) == 0 {
            return;
        }
        // SAFETY: It came from translated code of a block that is in the arena.
        let Some(block) = (unsafe { self.board().block().as_ref() }) else {
            return;
        };
        let Some(last) = block.branch else {
            return;
        };
        let from = self.block_start.wrapping_add(last.offset);
        let behind = from.wrapping_add(last.len.into());
        if last.kind == BranchKind::Conditional && rip == behind {
            return;
        }
        self.record(Branch {
            from,
            to: rip,
            kind: last.kind,
            user: user.unwrap_or(block.class.is_user()),
        });
    }

    fn record(&mut self, branch: Branch) {
        self.oracle_at(branch.from, if branch.user { 3 } else { 0 });
        self.pmu.branch(branch);
        if self.pmu.oracle().is_some_and(Oracle::has_finding) {
            self.oracle_follow();
        }
    }

    /// The instruction at `rip` has begun, and raised an exception or made a guest exit: it was no
    /// branch.
    fn drop_branch_at(&mut self, rip: u64) {
        // SAFETY: It came from translated code of a block that is in the arena.
        let block = unsafe { self.board().block().as_ref() };
        let last = block.and_then(|block| block.branch);
        if last.is_some_and(|last| self.block_start.wrapping_add(last.offset) == rip) {
            self.board().branch = 0;
        }
    }

    /// A guest was left at `rip`, in the instruction there if that has `begun`.
    pub fn guest_left(&mut self, rip: u64, begun: bool, user: bool) {
        if begun {
            self.drop_branch_at(rip);
        }
        self.settle_branch(rip, Some(user));
    }

    /// An interrupt or an `exception` has led the CPU from linear address `from` to where it is now;
    /// `begun` says whether the instruction at `from` was being executed.
    pub fn event_taken(&mut self, from: u64, exception: bool, begun: bool) {
        if self.board().recording == 0 {
            return;
        }
        // SAFETY: It came from translated code of a block that is in the arena.
        let block = unsafe { self.board().block().as_ref() };
        let rip = from.wrapping_sub(block.map_or(0, |block| block.base));
        if begun {
            self.drop_branch_at(rip);
        }
        let interrupted = self.interrupted_user(rip);
        self.settle_branch(rip, interrupted);
        if exception && self.exception_is_debug(block, from) {
            self.pmu.map_mut().debug_exception();
            self.follow_branches();
            return;
        }
        let to = self.bus.register(handles().rip);
        let user = self.bus.register(handles().cs) & 3 != 0;
        self.record(Branch {
            from: rip,
            to,
            kind: BranchKind::Far,
            user,
        });
    }

    /// Whether the exception that was just delivered is #DB: not INT 1, which has its vector.
    fn exception_is_debug(&self, block: Option<&Block>, from: u64) -> bool {
        // SAFETY: In a callback in the vCPU's thread.
        let number = unsafe { leave::exception(self.cpu_state()) };
        let insn = block.and_then(|block| Some(block.insns[block.index_of(from)?]));
        let is_int_n =
            insn.is_some_and(|insn| insn.kind == Kind::SoftwareInterrupt && insn.len == INT_N);
        number == DEBUG && !is_int_n
    }

    /// Whether the CPU was at CPL > 0 at `rip`, where an event has interrupted it, if what that has
    /// pushed says so. (Outside long mode it is not looked at.)
    fn interrupted_user(&mut self, rip: u64) -> Option<bool> {
        if self.bus.register(handles().efer) & EFER_LMA == 0 {
            return None;
        }
        let stack = self.bus.register(handles().rsp);
        // An error code may be below RIP. CS is above it.
        let at = [0, 8]
            .map(|offset| stack.wrapping_add(offset))
            .into_iter()
            .find(|at| self.bus.virtual_memory(*at, 8) == Some(rip))?;
        let cs = self.bus.virtual_memory(at.wrapping_add(8), 8)?;
        Some(cs & 3 != 0)
    }
}
