// SPDX-License-Identifier: GPL-2.0
//! String instructions with a repeat prefix.
//!
//! QEMU executes them in portions and enters the instruction again for each, which adds it again.
//! It is one instruction.

use crate::block::same_offset;
use crate::block::Site;
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

/// A string instruction is entered.
pub fn entered(vcpu: &mut Vcpu, site: &Site) {
    let names = handles();
    let rep = Rep {
        vaddr: site.vaddr,
        count: vcpu.bus.register(names.rcx),
        position: vcpu
            .bus
            .register(names.rdi)
            .wrapping_add(vcpu.bus.register(names.rsi)),
    };
    if vcpu.rep.as_ref().is_some_and(|last| last.goes_on_as(&rep)) {
        vcpu.unretire_one(site.block().class);
    }
    vcpu.rep = Some(rep);
}
