// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::error::ContextKind;
use clap::error::ErrorKind;
use clap::CommandFactory;
use clap::Parser;
use pmu_model::intel::Config;
use pmu_model::listing::Marks;
use pmu_model::options;
use pmu_model::options::PmiDelay;
use pmu_model::options::PowerOn;
use pmu_model::options::Weights;
use pmu_model::oracle::Mode;
use pmu_model::profile;
use pmu_model::profile::Profile;

use crate::boot::Boot;
use crate::capability::Vmx;
use crate::log::Level;
use crate::per_cpu::MAX_CPUS;
use crate::quirks::Quirk;
use crate::sweep;
use crate::timers;

const ENDS: &str = "\
Exit status: (v << 1 | 1) when L1 wrote v to port 0xf4; 2 cannot start, 3 triple fault, reset or
halt for good, 4 the core gave up, 5 the oracle, 6 instruction limit, 8 Ctrl-A x.";

/// Boots Linux on an emulated Intel CPU with VMX and a PMU. The console is stdout; when stdin is a
/// terminal it is the console's keyboard (Ctrl-A x ends).
#[derive(Debug, Parser)]
#[command(name = "bochs-vmm", args_override_self = true, after_help = ENDS)]
pub struct Args {
    /// The Bochs core (scripts/bochs.sh fetches it)
    #[arg(long, value_name = "SO")]
    pub bochs: PathBuf,
    /// What to boot
    #[command(flatten)]
    pub boot: Boot,
    /// RAM in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub mem: u64,
    /// CPUs, which take turns
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = cpus)]
    pub cpus: usize,
    /// Time: so many instructions to a microsecond; in hundreds, at most 4000
    #[arg(long, value_name = "N", default_value_t = timers::TSC_MHZ, value_parser = mhz)]
    pub mhz: u32,
    /// Write statistics as JSON when the run ends
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Write the bytes that L1 sends to port 0xe9
    #[arg(long, value_name = "FILE")]
    pub stream: Option<PathBuf>,
    /// Which CPU: skylake, icelake, sapphire-rapids
    #[arg(long, value_name = "NAME", default_value = profile::SAPPHIRE_RAPIDS.name, value_parser = cpu)]
    pub cpu: &'static Profile,
    /// on: that of the CPU; old: one of version 3; off; then, each after a comma: no-full-width
    /// (writes), gp=N, fixed=N (general purpose and fixed counters, at most 8 and 4)
    #[arg(long, value_name = "WHICH", default_value = "on", value_parser = pmu)]
    pmu: Pmu,
    /// A PMI comes N instructions after the overflow, by LVTPC as it is then
    #[arg(long, value_name = "N", default_value = "0")]
    pub pmi_delay: PmiDelay,
    /// What firmware left in the PMU: zero, or random:SEED
    #[arg(long, value_name = "WHAT", default_value = "zero")]
    pub power_on: PowerOn,
    /// So many cycles, and of the reference clock, to an instruction
    #[arg(long, value_name = "CYCLES:REFERENCE", default_value = "1:1")]
    pub weights: Weights,
    /// Whether there are last branch records, if the CPU has them
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = switch,
        action = clap::ArgAction::Set)]
    lbr: bool,
    /// Whether there is Intel PT, if the CPU has it
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = switch,
        action = clap::ArgAction::Set)]
    pt: bool,
    /// on: stop when a PMU register shows a value to someone whose it is not; note: only say so; off
    #[arg(long, value_name = "WHICH", default_value = "on", value_parser = oracle)]
    pub oracle: Mode,
    /// on: that of the CPU; off; or no-save-global-ctrl,no-load-global-ctrl
    #[arg(long, value_name = "WHICH", default_value = "on", value_parser = vmx)]
    vmx: Vmx,
    /// CPUID says that the machine has core types that differ
    #[arg(long)]
    pub hybrid: bool,
    /// End the run after about N instructions
    #[arg(long, value_name = "N")]
    pub max_instructions: Option<u64>,
    /// An event at each instruction that L1 asks for
    #[command(flatten)]
    pub sweep: Sweep,
    /// Say at the end how often each instruction of L1's kernel was executed in the parts that L1 (host)
    /// or a guest (guest:ADD:SUBTRACT) has marked
    #[arg(long, value_name = "WHOSE")]
    pub listing: Option<Marks>,
    /// Write the instructions that are executed while Intel PT is on
    #[arg(long, value_name = "FILE")]
    pub flow: Option<PathBuf>,
    /// stdin is the keyboard also when it is not a terminal
    #[arg(long)]
    pub interactive: bool,
    /// Leave out a work-around for the core
    #[arg(long, value_name = "NAME", value_parser = quirk())]
    pub without_quirk: Vec<Quirk>,
    /// Print the core's errors; twice: information too
    #[arg(long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Args {
    /// How much to print.
    pub fn level(&self) -> Level {
        match self.verbose {
            0 => Level::Fatal,
            1 => Level::Error,
            _ => Level::Info,
        }
    }

    /// The PMU, if there is one.
    pub fn config(&self) -> Option<Config> {
        let (config, _) = pmu_of(self.cpu)?;
        let config = match self.pmu.which {
            Which::Cpus => config,
            Which::Old => Config::BROADWELL,
            Which::None => return None,
        };
        let fixed = self.pmu.fixed.unwrap_or(config.fixed);
        Some(Config {
            full_width_writes: config.full_width_writes && !self.pmu.narrow,
            gp: self.pmu.gp.unwrap_or(config.gp),
            fixed,
            // They are of what the fourth one counts.
            metrics: if fixed > 3 { config.metrics } else { 0 },
            lbr: config.lbr && self.lbr,
            pt: config.pt && self.pt,
            ..config
        })
    }

    /// What of VMX there is.
    pub fn vmx(&self) -> Vmx {
        let saves = pmu_of(self.cpu).is_some_and(|(_, saves)| saves);
        Vmx {
            save: self.vmx.save && saves,
            ..self.vmx
        }
    }
}

/// The PMU of a CPU, and whether its VM exit saves IA32_PERF_GLOBAL_CTRL.
fn pmu_of(cpu: &Profile) -> Option<(Config, bool)> {
    match cpu.pmu {
        profile::Pmu::Intel {
            config,
            saves_global_ctrl,
        } => Some((config, saves_global_ctrl)),
        profile::Pmu::Amd(_) => None,
    }
}

fn cpu(name: &str) -> Result<&'static Profile, String> {
    Profile::named(name, |profile| !profile.is_amd())
}

/// What is swept.
#[derive(Clone, Debug, clap::Args)]
pub struct Sweep {
    /// Inject these, each by itself, after each instruction of the part of the run that L1 names
    #[arg(long, value_name = "KIND,...", value_enum, value_delimiter = ',')]
    pub sweep: Vec<sweep::Kind>,
    /// Only after every N-th instruction
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_every: u64,
    /// Only from the N-th instruction on
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub sweep_from: u64,
    /// Only to the N-th instruction
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub sweep_to: u64,
    /// Only the first N times that an instruction is executed
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub sweep_times: u64,
}

impl From<Sweep> for sweep::Plan {
    fn from(args: Sweep) -> Self {
        sweep::Plan {
            kinds: args.sweep,
            every: args.sweep_every,
            from: args.sweep_from,
            to: args.sweep_to,
            times: args.sweep_times,
        }
    }
}

/// Whose PMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The CPU's.
    Cpus,
    /// An old CPU's.
    Old,
    /// There is none.
    None,
}

/// The PMU, and how it differs from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pmu {
    which: Which,
    narrow: bool,
    gp: Option<usize>,
    fixed: Option<usize>,
}

/// So many general purpose counters have a bit in the masks.
const MAX_GP: usize = 8;
/// There is an event for each of so many fixed counters.
const MAX_FIXED: usize = 4;

fn pmu(text: &str) -> Result<Pmu, String> {
    let mut words = text.split(',');
    let mut pmu = Pmu {
        which: match words.next().unwrap_or_default() {
            "on" => Which::Cpus,
            "old" => Which::Old,
            "off" => Which::None,
            word => return Err(format!("no {word}: there are on, old and off")),
        },
        narrow: false,
        gp: None,
        fixed: None,
    };
    for word in words {
        let (name, number) = match word.split_once('=') {
            Some((name, number)) => (name, number.parse().ok()),
            None => (word, None),
        };
        match (name, number) {
            _ if pmu.which == Which::None => return Err(format!("no {word} without a PMU")),
            ("no-full-width", None) if name == word => pmu.narrow = true,
            ("gp", Some(1..=MAX_GP)) => pmu.gp = number,
            ("fixed", Some(0..=MAX_FIXED)) => pmu.fixed = number,
            _ => {
                return Err(format!(
                    "no {word}: there are no-full-width, gp=1 to gp={MAX_GP}, fixed=0 to fixed={MAX_FIXED}"
                ))
            }
        }
    }
    Ok(pmu)
}

fn switch(text: &str) -> Result<bool, String> {
    options::switch(text).ok_or_else(|| "there are on and off".to_owned())
}

fn oracle(text: &str) -> Result<Mode, String> {
    Mode::named(text).ok_or_else(|| "there are on, note and off".to_owned())
}

fn vmx(text: &str) -> Result<Vmx, String> {
    let mut vmx = Vmx::FULL;
    if let "on" | "off" = text {
        vmx.present = text == "on";
        return Ok(vmx);
    }
    for word in text.split(',') {
        match word {
            "no-save-global-ctrl" => vmx.save = false,
            "no-load-global-ctrl" => vmx.load = false,
            _ => {
                return Err(format!(
                    "no {word}: there are on, off, no-save-global-ctrl and no-load-global-ctrl"
                ))
            }
        }
    }
    Ok(vmx)
}

/// MSR_PLATFORM_INFO has it in hundreds, CPUID in Hz, 32 bits of them.
fn mhz(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mhz @ 100..=4000) if mhz % 100 == 0 => Ok(mhz),
        _ => Err("there are 100, 200, ..., 4000".to_owned()),
    }
}

fn cpus(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(cpus @ 1..=MAX_CPUS) => Ok(cpus),
        _ => Err(format!("there are 1 to {MAX_CPUS}")),
    }
}

fn quirk() -> impl TypedValueParser<Value = Quirk> {
    PossibleValuesParser::new(Quirk::ALL.map(Quirk::name)).try_map(|name| Quirk::named(&name))
}

/// Reads the command line (without the program's name).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let name = std::iter::once(OsString::from("bochs-vmm"));
    let args = Args::try_parse_from(name.chain(args)).map_err(|error| match error.kind() {
        ErrorKind::UnknownArgument => unknown(&error),
        _ => error,
    })?;
    let of_one_cpu = [
        ("--sweep", !args.sweep.sweep.is_empty()),
        ("--listing", args.listing.is_some()),
    ];
    match of_one_cpu.into_iter().find(|(_, given)| *given) {
        Some((option, _)) if args.cpus > 1 => {
            let message = format!("{option} wants one CPU, and there are {}", args.cpus);
            Err(Args::command().error(ErrorKind::ArgumentConflict, message))
        }
        _ => Ok(args),
    }
}

/// An option that there is not, with those that there are.
fn unknown(error: &clap::Error) -> clap::Error {
    let given = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let mut command = Args::command();
    let options: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .map(|name| format!("--{name}"))
        .collect();
    let message = format!(
        "no {}: there are {}",
        given.unwrap_or_default(),
        options.join(" ")
    );
    command.error(ErrorKind::UnknownArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Args, String> {
        let words = format!("--bochs b --kernel k {line}");
        parse(words.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_initrd_may_be_several_files() {
        let args = run("--initrd a b --mem 64 --initrd c").unwrap();
        assert_eq!(args.boot.initrd, ["a", "b", "c"].map(PathBuf::from));
        assert_eq!((args.mem, args.mhz), (64, 200));
        assert_eq!(run("--mhz 1000").unwrap().mhz, 1000);
    }

    #[test]
    fn the_pmu_is_that_of_the_cpu_unless_told_otherwise() {
        let config = |line| run(line).unwrap().config();
        assert_eq!(config(""), Some(Config::SAPPHIRE_RAPIDS));
        assert_eq!(config("--cpu icelake"), Some(Config::ICELAKE));
        assert_eq!(config("--cpu skylake --pmu off"), None);
        assert_eq!(config("--pmu old"), Some(Config::BROADWELL));
        let narrow = config("--pmu on,no-full-width").unwrap();
        assert!(!narrow.full_width_writes && narrow.fixed == 4);
        let three = config("--pmu on,fixed=3,no-full-width").unwrap();
        assert!(!three.full_width_writes && three.fixed == 3);
        let few = config("--cpu skylake --pmu on,gp=4").unwrap();
        assert_eq!((few.gp, few.fixed), (4, 3));
        assert!(!config("--lbr off").unwrap().lbr);
        assert!(!config("--pt off").unwrap().pt);
    }

    #[test]
    fn capabilities_can_be_hidden() {
        let vmx = |line| run(line).unwrap().vmx();
        let hidden = vmx("--vmx no-save-global-ctrl");
        assert!(hidden.present && hidden.load && !hidden.save);
        assert!(!vmx("--vmx off").present);
        assert_eq!(vmx("--vmx on"), Vmx::FULL);
        assert_eq!(vmx("--cpu skylake"), hidden);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("--pmu v7", "v7"),
            ("--pmu on,fast", "fast"),
            ("--pmi-delay soon", "soon"),
            ("--power-on gone", "gone"),
            ("--weights 3", "CYCLES:REFERENCE"),
            ("--lbr maybe", "maybe"),
            ("--pt maybe", "maybe"),
            ("--pmu on,gp=9", "gp=9"),
            ("--pmu on,gp=0", "gp=0"),
            ("--pmu on,no-full-width=1", "no-full-width=1"),
            ("--pmu on,fixed=5", "fixed=5"),
            ("--pmu on,fixed=x", "fixed=x"),
            ("--cpu zen4", "icelake and sapphire-rapids"),
            ("--pmu off,no-full-width", "no-full-width"),
            ("--vmx nothing", "nothing"),
            ("--oracle delphi", "delphi"),
            ("--mem lots", "lots"),
            ("--cpus 0", "1 to 4"),
            ("--cpus 5", "1 to 4"),
            ("--cpus 2 --sweep nmi", "--sweep wants one CPU"),
            ("--cpus 2 --listing host", "--listing wants one CPU"),
            ("--mhz 250", "250"),
            ("--mhz 4100", "4100"),
            ("--frobnicate", "--frobnicate"),
            ("--append", "--append"),
            ("--without-quirk none", "none"),
        ] {
            let error = run(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    // The runner gives options that a group of tests replaces.
    #[test]
    fn the_last_of_an_option_counts() {
        let args = run("--pmu off --oracle off --pmu old --oracle note").unwrap();
        assert_eq!(
            (args.config(), args.oracle),
            (Some(Config::BROADWELL), Mode::Note)
        );
        let args = run("--without-quirk la57 --without-quirk apicv").unwrap();
        assert_eq!(args.without_quirk, [Quirk::La57, Quirk::Apicv]);
    }

    #[test]
    fn an_option_that_there_is_not_is_refused_with_those_that_there_are() {
        let error = run("--frobnicate").unwrap_err();
        for option in ["--frobnicate", "--pmu", "--oracle", "--without-quirk"] {
            assert!(error.contains(option), "{error}");
        }
        let error = run("--without-quirk none").unwrap_err();
        for quirk in Quirk::ALL {
            assert!(error.contains(quirk.name()), "{error}");
        }
        assert!(run("--pmu on,fast").unwrap_err().contains("no-full-width"));
    }

    #[test]
    fn the_core_and_the_kernel_are_required() {
        for line in ["--bochs b", "--kernel k"] {
            assert!(parse(line.split_whitespace().map(OsString::from)).is_err());
        }
    }
}
