// SPDX-License-Identifier: GPL-2.0

//! Boots the host kernel (L1) on a test machine, runs jobs in it and writes
//! reports.

mod attackers;
mod bench;
mod boot;
mod calls;
mod carried;
mod checks;
mod cli;
mod controls;
mod cpio;
mod demo;
mod differential;
mod every;
mod given;
mod image;
mod installed;
mod job;
mod kernel_log;
mod machine;
mod machine_stats;
mod mutants;
mod object_code;
mod oracle;
mod page;
mod paths;
mod results;
mod sampling;
mod schedule;
mod shown;
mod suite;
mod sweep;
mod traces;
mod uki;

// As crate::tap, in each module.
extern crate tap;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Result;
use clap::Parser;
use diff_test::Known;

use crate::boot::End;
use crate::cli::Cli;
use crate::cli::Cost;
use crate::cli::Options;
use crate::cli::Task;
use crate::differential::Fuzz;
use crate::job::Job;
use crate::machine::Machine;
use crate::suite::Length;
use crate::sweep::Company;
use crate::sweep::Sweep;
use crate::tap::Verdict;

/// Boots and runs a job; its exit status is ours.
fn run_job(options: Options, job: &Job, out: &Path, timeout: u64) -> Result<ExitCode> {
    let limit = Duration::from_secs(timeout);
    let outcome = boot::run(&options.boot()?, job, out, limit, true)?;
    if let Some(violations) = &outcome.violations {
        eprintln!("{violations}");
    }
    if let Some(problem) = outcome.problem() {
        eprintln!("mvpmu: {problem}");
    }
    Ok(match outcome.end {
        End::Job(status) => u8::try_from(status).unwrap_or(1).into(),
        _ => ExitCode::FAILURE,
    })
}

fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Task::Boot {
            options,
            job,
            arguments,
            linux_guest,
            perf,
            host_tools,
            libvirt,
            timeout,
            out,
        } => {
            let job = Job {
                script: job,
                arguments,
                linux_guest,
                perf,
                host_tools,
                libvirt,
                ..Job::default()
            };
            run_job(options, &job, &out, timeout)
        }
        Task::Demo { options } => {
            let report = demo::run(&options.boot()?, Path::new("build/demo"), true)?;
            demo::print(&report);
            Ok(ExitCode::from(u8::from(!demo::succeeded(&report))))
        }
        Task::Image { config } => {
            uki::make(&config)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Test {
            machines,
            oracle,
            long,
            list,
            filter,
        } => {
            let length = if long { Length::Long } else { Length::Usual };
            if list {
                suite::list(&machines.cpus()?, &filter, length)?;
                return Ok(ExitCode::SUCCESS);
            }
            let passed = suite::run(&machines.cpus()?, &filter, oracle, length)?;
            Ok(ExitCode::from(u8::from(!passed)))
        }
        Task::Shown { long } => {
            let length = if long { Length::Long } else { Length::Usual };
            for command in shown::in_checkout(length) {
                println!("{command}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Bench {
            machines,
            draw,
            only,
        } => {
            let cpus = machines.cpus()?;
            let directory = bench::directory(machines.cpu);
            if draw {
                bench::draw(&directory)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut failed = Vec::new();
            if only != Some(Cost::Sampling) {
                failed = bench::run(&cpus, &directory)?;
            }
            if only != Some(Cost::Switch) {
                failed.extend(sampling::run(&cpus, &directory)?);
            }
            bench::draw(&directory)?;
            ensure!(failed.is_empty(), "not kept: {}", failed.join("; "));
            Ok(ExitCode::SUCCESS)
        }
        Task::Listing {
            machine,
            scenario,
            counters,
            host,
        } => {
            let exit = bench::Exit {
                machine,
                scenario: &scenario,
                counters: &counters,
                host: &host,
            };
            bench::show_listing(&exit, Path::new("build/listing"))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Fuzz {
            machine,
            provider,
            seed,
            programs,
            known,
            replay,
        } => {
            let fuzz = Fuzz {
                cpu: machine.cpu(),
                provider: &provider,
                seed,
                programs,
                known: if known { Known::Allow } else { Known::Avoid },
                directory: Path::new("build/fuzz"),
            };
            let same = match replay {
                Some(file) => differential::replay(&fuzz, &file)?,
                None => differential::fuzz(&fuzz)?,
            };
            Ok(ExitCode::from(u8::from(!same)))
        }
        Task::Calls {
            machine,
            provider,
            seed,
            programs,
            replay,
        } => {
            let random = calls::Random {
                cpu: machine.cpu(),
                provider: &provider,
                seed,
                programs,
                directory: Path::new("build/calls"),
            };
            let well = match replay {
                Some(file) => calls::replay(&random, &file)?,
                None => calls::run(&random)?,
            };
            Ok(ExitCode::from(u8::from(!well)))
        }
        Task::Sweep {
            machine,
            provider,
            with,
            kinds,
            places,
            every,
            times,
            timeout,
        } => {
            let mut passed = true;
            for company in Company::ALL {
                if with.is_some_and(|with| with != company) {
                    continue;
                }
                let base = match (machine, &places[..]) {
                    (Machine::Amd, []) => Sweep::switch(company).on_amd(),
                    _ => Sweep {
                        machine,
                        places: places.clone(),
                        ..Sweep::whole(company)
                    },
                };
                let sweep = Sweep {
                    provider: provider.clone(),
                    kinds: kinds.clone(),
                    every,
                    times: times.or(base.times),
                    limit: Duration::from_secs(timeout),
                    ..base
                };
                for case in sweep.run(Path::new("build/sweep"))? {
                    match case.verdict {
                        Verdict::Passed => println!("passed   {}", case.name),
                        Verdict::Failed(why) | Verdict::Skipped(why) => {
                            println!("FAILED   {}\n{why}", case.name);
                            passed = false;
                        }
                    }
                }
            }
            Ok(ExitCode::from(u8::from(!passed)))
        }
        Task::Shell {
            options,
            command,
            timeout,
        } => {
            let directory = Path::new("build/shell");
            if let Some(command) = command {
                let job = Job {
                    arguments: vec![command],
                    linux_guest: true,
                    ..Job::new("command")
                };
                return run_job(options, &job, directory, timeout);
            }
            boot::interactive(&options.boot()?, directory)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mvpmu: {error:#}");
            ExitCode::FAILURE
        }
    }
}
