// SPDX-License-Identifier: GPL-2.0
//! String instructions with a repeat prefix.
//!
//! QEMU executes them in portions and enters the instruction again for each. It is one instruction:
//! [`crate::count`] adds it once.

use crate::block::same_offset;
use crate::registers::handles;
use crate::registers::Bus;

/// A string instruction, when it was entered last.
pub struct Rep {
    vaddr: u64,
    count: u64,
    position: u64,
}

impl Rep {
    /// The one at `vaddr`, as it would go on now.
    pub fn at(vaddr: u64, bus: &mut Bus) -> Rep {
        let names = handles();
        let (rdi, rsi) = (bus.register(names.rdi), bus.register(names.rsi));
        Rep {
            vaddr,
            count: bus.register(names.rcx),
            position: rdi.wrapping_add(rsi),
        }
    }

    /// Whether this is the instruction at `pc`.
    pub fn is_at(&self, pc: u64) -> bool {
        same_offset(self.vaddr, pc)
    }

    /// Whether `next` is this one, somewhat further on.
    pub fn goes_on_as(&self, next: &Rep) -> bool {
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
