// SPDX-License-Identifier: GPL-2.0

//! Says whether this host can run mvpmu, and what has to change. See mvpmu-check(1).

mod args;
mod checks;
mod cpu;
mod finding;
mod kernel;
mod report;

use std::io;
use std::io::ErrorKind;
use std::io::Write;
use std::process::ExitCode;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use mvpmu_host::Root;

use crate::args::Args;
use crate::cpu::Identity;
use crate::cpu::ThisCpu;

/// An error of this program, or wrong options.
const FAILED: u8 = 3;

fn run(args: &Args) -> Result<u8> {
    let directory = args.root.display();
    ensure!(args.root.is_dir(), "{directory}: no such directory");
    let root = Root::new(&args.root);
    let identity = Identity::of(&ThisCpu::new(&root));
    let findings = checks::all(&root, &identity);
    let text = match args.json {
        true => report::json(&findings).context("JSON")?,
        false => report::text(&findings),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        result => result.context("standard output")?,
    }
    Ok(finding::worst(&findings).status())
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return match error.use_stderr() {
                true => FAILED.into(),
                false => ExitCode::SUCCESS,
            };
        }
    };
    match run(&args) {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("mvpmu-check: {error:#}");
            FAILED.into()
        }
    }
}
