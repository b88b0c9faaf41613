// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::column::Column;
use crate::cost::Prices;
use crate::terminal::SHORTEST;

/// Shows what mvpmu does, per VM and vCPU, as long as it runs
///
/// It reads debugfs and KVM's statistics, and changes nothing. Keys are shown by h.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "Exit status: 0, or 1 when there is nothing to show (the reason is one line on standard error), or 2 \
        for wrong options.\nThe manual: mvpmu-top(1)."
)]
pub struct Args {
    /// Show one reading as text and end; rates are those since each vCPU was created
    #[arg(long)]
    pub once: bool,
    /// Show one reading as JSON and end
    #[arg(long, conflicts_with = "openmetrics")]
    pub json: bool,
    /// Show one reading as OpenMetrics and end
    #[arg(long, conflicts_with_all = ["json", "once"])]
    pub openmetrics: bool,
    /// Write the reading to FILE, which appears whole or not at all
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub interval: f64,
    /// Sort by this column
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t = Column::Switch)]
    pub sort: Column,
    /// Reverse the order
    #[arg(long)]
    pub reverse: bool,
    /// Show only vCPUs with TEXT in their name, process or state
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub filter: String,
    /// Numbers since each vCPU was created, not per second
    #[arg(long)]
    pub totals: bool,
    /// Prices for the estimate of the cost; the usual ones are assumptions
    #[command(flatten)]
    pub prices: Prices,
    /// Directory in place of /
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

impl Args {
    /// Whether one reading is enough.
    pub fn is_single(&self) -> bool {
        self.once || self.json || self.openmetrics || self.output.is_some()
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (SHORTEST..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("not a number from {SHORTEST} to 3600")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::ValueEnum;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_interval_is_a_time_that_one_can_wait() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    // Without this, an option that is new is in --help alone.
    #[test]
    fn the_manual_names_each_option_and_exit_status() {
        let manual = include_str!("../../man/mvpmu-top.1").replace('\\', "");
        for argument in Args::command().get_arguments() {
            let option = argument.get_long().expect("all have a long name");
            assert!(manual.contains(&format!("--{option}")), "--{option}");
        }
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("Exit status: 0"));
        for column in Column::ALL {
            let value = column.to_possible_value().expect("none is hidden");
            assert!(manual.contains(value.get_name()), "{}", value.get_name());
        }
        assert!(manual.contains(".SH EXIT STATUS"));
    }
}
