// SPDX-License-Identifier: GPL-2.0

//! What the bootable image runs on a real machine: it says what it finds, lets guests count, attacks the
//! host's and guests' counts, measures VM exits, and leaves a report on the stick that holds the
//! directory `mvpmu`. See README.md.
//!
//! A test that fails, hangs or is not there is something to report, and never the end of the run.

mod command;
mod consoles;
mod machine;
mod plan;
mod results;
mod stick;
mod survey;

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::system::reboot;
use rustix::system::RebootCommand;

use crate::consoles::Consoles;
use crate::survey::Survey;

/// How long somebody has to read, and to answer.
const ATTENTION: Duration = Duration::from_secs(600);

/// Asks what is to be done with the machine.
fn farewell(consoles: &mut Consoles) -> RebootCommand {
    let answers = consoles.answers();
    consoles.line(
        "Enter: power off. r, Enter: restart. Without an answer: power off after 10 minutes.",
    );
    match answers.recv_timeout(ATTENTION) {
        Ok(answer) if answer.trim() == "r" => RebootCommand::Restart,
        Ok(_) | Err(RecvTimeoutError::Timeout) => RebootCommand::PowerOff,
        // There is no console that could answer.
        Err(RecvTimeoutError::Disconnected) => {
            std::thread::sleep(ATTENTION);
            RebootCommand::PowerOff
        }
    }
}

fn main() {
    survey::load_drivers();
    let mut consoles = Consoles::open();
    Survey::run(&mut consoles);
    let command = farewell(&mut consoles);
    rustix::fs::sync();
    if let Err(error) = reboot(command) {
        consoles.line(&format!(
            "The machine does not go off ({error}): use its button."
        ));
    }
}
