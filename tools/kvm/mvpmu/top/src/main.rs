// SPDX-License-Identifier: GPL-2.0

//! Shows what mvpmu does, per VM and vCPU. See mvpmu-top(1).

mod args;
mod column;
mod cost;
mod counts;
mod detail;
mod json;
mod kvm;
mod openmetrics;
mod output;
#[cfg(test)]
mod recorded;
mod row;
mod sample;
mod screen;
mod table;
mod terminal;
mod view;

use std::io;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use mvpmu_host::module;
use mvpmu_host::Root;

use crate::args::Args;
use crate::column::arrange;
use crate::column::Show;
use crate::sample::Sample;
use crate::view::View;

fn run(args: &Args) -> Result<()> {
    let root = Root::new(&args.root);
    let show = match args.totals {
        true => Show::Totals,
        false => Show::Rates,
    };
    // Programs that ask are told as data; people are told what to do.
    if !args.json && !args.openmetrics {
        let capability = module::capability(&root)?;
        if !capability.enabled {
            bail!("{}", off(capability.reason.as_deref().unwrap_or("-")));
        }
    }
    if !args.is_single() {
        if !io::stdout().is_terminal() {
            bail!("standard output is no terminal: use --once, --json or --openmetrics");
        }
        let view = View::new(args.sort, args.reverse, args.filter.clone(), show);
        return terminal::run(&root, view, &args.prices, args.interval);
    }

    let sample = Sample::read(&root)?;
    let suspects = sample.suspects(&root, None);
    let rows = row::rows(&sample, None, &args.prices);
    let rows = arrange(&rows, &args.filter, args.sort, args.reverse, show);
    let text = if args.json {
        json::text(&sample, &rows, suspects.as_ref()).context("JSON")?
    } else if args.openmetrics {
        openmetrics::text(&sample, &rows)
    } else {
        table::text(&sample, &rows, suspects.as_ref(), show)
    };
    output::write(&text, args.output.as_deref())
}

/// One line about a module that gives guests nothing.
fn off(reason: &str) -> String {
    let line = format!("mvpmu is loaded, but guests do not get the PMU: {reason}");
    match reason.starts_with("enable_passthrough_pmu") {
        true => format!("{line}: rmmod mvpmu && {}", module::LOAD),
        false => line,
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mvpmu-top: {error:#}");
            ExitCode::FAILURE
        }
    }
}
