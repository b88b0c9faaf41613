// SPDX-License-Identifier: GPL-2.0
//! The four kinds of execution a counter can tell apart.

/// Host or guest mode, kernel (CPL 0) or user (CPL 1 to 3).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Host mode, CPL 0.
    HostKernel = 0,
    /// Host mode, CPL > 0.
    HostUser = 1,
    /// Guest mode, CPL 0.
    GuestKernel = 2,
    /// Guest mode, CPL > 0.
    GuestUser = 3,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Each of them, in the order of their numbers.
    pub const ALL: [Class; Class::COUNT] = [
        Class::HostKernel,
        Class::HostUser,
        Class::GuestKernel,
        Class::GuestUser,
    ];

    /// The class of an instruction executed in this mode.
    pub const fn new(guest: bool, user: bool) -> Class {
        match (guest, user) {
            (false, false) => Class::HostKernel,
            (false, true) => Class::HostUser,
            (true, false) => Class::GuestKernel,
            (true, true) => Class::GuestUser,
        }
    }

    /// True for the two guest classes.
    pub const fn is_guest(self) -> bool {
        matches!(self, Class::GuestKernel | Class::GuestUser)
    }

    /// True for the two user classes.
    pub const fn is_user(self) -> bool {
        matches!(self, Class::HostUser | Class::GuestUser)
    }
}

/// A set of classes: those a counter counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSet(u8);

impl ClassSet {
    /// No class.
    pub const NONE: ClassSet = ClassSet(0);
    /// Every class.
    pub const ALL: ClassSet = ClassSet(0b1111);
    /// Both host classes.
    pub const HOST: ClassSet = ClassSet(0b0011);
    /// Both guest classes.
    pub const GUEST: ClassSet = ClassSet(0b1100);
    /// Both kernel classes.
    pub const KERNEL: ClassSet = ClassSet(0b0101);
    /// Both user classes.
    pub const USER: ClassSet = ClassSet(0b1010);

    /// Classes that are in either.
    #[must_use]
    pub const fn union(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 | other.0)
    }

    /// Classes that are in both.
    #[must_use]
    pub const fn intersection(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 & other.0)
    }

    /// Whether `class` is in it.
    pub const fn contains(self, class: Class) -> bool {
        self.0 >> class as u8 & 1 != 0
    }

    /// Its classes, each as a set.
    pub fn iter(self) -> impl Iterator<Item = ClassSet> {
        Class::ALL
            .into_iter()
            .filter(move |class| self.contains(*class))
            .map(|class| ClassSet(1 << class as u8))
    }

    /// The number of classes in it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is no class in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
