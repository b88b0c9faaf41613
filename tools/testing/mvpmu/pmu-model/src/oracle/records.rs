// SPDX-License-Identifier: GPL-2.0
//! The registers of the last branch records, of either vendor, and what they hold.

use crate::intel::LBR_ENTRIES;
use crate::Counters;

use super::Cell;
use super::Watched;

/// From, to, and more.
const FIELDS: usize = 3;

/// How many registers the entries have.
const ENTRIES: usize = FIELDS * LBR_ENTRIES;

/// A register of the last branch records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchRegister {
    /// Has branches recorded.
    Control,
    /// Leaves some out (AMD: the control does so on Intel).
    Filter,
    /// How many there are. On Intel a write clears them.
    Depth,
    /// From where branch `n` went; the newest is 0.
    From(usize),
    /// To where.
    To(usize),
    /// What else is known of it (Intel).
    Info(usize),
}

impl BranchRegister {
    /// All that have an owner: those of the entries by their numbers, then the other two.
    pub fn all() -> impl Iterator<Item = BranchRegister> {
        let others = [BranchRegister::Filter, BranchRegister::Control];
        BranchRegister::of_entries().chain(others)
    }

    /// Those of the entries.
    pub fn of_entries() -> impl Iterator<Item = BranchRegister> {
        (0..LBR_ENTRIES).flat_map(|n| {
            [
                BranchRegister::From(n),
                BranchRegister::To(n),
                BranchRegister::Info(n),
            ]
        })
    }

    /// The bit that stands for it in [`Entry::branches`](super::Entry::branches).
    pub fn bit(self) -> u128 {
        match (self, self.place()) {
            (_, Some((n, field))) => 1 << (FIELDS * n + field),
            (BranchRegister::Filter, _) => 1 << ENTRIES,
            (BranchRegister::Control, _) => 1 << (ENTRIES + 1),
            _ => 0,
        }
    }

    /// The bits of those of the entries.
    pub const BITS_OF_ENTRIES: u128 = (1 << ENTRIES) - 1;

    /// Of which entry it is, and what of it.
    pub(super) fn place(self) -> Option<(usize, usize)> {
        match self {
            BranchRegister::From(n) => Some((n, 0)),
            BranchRegister::To(n) => Some((n, 1)),
            BranchRegister::Info(n) => Some((n, 2)),
            BranchRegister::Control | BranchRegister::Filter | BranchRegister::Depth => None,
        }
    }
}

/// What became of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A branch was recorded, which is entry 0 now.
    Branch,
    /// A return has taken entry 0 off.
    Return,
}

/// What the registers hold that a vCPU must come back with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    filter: u64,
    entries: [[u64; FIELDS]; LBR_ENTRIES],
}

impl Records {
    /// Those that are in hardware.
    pub fn read<M: Watched>(map: &M, counters: &Counters) -> Records {
        let value = |register| map.value(Cell::Lbr(register), counters);
        let mut records = Records {
            filter: value(BranchRegister::Filter),
            ..Records::default()
        };
        for register in BranchRegister::of_entries() {
            if let Some((n, field)) = register.place() {
                records.entries[n][field] = value(register);
            }
        }
        records
    }

    /// No branch was recorded.
    pub fn is_empty(&self) -> bool {
        self.has_same_branches(&Records::default())
    }

    /// The same branches were.
    pub fn has_same_branches(&self, other: &Records) -> bool {
        self.entries == other.entries
    }

    /// The first register in which they differ.
    pub fn differs(&self, other: &Records) -> Option<BranchRegister> {
        let get = |records: &Records, register: BranchRegister| match register.place() {
            Some((n, field)) => records.entries[n][field],
            None => records.filter,
        };
        // A control is cleared for a #DB that KVM injects.
        let checked = BranchRegister::all().filter(|r| *r != BranchRegister::Control);
        let mut checked = checked.filter(|register| get(self, *register) != get(other, *register));
        checked.next()
    }
}
