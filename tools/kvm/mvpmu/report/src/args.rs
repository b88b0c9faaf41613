// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Shows a report of mvpmu's bootable image, or compares several
///
/// One report is shown as text, with what is other than on the emulated machine of the CPU's vendor.
/// Of several it says what the first has other than each of the others, and what VM exits cost in all.
#[derive(Parser, Debug)]
#[command(version, after_help = "The manual: mvpmu-report(1).")]
pub struct Args {
    /// A report: report-N.json of the stick
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    // Seen to fail when a scenario of the image has no name in the manual.
    #[test]
    fn the_manual_names_each_exit_of_a_report() {
        let manual = include_str!("../../man/mvpmu-report.1");
        for cost in crate::file::parse(include_str!("../recorded/amd.json"))
            .expect("it is a report")
            .exits
        {
            let scenario = format!(".B {}\n", cost.scenario);
            assert!(manual.contains(&scenario), "{scenario}");
        }
    }
}
