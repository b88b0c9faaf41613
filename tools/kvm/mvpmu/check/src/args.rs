// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Says whether this host can run mvpmu, and what has to change, with what to type
///
/// It changes nothing, and needs nothing installed. Root sees more.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "Exit status: 0 ready, 1 something has to be done first, 2 it cannot work here, 3 wrong options or an \
        error of mvpmu-check itself.\nThe manual: mvpmu-check(1)."
)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Directory in place of /; the CPU is still this machine's
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    // Without this, an option that is new is in --help alone.
    #[test]
    fn the_manual_names_each_option_and_exit_status() {
        let manual = include_str!("../../man/mvpmu-check.1").replace('\\', "");
        for argument in Args::command().get_arguments() {
            let option = argument.get_long().expect("all have a long name");
            assert!(manual.contains(&format!("--{option}")), "--{option}");
        }
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("Exit status: 0"));
        assert!(manual.contains(".SH EXIT STATUS"));
    }
}
