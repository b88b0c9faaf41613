// SPDX-License-Identifier: GPL-2.0

//! Memory as Intel PT uses it: by physical addresses, or by those of a guest.
//!
//! The core's own walk leaves the guest where nothing is mapped, and says that an instruction was it.
//! SDM volume 3, "The Extended Page Table Mechanism (EPT)": the format of the tables, the accessed and
//! dirty flags. The output of PT is a write of data, its tables are read.

use pmu_model::intel::PhysicalMemory;
use pmu_model::intel::Unmapped;

use crate::memory;

/// An entry of the tables.
mod entry {
    pub const READ: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const PRESENT: u64 = 0b111;
    pub const LARGE: u64 = 1 << 7;
    pub const ACCESSED: u64 = 1 << 8;
    pub const DIRTY: u64 = 1 << 9;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// The pointer to the tables: there are accessed and dirty flags.
const FLAGS: u64 = 1 << 6;
/// Four levels, of 9 bits each.
const LEVELS: u32 = 4;

/// Memory, of the host or of a guest.
pub struct Physical {
    /// The pointer to the guest's tables.
    tables: Option<u64>,
}

impl Physical {
    /// The host's.
    pub fn of_host() -> Physical {
        Physical { tables: None }
    }

    /// That of the guest with this EPT pointer.
    pub fn of_guest(pointer: u64) -> Physical {
        Physical {
            tables: Some(pointer),
        }
    }

    /// Where `address` is, to be accessed in this way.
    fn translate(&self, address: u64, access: u64) -> Result<u64, Unmapped> {
        let Some(pointer) = self.tables else {
            return Ok(address);
        };
        walk(pointer, address, access).ok_or(Unmapped(address))
    }
}

fn walk(pointer: u64, address: u64, access: u64) -> Option<u64> {
    let mut table = pointer & entry::ADDRESS;
    for level in (0..LEVELS).rev() {
        let shift = 12 + 9 * level;
        let at = table + 8 * (address >> shift & 0x1ff);
        let found = memory::word(at)?;
        if found & entry::PRESENT == 0 || found & access != access {
            return None;
        }
        let is_last = level == 0 || found & entry::LARGE != 0;
        if pointer & FLAGS != 0 {
            let dirty = is_last && access & entry::WRITE != 0;
            let flags = entry::ACCESSED | if dirty { entry::DIRTY } else { 0 };
            memory::set_word(at, found | flags)?;
        }
        table = found & entry::ADDRESS;
        if is_last {
            let offset = (1 << shift) - 1;
            return Some(table & !offset | address & offset);
        }
    }
    None
}

impl PhysicalMemory for Physical {
    fn read(&mut self, address: u64) -> Result<u64, Unmapped> {
        let address = self.translate(address, entry::READ)?;
        Ok(memory::word(address).unwrap_or(u64::MAX))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unmapped> {
        let address = self.translate(address, entry::WRITE)?;
        memory::store(address, bytes);
        Ok(())
    }

    fn is_mapped(&self) -> bool {
        self.tables.is_none()
    }
}
