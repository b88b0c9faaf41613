// SPDX-License-Identifier: GPL-2.0
//! A violation, and how it is reported.

use std::fmt;

use super::Cell;
use super::Mark;

/// What is violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// I1: no stray counting.
    Stray,
    /// I2: no leak out.
    LeakOut,
    /// I3: no leak in.
    LeakIn,
    /// I4: a guest counts exactly.
    Exact,
    /// I5: the host counts exactly.
    HostExact,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invariant::Stray => "I1 (no stray counting)",
            Invariant::LeakOut => "I2 (no leak out)",
            Invariant::LeakIn => "I3 (no leak in)",
            Invariant::Exact => "I4 (exact)",
            Invariant::HostExact => "I5 (host exact)",
        })
    }
}

/// An instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub rip: u64,
    /// The privilege level at which it is executed.
    pub cpl: u8,
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what.
    pub invariant: Invariant,
    /// On what occasion.
    pub when: &'static str,
    /// The register's name.
    pub register: String,
    /// The register.
    pub cell: Cell,
    /// What it holds.
    pub value: u64,
    /// Whose that is.
    pub mark: Mark,
    /// On which CPU.
    pub cpu: u32,
    /// The instruction.
    pub place: Place,
    /// The last operations on the PMU, the newest at the end.
    pub operations: Vec<String>,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Unclaimed => f.write_str("the host, unclaimed"),
            Mark::Event => f.write_str("an event of the host"),
            Mark::Lent => f.write_str("the guest that is loaded"),
            Mark::Guest(guest) => write!(f, "the guest of VMCB/VMCS {guest:#x}"),
        }
    }
}

/// Each line begins with "oracle:", so that it can be found in a log. Addresses of code have 16
/// digits, so that they can be given names.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { rip, cpl } = self.place;
        writeln!(f, "oracle: violation of {}: {}", self.invariant, self.when)?;
        writeln!(
            f,
            "oracle:   {} holds {:#x}, owner {}",
            self.register, self.value, self.mark
        )?;
        writeln!(f, "oracle:   CPU {}, CPL {cpl}, at {rip:#018x}", self.cpu)?;
        writeln!(f, "oracle:   last operations:")?;
        for line in &self.operations {
            writeln!(f, "oracle:     {line}")?;
        }
        Ok(())
    }
}
