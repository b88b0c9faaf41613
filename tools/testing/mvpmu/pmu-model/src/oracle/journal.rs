// SPDX-License-Identifier: GPL-2.0
//! The last operations on the PMU.

use std::fmt::Debug;

use crate::Owner;

/// How many are kept.
const LEN: usize = 32;

/// Something done to, or around, the PMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<R> {
    /// RDMSR of a register, and what it returned.
    Rdmsr(R, u64),
    /// WRMSR to a register.
    Wrmsr(R, u64),
    /// RDPMC with this index, and what it returned.
    Rdpmc(u32, u64),
    /// Write of the LVTPC.
    Lvtpc(u32),
    /// VM entry.
    Enter(u64),
    /// VM exit.
    Exit(u64),
    /// The guest has left for the host to write this to a register.
    Asks(R, u64),
    /// Switch to the task with this kernel stack, with values of a guest in the PMU.
    Switch(u64),
}

impl<R: Debug> Operation<R> {
    fn text(&self) -> String {
        match self {
            Operation::Rdmsr(register, value) => format!("RDMSR {register:?} = {value:#x}"),
            Operation::Wrmsr(register, value) => format!("WRMSR {register:?} = {value:#x}"),
            Operation::Rdpmc(index, value) => format!("RDPMC {index:#x} = {value:#x}"),
            Operation::Lvtpc(value) => format!("LVTPC = {value:#x}"),
            Operation::Enter(guest) => format!("VM entry of {guest:#x}"),
            Operation::Exit(guest) => format!("VM exit of {guest:#x}"),
            Operation::Asks(register, value) => format!("asks for WRMSR {register:?} = {value:#x}"),
            Operation::Switch(stack) => format!("task switch to stack {stack:#x}"),
        }
    }
}

/// The last operations.
#[derive(Clone, Debug)]
pub(super) struct Journal<R> {
    ring: [Option<(u64, Owner, Operation<R>)>; LEN],
    next: usize,
}

impl<R: Copy> Default for Journal<R> {
    fn default() -> Self {
        Journal {
            ring: [None; LEN],
            next: 0,
        }
    }
}

impl<R: Copy + Debug> Journal<R> {
    /// One more.
    pub fn note(&mut self, rip: u64, owner: Owner, what: Operation<R>) {
        self.ring[self.next % LEN] = Some((rip, owner, what));
        self.next = self.next.wrapping_add(1);
    }

    /// All of them as text, the newest at the end.
    pub fn lines(&self) -> Vec<String> {
        (0..LEN)
            .filter_map(|n| self.ring[self.next.wrapping_add(n) % LEN])
            .map(|(rip, owner, what)| {
                let owner = match owner {
                    Owner::Host => "host ",
                    Owner::Guest(_) => "guest",
                };
                format!("{owner} {rip:#018x}  {}", what.text())
            })
            .collect()
    }
}
