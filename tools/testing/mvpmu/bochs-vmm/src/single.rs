// SPDX-License-Identifier: GPL-2.0

//! Globals of a program with one thread.
//!
//! The core calls back by symbol name and passes no context, so the devices
//! are globals. `SingleThread` is the one place that says why that is sound.

use std::cell::Cell;
use std::cell::UnsafeCell;

/// A global that only the one thread of this program uses.
pub struct SingleThread<T> {
    value: UnsafeCell<T>,
    lent: Cell<bool>,
}

// SAFETY: The program never creates a thread, and the unit tests, which run in
// threads, use no global of this kind.
unsafe impl<T> Sync for SingleThread<T> {}

impl<T> SingleThread<T> {
    /// Makes the global.
    pub const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
            lent: Cell::new(false),
        }
    }

    /// Lends the value to `f`.
    ///
    /// `f` must not call into the core: the core may leave by longjmp, and the
    /// value would stay lent. A second loan while the first lasts ends the
    /// program.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        if self.lent.replace(true) {
            lent_twice();
        }
        // SAFETY: One thread, and `lent` says that no other loan is alive.
        let result = f(unsafe { &mut *self.value.get() });
        self.lent.set(false);
        result
    }
}

/// A plain value that only the one thread of this program uses. What each CPU has of its own is in a
/// [`CpuCell`](crate::per_cpu::CpuCell).
pub struct SingleCell<T>(Cell<T>);

// SAFETY: As for `SingleThread`.
unsafe impl<T> Sync for SingleCell<T> {}

impl<T: Copy> SingleCell<T> {
    /// Makes the global.
    pub const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// Its value.
    #[inline(always)]
    pub fn get(&self) -> T {
        self.0.get()
    }

    /// Sets it.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.0.set(value);
    }
}

#[cold]
fn lent_twice() -> ! {
    eprintln!("bochs-vmm: internal error: a device was entered twice");
    std::process::abort()
}
