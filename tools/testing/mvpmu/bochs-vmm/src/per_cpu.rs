// SPDX-License-Identifier: GPL-2.0

//! Globals of which each CPU has its own. The value of the CPU whose turn it is lies where that of
//! the only CPU would lie, so that looking at it costs no more; [`crate::cpus`] exchanges them when
//! the turn changes.

use std::cell::Cell;

use crate::single::SingleThread;

/// A machine has at most so many CPUs.
pub const MAX_CPUS: usize = 4;

/// What is exchanged when the turn changes.
pub trait PerCpu: Sync {
    /// Puts away what CPU `from` has, and brings what `to` has.
    fn exchange(&self, from: usize, to: usize);
}

/// A plain value of each CPU.
pub struct CpuCell<T> {
    now: Cell<T>,
    others: [Cell<T>; MAX_CPUS],
}

// SAFETY: As for `SingleThread`: one thread.
unsafe impl<T> Sync for CpuCell<T> {}

impl<T: Copy> CpuCell<T> {
    /// Makes the global, with the same value for all.
    pub const fn new(value: T) -> Self {
        Self {
            now: Cell::new(value),
            others: [
                Cell::new(value),
                Cell::new(value),
                Cell::new(value),
                Cell::new(value),
            ],
        }
    }

    /// Its value on the CPU whose turn it is.
    #[inline(always)]
    pub fn get(&self) -> T {
        self.now.get()
    }

    /// Sets it there.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.now.set(value);
    }
}

impl<T: Copy> CpuCell<T> {
    /// Changes it on all CPUs.
    pub fn change_all(&self, change: impl Fn(T) -> T) {
        for cell in self.others.iter().chain([&self.now]) {
            cell.set(change(cell.get()));
        }
    }
}

impl<T: Copy> PerCpu for CpuCell<T> {
    fn exchange(&self, from: usize, to: usize) {
        self.others[from].set(self.now.get());
        self.now.set(self.others[to].get());
    }
}

/// A thing that each CPU may have.
pub struct CpuThing<T> {
    now: SingleThread<Option<T>>,
    others: [SingleThread<Option<T>>; MAX_CPUS],
}

impl<T> CpuThing<T> {
    /// Makes the global; no CPU has one.
    pub const fn new() -> Self {
        Self {
            now: SingleThread::new(None),
            others: [const { SingleThread::new(None) }; MAX_CPUS],
        }
    }

    /// Lends that of the CPU whose turn it is, as [`SingleThread::with`] does.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        self.now.with(f)
    }
}

impl<T> PerCpu for CpuThing<T> {
    fn exchange(&self, from: usize, to: usize) {
        let thing = self.now.with(Option::take);
        self.others[from].with(|other| *other = thing);
        let thing = self.others[to].with(Option::take);
        self.now.with(|now| *now = thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when one CPU gets what another has put away.
    #[test]
    fn each_has_its_own() {
        let (cell, thing) = (CpuCell::new(7), CpuThing::new());
        let turn = |from, to| {
            cell.exchange(from, to);
            thing.exchange(from, to);
        };
        let set = |n| {
            cell.set(n);
            thing.with(|thing| *thing = Some(n));
        };
        let found = || (cell.get(), thing.with(|thing| *thing));
        set(10);
        turn(0, 1);
        assert_eq!(found(), (7, None));
        set(11);
        turn(1, 3);
        set(13);
        turn(3, 0);
        assert_eq!(found(), (10, Some(10)));
        turn(0, 1);
        assert_eq!(found(), (11, Some(11)));
        turn(1, 1);
        assert_eq!(found(), (11, Some(11)));
        turn(1, 3);
        assert_eq!(found(), (13, Some(13)));
    }

    // Has to fail when the CPU whose turn it is, or one of the others, is left out.
    #[test]
    fn a_change_can_be_of_all() {
        let cell = CpuCell::new(7);
        cell.exchange(0, 1);
        cell.change_all(|value| value + 1);
        assert_eq!(cell.get(), 8);
        for next in [0, 2, 3] {
            cell.exchange(1, next);
            assert_eq!(cell.get(), 8);
            cell.exchange(next, 1);
        }
    }
}
