// SPDX-License-Identifier: GPL-2.0

//! Shows a report of mvpmu's bootable image, or compares several. See mvpmu-report(1).

use std::io;
use std::io::ErrorKind;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use mvpmu_report::args::Args;
use mvpmu_report::compare;
use mvpmu_report::compare::Named;
use mvpmu_report::file;
use mvpmu_report::text;

fn run(args: &Args) -> Result<()> {
    let named = args.files.iter().map(|path| {
        Ok(Named {
            name: path.display().to_string(),
            report: file::read(path)?,
        })
    });
    let reports = named.collect::<Result<Vec<_>>>()?;
    let shown = match &reports[..] {
        [one] => text::report(&one.report),
        several => compare::several(several),
    };
    match io::stdout().write_all(shown.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mvpmu-report: {error:#}");
            ExitCode::FAILURE
        }
    }
}
