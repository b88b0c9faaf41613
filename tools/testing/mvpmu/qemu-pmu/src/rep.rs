// SPDX-License-Identifier: GPL-2.0
//! String instructions with a repeat prefix.
//!
//! QEMU executes them in portions and enters the instruction again for each, which adds it again.
//! It is one instruction.

use crate::block::same_offset;
use crate::block::Block;
use crate::block::Site;
use crate::quirks;
use crate::quirks::Quirk;
use crate::registers::handles;
use crate::vcpu::Vcpu;

/// A string instruction, when it was entered last.
pub struct Rep {
    vaddr: u64,
    count: u64,
    position: u64,
}

impl Rep {
    /// Whether this is the instruction at `pc`.
    pub fn is_at(&self, pc: u64) -> bool {
        same_offset(self.vaddr, pc)
    }

    /// Whether `next` is this one, somewhat further on.
    fn goes_on_as(&self, next: &Rep) -> bool {
        if !self.is_at(next.vaddr) || next.count == 0 || next.count >= self.count {
            return false;
        }
        let iterations = self.count - next.count;
        let moved = next
            .position
            .wrapping_sub(self.position)
            .cast_signed()
            .unsigned_abs();
        // RSI and RDI together move by one or two elements of 1 to 8 bytes per iteration.
        [1, 2, 4, 8, 16]
            .iter()
            .any(|size| iterations.wrapping_mul(*size) == moved)
    }
}

impl Vcpu {
    /// The string instruction at `vaddr`, as it would go on now.
    fn rep_at(&mut self, vaddr: u64) -> Rep {
        let names = handles();
        let (rdi, rsi) = (self.bus.register(names.rdi), self.bus.register(names.rsi));
        Rep {
            vaddr,
            count: self.bus.register(names.rcx),
            position: rdi.wrapping_add(rsi),
        }
    }

    /// A string instruction is entered.
    pub fn enter_rep(&mut self, site: &Site) {
        let rep = self.rep_at(site.vaddr);
        let goes_on = self.rep.as_ref().is_some_and(|last| last.goes_on_as(&rep));
        if goes_on && quirks::active(Quirk::RepPortions) {
            self.unretire_one(site.block().class);
        }
        self.rep = Some(rep);
    }

    /// A fold is due before `block`: if a string instruction would go on there, it has not
    /// retired yet. It is added again when it goes on.
    pub fn suspend_rep(&mut self, block: &Block) {
        let Some(last) = self.rep.take() else {
            return;
        };
        if last.goes_on_as(&self.rep_at(block.vaddr)) {
            self.unretire_one(block.class);
        }
    }
}
