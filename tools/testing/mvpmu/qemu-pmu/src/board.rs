// SPDX-License-Identifier: GPL-2.0
//! The data that translated code itself writes: one [`Board`] per vCPU.

use std::mem::offset_of;
use std::sync::OnceLock;

use pmu_model::Class;
use pmu_model::Source;

use crate::api;
use crate::block::page_offset;
use crate::block::Block;

/// Accumulators: of each source, in each class.
pub type Events = [[u64; Class::COUNT]; Source::COUNT];

/// A vCPU's scoreboard entry.
#[repr(C)]
pub struct Board {
    /// Accumulators of events.
    pub events: Events,
    /// The address of the block that was entered last, with [`CLOSED`] set when its last
    /// instruction was reached. If another block starts with it clear, this one was left in the
    /// middle without any event: by a store into itself, or by an atomic instruction that is
    /// tried again. It is also clear in [`CPUID`].
    block: u64,
    /// A conditional branch was executed last, which was added as taken: where it goes on if it was
    /// not, as [`fall_through`] has it. Else 0.
    pub fall_through: u64,
    /// Not 0: in host mode, and something of a guest is in the PMU.
    pub left: u64,
    /// Not 0: the sweep has to see the next instruction.
    pub inside: u64,
    /// Not 0: blocks are listed.
    pub listing: u64,
    /// Not 0: branches are recorded.
    pub recording: u64,
    /// Not 0: the block that was entered last has come to the branch at its end. It is 0 again once it
    /// is known where that led.
    pub branch: u64,
}

/// Added to a block's address.
pub const CLOSED: u64 = 1 << 63;
/// In place of a block: it was left, and its last instruction was a CPUID whose result is to be
/// changed.
const CPUID: u64 = 1;

impl Board {
    /// The block that was entered last, if there is one.
    pub fn block(&self) -> *const Block {
        match self.block & !CLOSED {
            CPUID => std::ptr::null(),
            address => address as *const Block,
        }
    }

    /// Whether its last instruction was reached.
    pub fn is_closed(&self) -> bool {
        self.block & CLOSED != 0
    }

    /// The block was left, all is settled.
    pub fn leave(&mut self) {
        self.block = CLOSED;
    }

    /// The block ends with a CPUID that needs attention.
    pub fn leave_with_cpuid(&mut self) {
        self.block = CPUID;
    }

    /// Whether it did.
    pub fn has_cpuid(&self) -> bool {
        self.block == CPUID
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

/// Whether something of a guest is left, for translated code.
pub fn left() -> api::U64Field {
    field(offset_of!(Board, left))
}

/// Whether the sweep has to see the next instruction, for translated code.
pub fn inside() -> api::U64Field {
    field(offset_of!(Board, inside))
}

/// Whether blocks are listed, for translated code.
pub fn listing() -> api::U64Field {
    field(offset_of!(Board, listing))
}

/// Whether branches are recorded, for translated code.
pub fn recording() -> api::U64Field {
    field(offset_of!(Board, recording))
}

/// Whether a block has come to its branch, for translated code.
pub fn branch() -> api::U64Field {
    field(offset_of!(Board, branch))
}

/// Where the last conditional branch goes on if it is not taken, for translated code.
pub fn last_fall_through() -> api::U64Field {
    field(offset_of!(Board, fall_through))
}

/// How [`Board::fall_through`] names an address: by its offset in the page, and it is not 0.
pub fn fall_through(vaddr: u64) -> u64 {
    page_offset(vaddr) + 1
}

/// The block that was entered last, for translated code.
pub fn block() -> api::U64Field {
    field(offset_of!(Board, block))
}
