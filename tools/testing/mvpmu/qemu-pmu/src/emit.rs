// SPDX-License-Identifier: GPL-2.0
//! Putting callbacks and counting into a block that is being translated.

use std::ffi::c_void;

use pmu_model::Class;
use pmu_model::Source;

use crate::api;
use crate::block::Block;
use crate::block::Last;
use crate::block::Site;
use crate::board;
use crate::callbacks;
use crate::count;
use crate::decode;
use crate::decode::Kind;

/// The longest instruction.
const INSTRUCTION_MAX: usize = 15;

/// A block that is being translated, with what is remembered of it.
#[derive(Clone, Copy)]
pub struct Emit<'a> {
    /// QEMU's block.
    pub tb: *mut api::Tb,
    /// Ours.
    pub block: &'a Block,
}

impl Emit<'_> {
    fn data(self) -> *mut c_void {
        std::ptr::from_ref(self.block).cast_mut().cast()
    }

    /// Calls when the block starts.
    pub fn at_start(self, callback: api::VcpuCallback) {
        // SAFETY: The block is being translated; ours outlives it.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_cb(
                self.tb,
                callback,
                api::CB_RW_REGS,
                self.data(),
            );
        }
    }

    /// Calls when the block starts and a field of the scoreboard compares so.
    fn at_start_if(
        self,
        field: api::U64Field,
        condition: api::Condition,
        value: u64,
        callback: api::VcpuCallback,
        flags: api::CallbackFlags,
    ) {
        // SAFETY: As above.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_cond_cb(
                self.tb,
                callback,
                flags,
                condition,
                field,
                value,
                self.data(),
            );
        }
    }

    /// Lets the sweep see the block, always or while something is swept.
    pub fn sweeping(self, always: bool) {
        let (inside, callback) = (board::inside(), callbacks::swept);
        let value = u64::from(!always);
        self.at_start_if(inside, api::COND_GE, value, callback, api::CB_RW_REGS_PC);
    }

    /// Lists the block while there is a listing.
    pub fn listing(self) {
        let (listing, callback) = (board::listing(), callbacks::listed);
        self.at_start_if(listing, api::COND_GE, 1, callback, api::CB_R_REGS);
    }

    /// Changes a field of the scoreboard when the block starts.
    fn inline(self, op: api::InlineOp, field: api::U64Field, value: u64) {
        // SAFETY: As above.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(self.tb, op, field, value);
        }
    }

    /// Watches what is left in the PMU when the block starts.
    pub fn watching_user(self) {
        let (left, callback) = (board::left(), callbacks::user_mode);
        self.at_start_if(left, api::COND_GE, 1, callback, api::CB_RW_REGS);
    }

    /// Sees which branch has led to the block, and notes when one ends it. Before what leaves the block
    /// before it begins: the branch was executed.
    pub fn branches(self, last: Option<&Instruction>) {
        let (recording, callback) = (board::recording(), callbacks::recorded);
        self.at_start_if(recording, api::COND_GE, 1, callback, api::CB_R_REGS);
        if let (Some(last), Some(_)) = (last, self.block.branch) {
            last.inline(api::INLINE_STORE_U64, board::branch(), 1);
        }
    }

    /// Keeps the accumulators. The order matters: when one of the callbacks leaves the block,
    /// nothing of it has been added and it is not open.
    pub fn counting(self, last: Option<&Instruction>) {
        let class = self.block.class;
        let instructions = board::events(Source::Instructions, class);
        let open = self.block.address();
        let closed = open | board::CLOSED;
        let n = self.block.insns.len();

        if self.block.counted.contains(Source::Taken) {
            self.at_start_if(
                board::last_fall_through(),
                api::COND_EQ,
                board::fall_through(self.block.vaddr),
                callbacks::not_taken,
                api::CB_RW_REGS,
            );
            let next = self.block.fall_through().map_or(0, board::fall_through);
            self.inline(api::INLINE_STORE_U64, board::last_fall_through(), 0);
            if let (Some(last), 1..) = (last, next) {
                last.inline(api::INLINE_STORE_U64, board::last_fall_through(), next);
            }
        }
        self.at_start_if(
            board::block(),
            api::COND_LT,
            board::CLOSED,
            callbacks::left_open,
            api::CB_RW_REGS,
        );
        self.at_start_if(
            instructions,
            api::COND_GE,
            count::ALARM,
            callbacks::alarm,
            api::CB_RW_REGS_PC,
        );
        for source in Source::ALL {
            match self.block.counts_from(0, source) {
                0 => {}
                n => self.inline(api::INLINE_ADD_U64, board::events(source, class), n),
            }
        }
        // A block of one instruction cannot be left in the middle.
        match last.filter(|_| n > 1) {
            None => self.inline(api::INLINE_STORE_U64, board::block(), closed),
            Some(last) => {
                self.inline(api::INLINE_STORE_U64, board::block(), open);
                last.inline(api::INLINE_STORE_U64, board::block(), closed);
            }
        }
    }
}

/// An instruction that is being translated.
pub struct Instruction {
    insn: *mut api::Insn,
    /// Its address.
    pub vaddr: u64,
    /// Its length in bytes.
    pub len: usize,
    /// What it is.
    pub code: iced_x86::Instruction,
    bytes: [u8; INSTRUCTION_MAX],
}

impl Instruction {
    /// The instruction that QEMU calls so.
    ///
    /// # Safety
    ///
    /// It is being translated.
    pub unsafe fn new(insn: *mut api::Insn) -> Instruction {
        let mut bytes = [0; INSTRUCTION_MAX];
        // SAFETY: The instruction is being translated; the array is as long as is said.
        unsafe {
            api::qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len());
            let len = api::qemu_plugin_insn_size(insn);
            let vaddr = api::qemu_plugin_insn_vaddr(insn);
            Instruction {
                insn,
                vaddr,
                len,
                code: decode::decode(&bytes[..len.min(INSTRUCTION_MAX)], vaddr),
                bytes,
            }
        }
    }

    /// Its code.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(INSTRUCTION_MAX)]
    }

    /// The branch that it is, if it is one, in the block at `start`.
    pub fn branch(&self, start: u64) -> Option<Last> {
        let kind = decode::kind(&self.code);
        (kind == Kind::Branch).then(|| Last {
            kind: decode::branch_kind(decode::sources(&self.code, kind)),
            offset: self.vaddr.wrapping_sub(start),
            len: self.len as u8,
        })
    }

    /// Calls before it is executed.
    pub fn before(&self, callback: api::VcpuCallback, flags: api::CallbackFlags, site: &Site) {
        let data = std::ptr::from_ref(site).cast_mut().cast();
        // SAFETY: It is being translated; the site outlives the translation.
        unsafe { api::qemu_plugin_register_vcpu_insn_exec_cb(self.insn, callback, flags, data) };
    }

    /// Calls at each store.
    pub fn on_store(&self, callback: api::MemCallback) {
        // SAFETY: It is being translated.
        unsafe {
            api::qemu_plugin_register_vcpu_mem_cb(
                self.insn,
                callback,
                api::CB_R_REGS,
                api::MEM_W,
                std::ptr::null_mut(),
            );
        }
    }

    /// Changes a field of the scoreboard before it is executed.
    fn inline(&self, op: api::InlineOp, field: api::U64Field, value: u64) {
        // SAFETY: It is being translated.
        unsafe {
            api::qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, op, field, value);
        }
    }

    /// Counts its memory accesses.
    pub fn count_memory(&self, class: Class) {
        let count = |rw, source| {
            // SAFETY: It is being translated.
            unsafe {
                api::qemu_plugin_register_vcpu_mem_inline_per_vcpu(
                    self.insn,
                    rw,
                    api::INLINE_ADD_U64,
                    board::events(source, class),
                    1,
                );
            }
        };
        if decode::is_load_store(&self.code) {
            count(api::MEM_W, Source::LoadStores);
        } else {
            count(api::MEM_R, Source::Loads);
            count(api::MEM_W, Source::Stores);
        }
    }
}
