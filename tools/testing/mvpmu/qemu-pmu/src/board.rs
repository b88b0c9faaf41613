// SPDX-License-Identifier: GPL-2.0
//! The data that translated code itself writes: one [`Board`] per vCPU.

use std::mem::offset_of;
use std::sync::OnceLock;

use pmu_model::Class;
use pmu_model::Source;

use crate::api;
use crate::block::Block;

/// The sources translated code counts: the first ones of [`Source`].
pub const COUNTED: usize = Source::LoadStores as usize + 1;

/// A vCPU's scoreboard entry.
#[repr(C)]
pub struct Board {
    /// Accumulators of events.
    pub events: [[u64; Class::COUNT]; COUNTED],
    /// The block that was entered last.
    pub block: *const Block,
    /// The block that is being executed, unless its last instruction was reached. Zero otherwise.
    /// If another block starts with it set, this one was left in the middle without any event:
    /// by a store into itself, or by an atomic instruction that is tried again. See also
    /// [`Board::CPUID`].
    pub open: usize,
}

impl Board {
    /// In [`Board::open`]: the last instruction was a CPUID whose result is to be changed.
    pub const CPUID: usize = 1;

    /// The block that is open, if any.
    pub fn open_block(&self) -> *const Block {
        match self.open {
            Board::CPUID => std::ptr::null(),
            address => address as *const Block,
        }
    }
}

/// The scoreboard. Its entries move when vCPUs are added, so they are looked up at every use.
struct Boards(*mut api::Scoreboard);

// SAFETY: The scoreboard is only handed to QEMU, which synchronises its uses.
unsafe impl Send for Boards {}
// SAFETY: As above.
unsafe impl Sync for Boards {}

static BOARDS: OnceLock<Boards> = OnceLock::new();

fn boards() -> *mut api::Scoreboard {
    BOARDS
        // SAFETY: QEMU calls into the plugin, so it can make a scoreboard.
        .get_or_init(|| Boards(unsafe { api::qemu_plugin_scoreboard_new(size_of::<Board>()) }))
        .0
}

/// The entry of vCPU `index`, which exists.
pub fn find(index: u32) -> *mut Board {
    // SAFETY: The scoreboard exists; entries are as large as a Board.
    unsafe { api::qemu_plugin_scoreboard_find(boards(), index) }.cast()
}

fn field(offset: usize) -> api::U64Field {
    api::U64Field {
        score: boards(),
        offset,
    }
}

/// An accumulator, for translated code.
pub fn events(source: Source, class: Class) -> api::U64Field {
    let index = source as usize * Class::COUNT + class as usize;
    field(offset_of!(Board, events) + index * size_of::<u64>())
}

/// [`Board::block`], for translated code.
pub fn block() -> api::U64Field {
    field(offset_of!(Board, block))
}

/// [`Board::open`], for translated code.
pub fn open() -> api::U64Field {
    field(offset_of!(Board, open))
}
