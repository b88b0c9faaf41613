// SPDX-License-Identifier: GPL-2.0
//! What a machine does with violations.

use std::collections::HashSet;

use super::Finding;

/// Exit status of a machine that the oracle has stopped.
pub const EXIT_STATUS: i32 = 5;

/// What a violation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is watched.
    Off,
    /// It is reported, and the machine stops at once.
    On,
    /// It is reported, once for each register and occasion, and the machine goes on.
    Note,
}

impl Mode {
    /// The mode that is called so.
    pub fn named(name: &str) -> Option<Mode> {
        match name {
            "off" => Some(Mode::Off),
            "on" => Some(Mode::On),
            "note" => Some(Mode::Note),
            _ => None,
        }
    }
}

/// What was reported so far.
#[derive(Debug, Default)]
pub struct Reported(HashSet<String>);

impl Reported {
    /// Whether nothing like it was reported before.
    pub fn is_new(&mut self, finding: &Finding) -> bool {
        let Finding {
            invariant,
            when,
            register,
            ..
        } = finding;
        self.0.insert(format!("{invariant} {when} {register}"))
    }
}
