// SPDX-License-Identifier: GPL-2.0
//! What is remembered of a translation block, to correct the counts when it is not executed to
//! its end.

use std::collections::HashSet;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::sync::Mutex;
use std::sync::PoisonError;

use pmu_model::amd::BranchKind;
use pmu_model::oracle::StackLoad;
use pmu_model::Class;
use pmu_model::Source;

use crate::decode::Kind;
use crate::decode::Sources;

/// QEMU keeps translations by physical address: the same one runs wherever a page is mapped. So
/// only the offset within the page of an address is good for comparisons.
const PAGE_OFFSET: u64 = 0xfff;

/// The offset of an address in its page.
pub fn page_offset(vaddr: u64) -> u64 {
    vaddr & PAGE_OFFSET
}

/// True when both addresses have the same offset in their pages.
pub fn same_offset(a: u64, b: u64) -> bool {
    (a ^ b) & PAGE_OFFSET == 0
}

/// An instruction of a block.
#[derive(Clone, Copy)]
pub struct Insn {
    /// The offset of its address in the page.
    offset: u16,
    /// Its length in bytes.
    pub len: u8,
    /// What it is.
    pub kind: Kind,
    /// What counting adds it to.
    pub sources: Sources,
    /// The load of the stack pointer that it is, for the oracle.
    pub stack_load: Option<StackLoad>,
}

impl Insn {
    /// The instruction of `len` bytes at `vaddr`.
    pub fn new(vaddr: u64, len: usize, kind: Kind, sources: Sources) -> Insn {
        Insn {
            offset: (vaddr & PAGE_OFFSET) as u16,
            len: len as u8,
            kind,
            sources,
            stack_load: None,
        }
    }

    /// The same, which loads the stack pointer.
    pub fn loading_stack(self, stack_load: Option<StackLoad>) -> Insn {
        Insn { stack_load, ..self }
    }
}

/// An instruction that has a callback, as the callback gets it.
pub struct Site {
    /// The block.
    block: *const Block,
    /// Its place among the block's instructions.
    pub index: usize,
    /// Its address, when it was translated.
    pub vaddr: u64,
}

impl Site {
    /// The instruction at place `index`. It gets its block when that is kept.
    pub fn new(index: usize, vaddr: u64) -> Site {
        Site {
            block: std::ptr::null(),
            index,
            vaddr,
        }
    }

    /// The block.
    pub fn block(&self) -> &Block {
        // SAFETY: Set by keep(), the only way to publish a site; the block owns the site.
        unsafe { &*self.block }
    }

    /// What the block knows of it.
    pub fn insn(&self) -> Insn {
        self.block().insns[self.index]
    }
}

/// The branch at the end of a block.
#[derive(Clone, Copy)]
pub struct Last {
    /// What it is.
    pub kind: BranchKind,
    /// How far behind the start of the block.
    pub offset: u64,
    /// Its length.
    pub len: u8,
}

/// A translation block.
pub struct Block {
    /// Mode and privilege level it was translated for; QEMU does not use it for others.
    pub class: Class,
    /// Its address, when it was translated.
    pub vaddr: u64,
    /// Its instructions. There is at least one.
    pub insns: Box<[Insn]>,
    /// Those that have a callback.
    pub sites: Box<[Site]>,
    /// What it counts.
    pub counted: Sources,
    /// How often it was entered while there is a listing.
    pub listed: AtomicI64,
    /// The base of the code segment it was translated for, if branches are seen; QEMU does not use it
    /// for others.
    pub base: u64,
    /// The branch at its end, if those are seen.
    pub branch: Option<Last>,
}

impl Block {
    /// The place of the instruction at `pc`.
    pub fn index_of(&self, pc: u64) -> Option<usize> {
        let offset = (pc & PAGE_OFFSET) as u16;
        self.insns.iter().position(|insn| insn.offset == offset)
    }

    /// How often it counts `source` from place `index` on.
    pub fn counts_from(&self, index: usize, source: Source) -> u64 {
        if !self.counted.contains(source) {
            return 0;
        }
        let rest = self.insns.get(index..).unwrap_or_default();
        let insns = rest.iter().filter(|insn| insn.sources.contains(source));
        insns.count() as u64
    }

    /// Where it goes on when its last instruction is a conditional branch and is not taken, if it
    /// counts those.
    pub fn fall_through(&self) -> Option<u64> {
        let insn = self.insns.last()?;
        let conditional =
            self.counted.contains(Source::Taken) && insn.sources.contains(Source::Taken);
        conditional.then(|| u64::from(insn.offset) + u64::from(insn.len))
    }

    /// It is entered, which counts for so much.
    pub fn list(&self, weight: i64) {
        self.listed.fetch_add(weight, Ordering::Relaxed);
    }

    /// What that has come to, once.
    pub fn take_listed(&self) -> i64 {
        self.listed.swap(0, Ordering::Relaxed)
    }

    /// The addresses of its instructions, when it was translated.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        let mut next = self.vaddr;
        self.insns.iter().map(move |insn| {
            let address = next;
            next = next.wrapping_add(insn.len.into());
            address
        })
    }

    /// The address by which translated code knows it.
    pub fn address(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }
}

/// A block in the arena. Translated code holds its address.
struct Entry(*mut Block);

// SAFETY: A Block is not changed after it is made, but for an atomic number.
unsafe impl Send for Entry {}

/// Every block that translated code may know of.
static ARENA: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Keeps a block until QEMU drops its translations.
pub fn keep(block: Block) -> *const Block {
    let block = Box::into_raw(Box::new(block));
    // SAFETY: The block was just made and nobody else has it.
    for site in unsafe { &mut (*block).sites } {
        site.block = block;
    }
    ARENA
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Entry(block));
    block
}

/// QEMU dropped every translation: drops the blocks, but the `used` ones, in which a vCPU was
/// stopped. What goes is shown to `take` before.
pub fn flushed(used: &HashSet<*const Block>, take: impl Fn(&Block)) {
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    arena.retain(|entry| {
        let keep = used.contains(&entry.0.cast_const());
        if !keep {
            // SAFETY: It is in the arena.
            take(unsafe { &*entry.0 });
            // SAFETY: It came from Box::into_raw and leaves the arena now. Translated code that
            // had it is gone, and no vCPU has it.
            drop(unsafe { Box::from_raw(entry.0) });
        }
        keep
    });
}

/// Shows every block.
pub fn each(show: impl Fn(&Block)) {
    let arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in &*arena {
        // SAFETY: It is in the arena.
        show(unsafe { &*entry.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let at = |vaddr, len| Insn::new(vaddr, len, Kind::Plain, Sources::default());
        Block {
            class: Class::HostKernel,
            vaddr: 0x1ffe,
            insns: [at(0x1ffe, 2), at(0x2000, 3), at(0x2003, 1)].into(),
            sites: Box::default(),
            counted: Sources::default(),
            listed: AtomicI64::new(0),
            base: 0,
            branch: None,
        }
    }

    // Break: addresses are made of offsets in the page.
    #[test]
    fn a_block_may_go_on_in_the_next_page() {
        let addresses: Vec<_> = block().addresses().collect();
        assert_eq!(addresses, [0x1ffe, 0x2000, 0x2003]);
    }

    // Break: what was listed stays.
    #[test]
    fn what_was_listed_is_taken_once() {
        let block = block();
        block.list(1);
        block.list(1);
        assert_eq!([block.take_listed(), block.take_listed()], [2, 0]);
    }
}
