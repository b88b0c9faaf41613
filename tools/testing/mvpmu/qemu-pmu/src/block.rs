// SPDX-License-Identifier: GPL-2.0
//! What is remembered of a translation block, to correct the counts when it is not executed to
//! its end.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use pmu_model::Class;

use crate::board;
use crate::decode::Kind;
use crate::vcpu;

/// QEMU keeps translations by physical address: the same one runs wherever a page is mapped. So
/// only the offset within the page of an address is good for comparisons.
const PAGE_OFFSET: u64 = 0xfff;

/// True when both addresses have the same offset in their pages.
pub fn same_offset(a: u64, b: u64) -> bool {
    (a ^ b) & PAGE_OFFSET == 0
}

/// An instruction of a block, as a callback gets it.
pub struct Site {
    /// The block.
    pub block: *const Block,
    /// Its place among the block's instructions.
    pub index: usize,
    /// Its address, when it was translated.
    pub vaddr: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
}

/// A translation block.
pub struct Block {
    /// Mode and privilege level it was translated for; QEMU does not use it for others.
    pub class: Class,
    /// Its instructions. There is at least one.
    pub sites: Box<[Site]>,
}

impl Block {
    /// The place of the instruction at `pc`.
    pub fn index_of(&self, pc: u64) -> Option<usize> {
        self.sites.iter().position(|s| same_offset(s.vaddr, pc))
    }

    /// How many instructions, and branches among them, there are from `index` on.
    pub fn counts_from(&self, index: usize) -> (u64, u64) {
        let rest = self.sites.get(index..).unwrap_or_default();
        let branches = rest.iter().filter(|s| s.kind.is_branch()).count();
        (rest.len() as u64, branches as u64)
    }
}

/// A block in the arena. Translated code holds its address.
struct Entry(*mut Block);

// SAFETY: A Block is not changed after it is made.
unsafe impl Send for Entry {}

/// Every block that translated code may know of.
static ARENA: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Keeps a block until QEMU drops its translations. `sites` need not know the block yet.
pub fn keep(class: Class, sites: Box<[Site]>) -> *const Block {
    let block = Box::into_raw(Box::new(Block { class, sites }));
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

/// QEMU dropped every translation: drop the blocks, but those in which a vCPU was stopped.
pub fn flushed() {
    let mut used = HashSet::new();
    for index in vcpu::all() {
        // SAFETY: The vCPU exists, and QEMU has stopped all of them while it flushes.
        let board = unsafe { &*board::find(index) };
        used.insert(board.block);
        used.insert(board.open_block());
    }
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    arena.retain(|entry| {
        let keep = used.contains(&entry.0.cast_const());
        if !keep {
            // SAFETY: It came from Box::into_raw and leaves the arena now. Translated code that
            // had it is gone, and no vCPU has it.
            drop(unsafe { Box::from_raw(entry.0) });
        }
        keep
    });
}
