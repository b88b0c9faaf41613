// SPDX-License-Identifier: GPL-2.0
//! Whose each register of the last branch records is.

use crate::intel::LBR_ENTRIES;

use super::records::BranchRegister;
use super::records::Recorded;
use super::Mark;

/// Of an entry.
type Marks = [Mark; 3];

/// Whose the registers of the records are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Branches {
    pub filter: Mark,
    pub control: Mark,
    /// From, to and more of each entry, as a ring.
    entries: [Marks; LBR_ENTRIES],
    /// Which of them is number 0.
    newest: usize,
    /// The entries, a bit for each, that nobody has read since a guest has recorded or written one.
    pub unread: u32,
}

impl Branches {
    /// All of them are this one's.
    pub fn of(mark: Mark) -> Branches {
        Branches {
            filter: mark,
            control: mark,
            entries: [[mark; 3]; LBR_ENTRIES],
            newest: 0,
            unread: 0,
        }
    }

    /// Where entry `n` is.
    fn at(&self, n: usize) -> usize {
        (self.newest + n) % LBR_ENTRIES
    }

    pub fn mark(&self, register: BranchRegister) -> Mark {
        match (register, register.place()) {
            (_, Some((n, field))) => self.entries[self.at(n)][field],
            (BranchRegister::Filter, _) => self.filter,
            (BranchRegister::Control, _) => self.control,
            _ => Mark::Unclaimed,
        }
    }

    pub fn set_mark(&mut self, register: BranchRegister, mark: Mark) {
        match (register, register.place()) {
            (_, Some((n, field))) => self.entries[self.at(n)][field] = mark,
            (BranchRegister::Filter, _) => self.filter = mark,
            (BranchRegister::Control, _) => self.control = mark,
            // All entries are 0 then.
            _ => self.entries = Branches::of(Mark::Unclaimed).entries,
        }
    }

    /// One more entry, or one less, of so many.
    pub fn record(&mut self, change: Recorded, mark: Mark, depth: usize) {
        if matches!(mark, Mark::Guest(_)) {
            self.changed_by_guest();
        }
        match change {
            Recorded::Branch => {
                self.newest = self.at(LBR_ENTRIES - 1);
                self.entries[self.newest] = [mark; 3];
            }
            Recorded::Return => {
                self.newest = self.at(1);
                let oldest = self.at(depth - 1);
                self.entries[oldest] = [Mark::Unclaimed; 3];
            }
        }
    }

    /// A guest has changed an entry. What was read before is no copy any more.
    pub fn changed_by_guest(&mut self) {
        self.unread = u32::MAX;
    }

    /// Whose entry nobody has read as it is.
    pub fn unread(&self) -> Option<u64> {
        let mut unread = (0..LBR_ENTRIES).filter(|n| self.unread >> n & 1 != 0);
        unread.find_map(|n| match self.entries[self.at(n)][0] {
            Mark::Guest(guest) => Some(guest),
            _ => None,
        })
    }

    /// Whose the entries are, if some of `depth` are a guest's.
    pub fn guest(&self, depth: usize) -> Option<Mark> {
        let marks = (0..depth).flat_map(|n| self.entries[self.at(n)]);
        marks.into_iter().find(|mark| mark.is_guest())
    }
}
