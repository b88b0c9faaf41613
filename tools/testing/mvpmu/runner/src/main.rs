// SPDX-License-Identifier: GPL-2.0

//! Boots the host kernel (L1) on a test machine, runs jobs in it and writes
//! reports.

mod attackers;
mod bench;
mod boot;
mod calls;
mod carried;
mod checks;
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
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Result;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use diff_test::Known;

use crate::boot::End;
use crate::differential::Fuzz;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Given;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::oracle::Oracle;
use crate::paths::Kernel;
use crate::suite::Length;
use crate::sweep::Company;
use crate::sweep::Sweep;
use crate::tap::Verdict;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs one job in L1
    Boot {
        #[command(flatten)]
        options: Options,
        /// Script: a name in initramfs/jobs, or a path
        #[arg(long)]
        job: String,
        /// Argument of the script, may be repeated
        #[arg(long = "arg")]
        arguments: Vec<String>,
        /// The job needs QEMU and a Linux guest
        #[arg(long)]
        linux_guest: bool,
        /// The job needs perf, here and in the guest
        #[arg(long)]
        perf: bool,
        /// The job needs mvpmu-top and mvpmu-check
        #[arg(long)]
        host_tools: bool,
        /// The job needs libvirt, and the recipes of the page of hypervisors
        #[arg(long)]
        libvirt: bool,
        /// Time limit in seconds
        #[arg(long, default_value_t = 120)]
        timeout: u64,
        /// Directory for the console and the files of the job
        #[arg(long, default_value = "build/boot")]
        out: PathBuf,
    },
    /// Loads mvpmu, lets guests count, writes build/demo/report.json
    Demo {
        #[command(flatten)]
        options: Options,
    },
    /// The file that a real machine boots, build/image/mvpmu.efi
    Image {
        /// The configuration of its kernel
        #[arg(long, default_value = "small")]
        config: String,
    },
    /// All tests
    Test {
        #[command(flatten)]
        machines: Machines,
        /// The oracle of the machines; other than on: for measuring
        #[arg(long, value_enum, default_value_t)]
        oracle: Oracle,
        /// Also what takes hours: sweeps of all that switches the PMU, all selftests with late PMIs and
        /// with what firmware may leave
        #[arg(long)]
        long: bool,
        /// Only the groups whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Prints the commands of the documentation that a test runs in a fresh checkout
    Shown {
        /// Also those that take long
        #[arg(long)]
        long: bool,
    },
    /// What a VM exit and sampling cost with each provider; writes build/bench/switch.json, .md and
    /// .svg, and sampling.json
    Bench {
        #[command(flatten)]
        machines: Machines,
        /// Only make tables and picture once more, of the numbers that are there
        #[arg(long)]
        draw: bool,
        /// Only one of the two
        #[arg(long, value_enum)]
        only: Option<Cost>,
    },
    /// Whose instructions a VM exit takes, with KVM's C code and with mvpmu
    Listing {
        /// The test machine
        #[arg(long, value_enum, default_value_t = Machine::Amd)]
        machine: Machine,
        /// The scenario of the bench
        scenario: String,
        /// Counters that the guest has enabled; 100 are all
        #[arg(long, default_value = "100")]
        counters: String,
        /// What is on the host: none or event
        #[arg(long, default_value = "none")]
        host: String,
    },
    /// Random programs, to the first that reads other values in a guest than on the machine
    Fuzz {
        /// The test machine
        #[arg(long, value_enum, default_value_t = Machine::Amd)]
        machine: Machine,
        /// Who moves the PMU state of guests: mvpmu, also with a parameter (mvpmu,NAME=VALUE), or c
        #[arg(long, default_value = "mvpmu")]
        provider: String,
        /// Which programs
        #[arg(long, default_value_t = differential::SEED)]
        seed: u64,
        /// How many of them
        #[arg(long, default_value_t = differential::PROGRAMS)]
        programs: u64,
        /// Also what is known to differ
        #[arg(long)]
        known: bool,
        /// Only the program in this file
        #[arg(long)]
        replay: Option<PathBuf>,
    },
    /// Random calls to KVM's PMU and to perf, to the first program after which something is wrong
    Calls {
        /// The test machine
        #[arg(long, value_enum, default_value_t = Machine::Amd)]
        machine: Machine,
        /// Who moves the PMU state of guests: mvpmu, also with parameters (mvpmu,NAME=VALUE), or c
        #[arg(long, default_value = "mvpmu")]
        provider: String,
        /// Which programs
        #[arg(long, default_value_t = calls::SEED)]
        seed: u64,
        /// How many of them
        #[arg(long, default_value_t = calls::PROGRAMS)]
        programs: u64,
        /// Only the program in this file
        #[arg(long)]
        replay: Option<PathBuf>,
    },
    /// An event at each instruction of the kernel in a run of a guest that counts
    Sweep {
        /// On this machine
        #[arg(long, value_enum, default_value = "intel")]
        machine: Machine,
        /// Who moves the PMU state of guests: mvpmu, also with a parameter (mvpmu,NAME=VALUE), or c
        #[arg(long, default_value = "mvpmu")]
        provider: String,
        /// What else there is; without it: each, one after the other
        #[arg(long, value_enum)]
        with: Option<Company>,
        /// The kinds of events
        #[arg(long, default_value = sweep::KINDS)]
        kinds: String,
        /// Only in this function, or in those of this module, [MODULE]; may be repeated. Without it:
        /// everywhere, on the AMD machine in what switches the PMU, the first time
        #[arg(long = "in", value_name = "NAME")]
        places: Vec<String>,
        /// Only at every N-th instruction
        #[arg(long, value_name = "N", default_value_t = 1)]
        every: u64,
        /// Only the first N times that an instruction is executed
        #[arg(long, value_name = "N")]
        times: Option<u64>,
        /// Time limit in seconds, for each
        #[arg(long, default_value_t = 7200)]
        timeout: u64,
    },
    /// A root shell in L1, on this terminal, or a command there
    Shell {
        #[command(flatten)]
        options: Options,
        /// Run this command, to its end
        #[arg(long, conflicts_with = "initrd")]
        command: Option<String>,
        /// Time limit of the command in seconds
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
}

/// What `bench` measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cost {
    /// That of a VM exit
    Switch,
    /// That of sampling in a guest
    Sampling,
}

#[derive(Args)]
struct Machines {
    /// The test machines: one of them, or all
    #[arg(long, default_value = "all")]
    machine: String,
    /// The machine that can be this CPU, as that CPU; see --cpu of boot
    #[arg(long, value_parser = machine::cpu)]
    cpu: Option<Cpu>,
}

impl Machines {
    /// The CPUs that they are.
    fn cpus(&self) -> Result<Vec<Cpu>> {
        let machines = match self.machine.as_str() {
            "all" => Machine::value_variants().to_vec(),
            name => match Machine::from_str(name, false) {
                Ok(machine) => vec![machine],
                Err(_) => {
                    let names = Machine::value_variants().iter().map(|one| one.name());
                    let names: Vec<_> = names.chain(["all"]).collect();
                    anyhow::bail!("no machine '{name}': there are {}", names.join(", "))
                }
            },
        };
        match self.cpu {
            None => Ok(machines.into_iter().map(Machine::cpu).collect()),
            Some(cpu) if machines.contains(&Machine::of(cpu)) => Ok(vec![cpu]),
            Some(cpu) => anyhow::bail!("the {} machine cannot be {}", self.machine, cpu.name),
        }
    }
}

#[derive(Args)]
struct Options {
    /// The test machine: amd, intel; if neither it nor the CPU is given, amd
    #[arg(long, value_enum)]
    machine: Option<Machine>,
    /// Which CPU it is: skylake, icelake, sapphire-rapids, zen4, zen5
    #[arg(long, value_parser = machine::cpu)]
    cpu: Option<Cpu>,
    /// The PMU of the machine
    #[arg(long, value_enum, default_value_t)]
    pmu: Pmu,
    /// The oracle of the machine [default: on, and off for a given kernel]
    #[arg(long, value_enum)]
    oracle: Option<Oracle>,
    /// Number of CPUs
    #[arg(long)]
    smp: Option<u32>,
    /// Time: a nanosecond is an instruction, on one CPU
    #[arg(long)]
    instruction_clock: bool,
    /// Option of the machine's PMU, may be repeated: pmi-delay=N, power-on=random:SEED,
    /// weights=CYCLES:REFERENCE, lbr=off, pt=off
    #[arg(long, value_name = "NAME=VALUE")]
    model: Vec<String>,
    /// Further words on the kernel command line
    #[arg(long, default_value = "")]
    append: String,
    /// The kernel with lockdep and assertions
    #[arg(long, conflicts_with = "kernel_image")]
    debug_kernel: bool,
    /// Boot this bzImage
    #[arg(long, value_name = "FILE")]
    kernel_image: Option<PathBuf>,
    /// Directory with modules for that, which come to /modules
    #[arg(long, value_name = "DIRECTORY", requires = "kernel_image")]
    modules: Option<PathBuf>,
    /// Boot with this initial root file system; it has to end the machine
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
}

impl Options {
    fn boot(self) -> Result<Boot> {
        let boot = match (self.machine, self.cpu) {
            (None, None) => Boot::new(Machine::Amd),
            (Some(machine), None) => Boot::new(machine),
            (None, Some(cpu)) => Boot::of_cpu(cpu),
            (Some(machine), Some(cpu)) if machine == Machine::of(cpu) => Boot::of_cpu(cpu),
            (Some(machine), Some(cpu)) => {
                anyhow::bail!("the {} machine cannot be {}", machine.name(), cpu.name)
            }
        };
        let boot = match self.instruction_clock {
            true => boot.with_instruction_clock(),
            false => boot,
        };
        let oracle = match self.kernel_image {
            Some(_) => Oracle::Off,
            None => Oracle::On,
        };
        Ok(Boot {
            pmu: self.pmu,
            oracle: self.oracle.unwrap_or(oracle),
            kernel: match self.debug_kernel {
                true => Kernel::Debug,
                false => Kernel::Main,
            },
            given: Given {
                kernel: self.kernel_image,
                modules: self.modules,
                initrd: self.initrd,
                ..Given::default()
            },
            cpus: self.smp.unwrap_or(boot.cpus),
            model: self.model,
            append: self.append,
            ..boot
        })
    }
}

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
            filter,
        } => {
            let length = if long { Length::Long } else { Length::Usual };
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
