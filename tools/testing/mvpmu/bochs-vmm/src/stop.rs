// SPDX-License-Identifier: GPL-2.0

//! The end of a run: why, and the exit status that says so.

use pmu_model::oracle::EXIT_STATUS;

use crate::core;
use crate::cpus;
use crate::single::SingleThread;

/// Why the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// L1 wrote this value to the exit port.
    ExitPort(u32),
    /// The guest shut down by a triple fault.
    TripleFault,
    /// The guest asked for a reset of the machine.
    Reset,
    /// HLT with interrupts off: nothing can happen any more.
    HaltedForGood,
    /// The core met something it does not implement.
    CorePanic,
    /// `--max-instructions` was reached.
    InstructionLimit,
    /// The user at the console asked for it.
    ConsoleEscape,
    /// The oracle reported a violation.
    Violation,
    /// The part that is swept has ended, in a child.
    Swept,
}

impl Reason {
    /// The exit status of the process. The exit port's is that of QEMU's
    /// isa-debug-exit, so that both machines say it in the same way.
    pub fn exit_status(self) -> i32 {
        match self {
            Reason::ExitPort(value) => ((value << 1 | 1) & 0xff) as i32,
            Reason::TripleFault | Reason::Reset | Reason::HaltedForGood => 3,
            Reason::CorePanic => 4,
            Reason::InstructionLimit => 6,
            Reason::ConsoleEscape => 8,
            Reason::Violation => EXIT_STATUS,
            Reason::Swept => 0,
        }
    }

    /// The reason as a word in the statistics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ExitPort(_) => "exit-port",
            Reason::TripleFault => "triple-fault",
            Reason::Reset => "reset",
            Reason::HaltedForGood => "halted-for-good",
            Reason::CorePanic => "core-panic",
            Reason::InstructionLimit => "instruction-limit",
            Reason::ConsoleEscape => "console-escape",
            Reason::Violation => "violation",
            Reason::Swept => "swept",
        }
    }
}

static REASON: SingleThread<Option<Reason>> = SingleThread::new(None);

/// Ends the run after the current instruction of the CPU whose turn it is. The first reason counts.
pub fn now(reason: Reason) {
    REASON.with(|first| {
        first.get_or_insert(reason);
    });
    core::on(cpus::current(), || core::cpu_set_killbit(0));
}

/// Why the run ended, if it did.
pub fn reason() -> Option<Reason> {
    REASON.with(|first| *first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_port_gives_the_status_of_isa_debug_exit() {
        assert_eq!(Reason::ExitPort(0).exit_status(), 1);
        assert_eq!(Reason::ExitPort(1).exit_status(), 3);
        assert_eq!(Reason::ExitPort(0x80).exit_status(), 1);
    }

    #[test]
    fn no_other_end_looks_like_a_clean_one() {
        for reason in [
            Reason::TripleFault,
            Reason::Reset,
            Reason::HaltedForGood,
            Reason::CorePanic,
            Reason::InstructionLimit,
            Reason::ConsoleEscape,
            Reason::Violation,
        ] {
            assert_ne!(reason.exit_status(), 1);
            assert_ne!(reason.exit_status(), 0);
        }
    }
}
