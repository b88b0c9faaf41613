// SPDX-License-Identifier: GPL-2.0

//! The branch stack of guests (LBR).
//!
//! AMD's CPUs load the stack at VM entry and save it at VM exit, while KVM has that switched on, and that
//! KVM does for guests that [record](crate::policy::Demand). What is the guest's afterwards is said to
//! perf, see [`Left`](crate::switch::Left).
//!
//! On Intel's CPUs the records stay in the registers, where perf keeps them until somebody else needs
//! those: a load only asks for them ([`RegisterFile::load_lbrs`](crate::registers::RegisterFile)).

use crate::policy::Choice;
use kernel::{
    fmt,
    module_param::ModuleParam,
    prelude::*,
    str::BStr, //
};

/// Whether guests have a branch stack, the parameter `lbr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lbr {
    /// They have none.
    Off,
    /// They have one if the CPU can switch it.
    On,
}

impl Choice for Lbr {
    const PARAMETER: &'static str = "lbr";
    const ALL: &'static [Self] = &[Self::Off, Self::On];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

impl ModuleParam for Lbr {
    fn try_from_param_arg(arg: &BStr) -> Result<Self> {
        Self::named(arg)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The mode the module was loaded with.
pub(crate) fn mode() -> Lbr {
    crate::module_parameters::lbr.value()
}
