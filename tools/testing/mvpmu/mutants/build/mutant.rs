// SPDX-License-Identifier: GPL-2.0

//! Deliberate bugs, one at a time: each has to be caught. The parameter `mutant` selects one by its
//! name: one that was thought of, or that a write of a register is skipped.

use core::panic::Location;
use kernel::{
    fmt,
    module_param::ModuleParam,
    prelude::*,
    str::BStr, //
};

/// `NAMES` of those that were thought of, and `SITES` of the writes: name, file, line.
mod list;
use list::{
    NAMES,
    SITES, //
};

/// A deliberate bug.
#[derive(Clone, Copy)]
pub(crate) enum Mutant {
    /// There is none.
    None,
    /// One of `NAMES`.
    Named(&'static str),
    /// Of `SITES` this write is skipped.
    Skip(&'static str, &'static str, u32),
}

/// Whether this is the bug that the module was loaded with.
pub(crate) fn on(name: &str) -> bool {
    matches!(crate::module_parameters::mutant.value(), Mutant::Named(named) if named == name)
}

/// Whether the write at `place` is skipped.
pub(crate) fn skips(place: &Location<'_>) -> bool {
    match crate::module_parameters::mutant.value() {
        Mutant::Skip(_, file, line) => place.line() == line && place.file().ends_with(file),
        _ => false,
    }
}

impl ModuleParam for Mutant {
    fn try_from_param_arg(arg: &BStr) -> Result<Self> {
        let is = |name: &str| name.as_bytes() == &**arg;

        if is("none") {
            return Ok(Self::None);
        }
        if let Some(name) = NAMES.iter().find(|name| is(name)) {
            return Ok(Self::Named(name));
        }
        SITES
            .iter()
            .find(|(name, ..)| is(name))
            .map(|(name, file, line)| Self::Skip(name, file, *line))
            .ok_or(EINVAL)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Named(name) | Self::Skip(name, ..) => f.write_str(name),
        }
    }
}
