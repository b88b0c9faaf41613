// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use pmu_model::intel::Config;
use pmu_model::oracle::Mode;

use crate::boot::Boot;
use crate::capability::Vmx;
use crate::cpuid;
use crate::log::Level;
use crate::quirks::Quirk;

/// How it is used.
pub const USAGE: &str = "\
usage: bochs-vmm --bochs SO --kernel FILE [option...]

Boots Linux on an emulated Intel CPU with VMX and a PMU. The console is stdout;
when stdin is a terminal it is the console's keyboard (Ctrl-A x ends).

  --bochs SO             the Bochs core (scripts/bochs.sh fetches it)
  --kernel FILE          vmlinux or bzImage
  --initrd FILE...       cpio archives of the initial root file system, in order
  --append STRING        kernel command line
  --mem MIB              RAM in MiB (default 512)
  --mhz N                time: so many instructions to a microsecond (default 200; in hundreds, at
                         most 4000)
  --stats FILE           write statistics as JSON when the run ends
  --stream FILE          write the bytes that L1 sends to port 0xe9
  --pmu WHICH            on or v5 (default), v4, old or v3, off; then, each after a
                         comma: no-full-width (writes), fixed=N (counters, at most 4)
  --oracle WHICH         on (default): stop when a PMU register shows a value to someone whose
                         it is not; note: only say so; off
  --vmx WHICH            on (default), off; no-save-global-ctrl,no-load-global-ctrl
  --hybrid               CPUID says that the machine has core types that differ
  --max-instructions N   end the run after about N instructions
  --interactive          stdin is the keyboard also when it is not a terminal
  --without-quirk NAME   leave out a work-around (all: --list-quirks)
  --list-quirks          list the work-arounds for the core
  --verbose              print the core's errors; twice: information too

Exit status: (v << 1 | 1) when L1 wrote v to port 0xf4; 2 cannot start, 3 triple
fault, reset or halt for good, 4 the core gave up, 5 the oracle, 6 instruction limit, 8 Ctrl-A x.
";

/// The command line.
#[derive(Debug)]
pub struct Args {
    /// The core.
    pub bochs: PathBuf,
    /// What to boot.
    pub boot: Boot,
    /// RAM in MiB.
    pub mem: u64,
    /// Instructions to a microsecond.
    pub mhz: u32,
    /// Where the statistics go.
    pub stats: Option<PathBuf>,
    /// Where the data stream goes.
    pub stream: Option<PathBuf>,
    /// The PMU, if there is one.
    pub pmu: Option<Config>,
    /// What the oracle does.
    pub oracle: Mode,
    /// VMX.
    pub vmx: Vmx,
    /// Whether CPUID announces core types that differ.
    pub hybrid: bool,
    /// When to end the run.
    pub max_instructions: Option<u64>,
    /// stdin is the keyboard in any case.
    pub interactive: bool,
    /// Work-arounds to leave out.
    pub without: Vec<Quirk>,
    /// How much to print.
    pub level: Level,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run a machine.
    Run(Box<Args>),
    /// Print the usage.
    Help,
    /// Print the work-arounds.
    ListQuirks,
}

/// There is an event for each of so many fixed counters.
const MAX_FIXED: usize = 4;

fn pmu(text: &str) -> Result<Option<Config>, String> {
    let mut words = text.split(',');
    let mut config = match words.next().unwrap_or_default() {
        "off" => None,
        "on" | "v5" => Some(Config::V5),
        "v4" => Some(Config::V4),
        "old" | "v3" => Some(Config::V3),
        _ => return Err(format!("--pmu {text}: there are v5, v4, v3 and off")),
    };
    for word in words {
        let fixed = word.strip_prefix("fixed=").map(str::parse);
        match (word, fixed, &mut config) {
            ("no-full-width", _, Some(config)) => config.full_width_writes = false,
            (_, Some(Ok(fixed @ 0..=MAX_FIXED)), Some(config)) => config.fixed = fixed,
            _ => return Err(format!("--pmu {text}: unknown feature {word}")),
        }
    }
    Ok(config)
}

fn oracle(text: &str) -> Result<Mode, String> {
    Mode::named(text).ok_or_else(|| format!("--oracle {text}: there are on, note and off"))
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
            _ => return Err(format!("--vmx {text}: unknown word {word}")),
        }
    }
    Ok(vmx)
}

fn number(option: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{option} {text}: not a number"))
}

/// MSR_PLATFORM_INFO has it in hundreds, CPUID in Hz, 32 bits of them.
fn mhz(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mhz @ 100..=4000) if mhz % 100 == 0 => Ok(mhz),
        _ => Err(format!("--mhz {text}: there are 100, 200, ..., 4000")),
    }
}

/// Reads the command line (without the program's name).
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut args = args.into_iter().peekable();
    let mut bochs = None;
    let mut kernel = None;
    let mut result = Args {
        bochs: PathBuf::new(),
        boot: Boot {
            kernel: PathBuf::new(),
            initrds: Vec::new(),
            append: String::new(),
        },
        mem: 512,
        mhz: cpuid::TSC_MHZ,
        stats: None,
        stream: None,
        pmu: Some(Config::V5),
        oracle: Mode::On,
        vmx: Vmx::FULL,
        hybrid: false,
        max_instructions: None,
        interactive: false,
        without: Vec::new(),
        level: Level::Fatal,
    };
    while let Some(option) = args.next() {
        let option = option.to_string_lossy().into_owned();
        let mut value = || args.next().ok_or_else(|| format!("{option} wants a value"));
        let text = |value: OsString| {
            value
                .into_string()
                .map_err(|_| format!("{option}: the value is not UTF-8"))
        };
        match option.as_str() {
            "--bochs" => bochs = Some(PathBuf::from(value()?)),
            "--kernel" => kernel = Some(PathBuf::from(value()?)),
            "--initrd" => {
                result.boot.initrds.push(value()?.into());
                while let Some(file) = args.next_if(|next| !is_option(next)) {
                    result.boot.initrds.push(file.into());
                }
            }
            "--append" => result.boot.append = text(value()?)?,
            "--mem" => result.mem = number(&option, &text(value()?)?)?,
            "--mhz" => result.mhz = mhz(&text(value()?)?)?,
            "--stats" => result.stats = Some(value()?.into()),
            "--stream" => result.stream = Some(value()?.into()),
            "--pmu" => result.pmu = pmu(&text(value()?)?)?,
            "--oracle" => result.oracle = oracle(&text(value()?)?)?,
            "--vmx" => result.vmx = vmx(&text(value()?)?)?,
            "--hybrid" => result.hybrid = true,
            "--max-instructions" => {
                result.max_instructions = Some(number(&option, &text(value()?)?)?);
            }
            "--interactive" => result.interactive = true,
            "--without-quirk" => result.without.push(Quirk::named(&text(value()?)?)?),
            "--list-quirks" => return Ok(Command::ListQuirks),
            "--verbose" => {
                result.level = match result.level {
                    Level::Fatal => Level::Error,
                    _ => Level::Info,
                }
            }
            "--help" => return Ok(Command::Help),
            _ => return Err(format!("unknown option {option} (--help lists them)")),
        }
    }
    result.bochs = bochs.ok_or("--bochs is missing: the file that scripts/bochs.sh fetches")?;
    result.boot.kernel = kernel.ok_or("--kernel is missing")?;
    Ok(Command::Run(Box::new(result)))
}

fn is_option(text: &OsString) -> bool {
    text.as_encoded_bytes().starts_with(b"--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Box<Args>, String> {
        let words = format!("--bochs b --kernel k {line}");
        match parse(words.split_whitespace().map(OsString::from))? {
            Command::Run(args) => Ok(args),
            other => panic!("not a run: {other:?}"),
        }
    }

    #[test]
    fn an_initrd_may_be_several_files() {
        let args = run("--initrd a b --mem 64 --initrd c").unwrap();
        assert_eq!(args.boot.initrds, ["a", "b", "c"].map(PathBuf::from));
        assert_eq!((args.mem, args.mhz), (64, 200));
        assert_eq!(run("--mhz 1000").unwrap().mhz, 1000);
    }

    #[test]
    fn the_pmu_is_version_5_unless_told_otherwise() {
        assert_eq!(run("").unwrap().pmu, Some(Config::V5));
        assert_eq!(run("--pmu off").unwrap().pmu, None);
        assert_eq!(run("--pmu old").unwrap().pmu, Some(Config::V3));
        let narrow = run("--pmu v5,no-full-width").unwrap().pmu.unwrap();
        assert!(!narrow.full_width_writes && narrow.fixed == 4);
        let three = run("--pmu v5,fixed=3,no-full-width").unwrap().pmu.unwrap();
        assert!(!three.full_width_writes && three.fixed == 3);
    }

    #[test]
    fn capabilities_can_be_hidden() {
        let vmx = run("--vmx no-save-global-ctrl").unwrap().vmx;
        assert!(vmx.present && vmx.load && !vmx.save);
        assert!(!run("--vmx off").unwrap().vmx.present);
        assert_eq!(run("--vmx on").unwrap().vmx, Vmx::FULL);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("--pmu v7", "v7"),
            ("--pmu v5,fast", "fast"),
            ("--pmu v5,fixed=5", "fixed=5"),
            ("--pmu v5,fixed=x", "fixed=x"),
            ("--pmu off,no-full-width", "no-full-width"),
            ("--vmx nothing", "nothing"),
            ("--oracle delphi", "delphi"),
            ("--mem lots", "lots"),
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

    #[test]
    fn the_core_and_the_kernel_are_required() {
        for line in ["--bochs b", "--kernel k"] {
            assert!(parse(line.split_whitespace().map(OsString::from)).is_err());
        }
    }
}
