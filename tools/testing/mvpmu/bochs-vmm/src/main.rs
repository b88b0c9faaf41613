// SPDX-License-Identifier: GPL-2.0

//! The VMX test machine: a small VMM around the compiled Bochs CPU core.
//!
//! | file | job |
//! |---|---|
//! | `args` | the command line |
//! | `core` | loading the core, its functions; `layout`: its fields; `python`, `params`, `log`: what it needs |
//! | `quirks` | what it does wrong |
//! | `cpus`, `per_cpu` | the CPUs, which take turns, and what each has of its own; `bus`: interrupts between them |
//! | `decoded` | code that changes, on whichever CPU |
//! | `boot`, `memory` | Linux in memory, and the CPU's way to it |
//! | `ports`, `console`, `terminal`, `ioapic`, `mptable`, `timers` | the platform |
//! | `gather`, `mode`, `lvtpc` | what has happened, on whose account, and the interrupt that comes of it |
//! | `pmu`, `oracle` | the PMU, and whose values are in it |
//! | `bts`, `lbr`, `pt` | the branches that are stored in memory, recorded or traced; `ept`: memory by guest-physical addresses |
//! | `count`, `accesses` | the instructions that are counted, and those that look at what is |
//! | `cpuid`, `msr`, `vmx`, `capability` | what the CPU says and does otherwise than the core |
//! | `sweep` | an event at each instruction of a part of the run |
//! | `listing` | how often each instruction of a part of the run was executed |
//! | `flow` | each instruction that was executed while TraceEn of PT was set |
//! | `hooks`, `stop`, `stats` | the core's other callbacks, and the end |

mod accesses;
mod args;
mod boot;
mod bts;
mod bus;
mod capability;
mod console;
mod core;
mod count;
mod cpuid;
mod cpus;
mod decoded;
mod ept;
mod flow;
mod gather;
mod hooks;
mod ioapic;
mod kernel;
mod layout;
mod lbr;
mod listing;
mod log;
mod lvtpc;
mod memory;
mod mode;
mod mptable;
mod msr;
mod oracle;
mod params;
mod per_cpu;
mod pmu;
mod ports;
mod pt;
mod python;
mod quirks;
mod single;
mod stats;
mod stop;
mod sweep;
mod terminal;
mod timers;
mod vmx;
mod watch;

use std::ffi::c_void;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::args::Args;
use crate::single::SingleCell;
use crate::stats::Report;

/// Exit status when the machine cannot start.
const CANNOT_START: u8 = 2;
/// Ticks between two looks at the instruction limit.
const LIMIT_PERIOD: u64 = 1_000_000;

static MAX_INSTRUCTIONS: SingleCell<u64> = SingleCell::new(u64::MAX);

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        // Prints, also the help that was asked for, and exits with 2 or 0.
        Err(error) => error.exit(),
    };
    let done = run(&args);
    terminal::restore();
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("bochs-vmm: {error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

fn run(args: &Args) -> Result<u8, String> {
    log::set_level(args.level());
    let memory = memory::create(args.mem)?;
    let loaded = boot::load(&args.boot, args.cpus, memory)?;
    if let Some(path) = &args.stream {
        ports::set_stream(create(path)?);
    }
    if let Some(path) = &args.flow {
        flow::create(create(path)?);
    }
    let stats = args.stats.as_deref().map(create).transpose()?;

    let _core = core::load(&args.bochs, args.cpus)?;
    quirks::leave_out(&args.without_quirk);
    for cpu in 0..args.cpus {
        core::on(cpu, quirks::apply)?;
    }
    ioapic::set_id(mptable::ioapic_id(args.cpus));
    msr::set_vmx(args.vmx());
    params::set_vmx(args.vmx().present);
    cpuid::set_signature(&args.cpu.signature);
    cpuid::set_hybrid(args.hybrid);
    cpuid::set_tsc_mhz(args.mhz);
    let options = pmu::Options {
        pmi_delay: args.pmi_delay,
        power_on: args.power_on,
        weights: args.weights,
    };
    sweep::create(args.sweep.clone().into());
    if let Some(marks) = args.listing {
        listing::create(marks);
    }
    timers::begin();
    cpus::create(args.cpus, |cpu| {
        pmu::create(cpu, args.config(), options);
        let (branches, traces) = (&loaded.branch_functions, &loaded.trace_functions);
        oracle::create(cpu, args.oracle, branches, traces);
    })?;
    console::create(args.interactive || terminal::is_terminal());
    if args.max_instructions.is_some() || !args.sweep.sweep.is_empty() {
        MAX_INSTRUCTIONS.set(args.max_instructions.unwrap_or(u64::MAX));
        timers::every(LIMIT_PERIOD, check_limit);
    }
    boot::enter(loaded.entry);

    cpus::run();
    let end = stop::reason().ok_or("the core ended the run without a reason")?;
    finish(end, stats)
}

fn finish(end: stop::Reason, stats: Option<File>) -> Result<u8, String> {
    let _ = std::io::stdout().flush();
    if sweep::is_child() {
        if end != stop::Reason::Swept {
            let rip: u64 = layout::PREV_RIP.get();
            eprintln!("{} at {rip:#018x}", end.name());
        }
        return Ok(end.exit_status() as u8);
    }
    if let Some(report) = sweep::report() {
        eprint!("{report}");
    }
    if let Some(report) = listing::report() {
        eprint!("{report}");
    }
    ports::finish()?;
    flow::finish()?;
    let rip: u64 = layout::PREV_RIP.get();
    let report = Report::collect(end);
    if let Some(mut file) = stats {
        serde_json::to_string_pretty(&report)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(file, "{text}"))
            .map_err(|e| format!("cannot write the statistics: {e}"))?;
    }
    if !matches!(end, stop::Reason::ExitPort(_)) {
        let instructions = report.instructions();
        eprintln!(
            "bochs-vmm: {} at {rip:#x} after {instructions} instructions\r",
            end.name()
        );
    }
    Ok(end.exit_status() as u8)
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("cannot create {}: {e}", path.display()))
}

unsafe extern "C-unwind" fn check_limit(_argument: *mut c_void) {
    if cpus::instructions() >= MAX_INSTRUCTIONS.get().min(sweep::limit()) {
        stop::now(stop::Reason::InstructionLimit);
    }
}
