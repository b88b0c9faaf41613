// SPDX-License-Identifier: GPL-2.0
//! What QEMU does wrong, or otherwise than its plugin API promises, and how the plugin works round
//! it. (For the Intel machine see bochs-vmm/src/quirks.rs.)
//!
//! Each has a name; the argument `without=NAME` leaves the work-around out, and a test in
//! machine-tests/bare/quirks.c is run that way: it must fail, else the bug is gone.

use std::sync::OnceLock;

/// A bug that is worked round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// `qemu_plugin_set_pc()` in the middle of a block does not bring the lazily computed flags up
    /// to date. And QEMU keeps the number of an interrupt that VMRUN has injected after it is
    /// delivered: whoever leaves QEMU's loop next has it delivered once more, whatever RFLAGS.IF
    /// says. That is `qemu_plugin_set_pc()`, or what makes the vCPU's thread look about (its share of
    /// the instruction clock is used up, another thread wants something): then the handler is
    /// interrupted by itself, and may wait for its own lock for ever.
    ///
    /// Work-around: [`crate::leave`], with functions of QEMU that are not for plugins; the number is
    /// forgotten once the interrupt is delivered.
    SetPc,
    /// String instructions are executed in portions, and the block is entered for each: inline
    /// operations count it each time.
    ///
    /// Work-around: [`crate::rep`] takes it back.
    RepPortions,
    /// The discontinuity EXCEPTION comes before the registers are up to date, with an address that
    /// is not the instruction's.
    ///
    /// Work-around: [`crate::discon`] takes the address of INTERRUPT, which follows.
    ExceptionAddress,
    /// A block that is left because it has written to itself gives no event.
    ///
    /// Work-around: a block says when it starts and when it has come to its end; the next one
    /// looks.
    SelfModifyingCode,
    /// With one thread for all vCPUs the number of the vCPU is that of the one which has
    /// translated the block, and so are its accumulators.
    ///
    /// Work-around: one thread each, or the plugin refuses to work.
    OneThread,
    /// Whoever loads the x87 status word (FXRSTOR, XRSTOR, FLDENV, FRSTOR), on any CPU, has QEMU clear a
    /// bit among flags of the *first* CPU: `cpu_clear_ignne()`, by a plain read and write. What that CPU
    /// changes there at the same moment is lost: it keeps nested paging after a #VMEXIT, so that the
    /// host's state ends up in the guest's VMCB; NMIs stay blocked after IRET. The bit is the pin IGNNE#,
    /// asserted by a write to port F0H; it is of use with CR0.NE = 0, which no kernel of ours has.
    ///
    /// Work-around: [`crate::ignne`] has that function do nothing.
    FpuStatus,
}

impl Quirk {
    /// All of them.
    pub const ALL: [Quirk; 6] = [
        Quirk::SetPc,
        Quirk::RepPortions,
        Quirk::ExceptionAddress,
        Quirk::SelfModifyingCode,
        Quirk::OneThread,
        Quirk::FpuStatus,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Quirk::SetPc => "set-pc",
            Quirk::RepPortions => "rep-portions",
            Quirk::ExceptionAddress => "exception-address",
            Quirk::SelfModifyingCode => "self-modifying-code",
            Quirk::OneThread => "one-thread",
            Quirk::FpuStatus => "fpu-status",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Quirk> {
        Quirk::ALL.into_iter().find(|quirk| quirk.name() == name)
    }
}

static WITHOUT: OnceLock<Option<Quirk>> = OnceLock::new();

/// Leaves a work-around out, once and for all.
pub fn leave_out(quirk: Option<Quirk>) {
    WITHOUT.get_or_init(|| quirk);
}

/// Whether the work-around is in place.
pub fn active(quirk: Quirk) -> bool {
    WITHOUT.get().is_none_or(|without| *without != Some(quirk))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: a name that two have.
    #[test]
    fn each_is_found_by_its_name() {
        for quirk in Quirk::ALL {
            assert_eq!(Quirk::named(quirk.name()), Some(quirk));
        }
        assert_eq!(Quirk::named("other"), None);
    }
}
