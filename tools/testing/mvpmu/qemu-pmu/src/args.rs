// SPDX-License-Identifier: GPL-2.0
//! The plugin's arguments: `-plugin libqemu_pmu.so,pmu=on,oracle=on,stats=FILE`.

use std::path::PathBuf;

use pmu_model::amd::Version;
use pmu_model::amd::COUNTERS;
use pmu_model::amd::MIN_COUNTERS;
use pmu_model::listing::Marks;
use pmu_model::options;
use pmu_model::options::PmiDelay;
use pmu_model::options::PowerOn;
use pmu_model::options::Weights;
use pmu_model::oracle::Mode;
use pmu_model::profile;
use pmu_model::profile::Profile;

use crate::quirks::Quirk;

/// Which PMU the CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pmu {
    /// Its own.
    Cpus,
    /// One before PerfMonV2.
    Old,
    /// None is announced, and none is there.
    None,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// Which CPU it is.
    pub cpu: &'static Profile,
    /// Which PMU.
    pub pmu: Pmu,
    /// What the oracle does.
    pub oracle: Mode,
    /// Where to write the operation counts at the end.
    pub stats: Option<PathBuf>,
    /// A work-around to leave out.
    pub without: Option<Quirk>,
    /// How long PMIs take.
    pub pmi_delay: PmiDelay,
    /// What the PMU holds at the start.
    pub power_on: PowerOn,
    /// How long an instruction takes.
    pub weights: Weights,
    /// If instructions are to be listed: between which marks.
    pub listing: Option<Marks>,
    /// There is a last branch record stack.
    pub lbr: bool,
    /// How many core counters there are.
    pub counters: usize,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            cpu: &profile::ZEN4,
            pmu: Pmu::Cpus,
            oracle: Mode::On,
            stats: None,
            without: None,
            pmi_delay: PmiDelay::default(),
            power_on: PowerOn::default(),
            weights: Weights::default(),
            listing: None,
            lbr: true,
            counters: COUNTERS,
        }
    }
}

impl Args {
    /// The PMU, if there is one.
    pub fn version(&self) -> Option<Version> {
        match (self.pmu, self.cpu.pmu) {
            (Pmu::Cpus, profile::Pmu::Amd(version)) => Some(version),
            (Pmu::Old, _) => Some(Version::Core),
            _ => None,
        }
    }
}

/// An option: its name, the values that it takes, and what takes one if it is such a value.
struct Choice {
    name: &'static str,
    values: &'static str,
    take: fn(&mut Args, &str) -> Option<()>,
}

/// All options. QEMU splits them at commas, so that none can have one in its value.
const CHOICES: [Choice; 11] = [
    Choice {
        name: "cpu",
        values: "zen4|zen5",
        take: |args, value| {
            args.cpu = Profile::named(value, Profile::is_amd).ok()?;
            Some(())
        },
    },
    Choice {
        name: "pmu",
        values: "on|old|off",
        take: |args, value| {
            args.pmu = match value {
                "on" => Pmu::Cpus,
                "old" => Pmu::Old,
                "off" => Pmu::None,
                _ => return None,
            };
            Some(())
        },
    },
    Choice {
        name: "oracle",
        values: "on|off|note",
        take: |args, value| {
            args.oracle = Mode::named(value)?;
            Some(())
        },
    },
    Choice {
        name: "stats",
        values: "FILE",
        take: |args, value| {
            args.stats = Some((!value.is_empty()).then(|| value.into())?);
            Some(())
        },
    },
    Choice {
        name: "without",
        values: "QUIRK",
        take: |args, value| {
            args.without = Some(Quirk::named(value)?);
            Some(())
        },
    },
    Choice {
        name: "pmi-delay",
        values: "N",
        take: |args, value| {
            args.pmi_delay = value.parse().ok()?;
            Some(())
        },
    },
    Choice {
        name: "power-on",
        values: "zero|random:SEED",
        take: |args, value| {
            args.power_on = value.parse().ok()?;
            Some(())
        },
    },
    Choice {
        name: "weights",
        values: "CYCLES:REFERENCE",
        take: |args, value| {
            args.weights = value.parse().ok()?;
            Some(())
        },
    },
    Choice {
        name: "listing",
        values: "host|guest:ADD:SUBTRACT",
        take: |args, value| {
            args.listing = Some(value.parse().ok()?);
            Some(())
        },
    },
    Choice {
        name: "lbr",
        values: "on|off",
        take: |args, value| {
            args.lbr = options::switch(value)?;
            Some(())
        },
    },
    Choice {
        name: "counters",
        values: "4|5|6",
        take: |args, value| {
            args.counters = value.parse().ok()?;
            (MIN_COUNTERS..=COUNTERS)
                .contains(&args.counters)
                .then_some(())
        },
    },
];

/// Parses `name=value` arguments.
pub fn parse<'a>(args: impl Iterator<Item = &'a str>) -> Result<Args, String> {
    let mut parsed = Args::default();
    for arg in args {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        let choice = CHOICES.iter().find(|choice| choice.name == name);
        let choice = choice.ok_or_else(|| {
            let all = CHOICES.map(|choice| format!("{}={}", choice.name, choice.values));
            format!("there is no option `{name}`, but {}", all.join(", "))
        })?;
        (choice.take)(&mut parsed, value)
            .ok_or_else(|| format!("`{arg}` is not {name}={}", choice.values))?;
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: accept any value of pmu=.
    #[test]
    fn every_argument_is_understood_or_refused() {
        let args = parse(["pmu=old", "stats=/tmp/x"].into_iter()).unwrap();
        assert_eq!(args.version(), Some(Version::Core));
        assert_eq!(args.stats, Some("/tmp/x".into()));
        assert_eq!(parse(["pmu=off"].into_iter()).unwrap().version(), None);
        let args = parse(["cpu=zen5"].into_iter()).unwrap();
        assert_eq!(args.version(), Some(Version::PerfMonV2));
        assert_eq!(parse([].into_iter()), Ok(Args::default()));
        let args = parse(["oracle=note"].into_iter()).unwrap();
        assert_eq!(args.oracle, Mode::Note);
        let without = parse(["without=set-pc"].into_iter()).unwrap().without;
        assert_eq!(without, Some(Quirk::SetPc));
        let args = parse(["pmi-delay=20", "power-on=random:3"].into_iter()).unwrap();
        assert_eq!(args.pmi_delay, "20".parse().unwrap());
        assert_eq!(args.power_on, PowerOn::Random(3));
        let args = parse(["listing=host"].into_iter()).unwrap();
        assert_eq!(args.listing, Some(Marks::Host));
        let lbr = |value| parse([value].into_iter()).unwrap().lbr;
        assert_eq!([lbr("lbr=on"), lbr("lbr=off")], [true, false]);
        let counters = parse(["counters=4"].into_iter()).unwrap().counters;
        assert_eq!(counters, 4);
        for bad in [
            "counters=3",
            "counters=7",
            "weights=3",
            "cpu=icelake",
            "oracle=maybe",
            "pmu=maybe",
            "pmu",
            "stats=",
            "without=nothing",
            "listing=guest:1",
            "lbr=maybe",
        ] {
            let reason = parse([bad].into_iter()).unwrap_err();
            assert!(reason.starts_with(&format!("`{bad}` is not ")), "{reason}");
        }
    }

    // Break: leave one out of the list.
    #[test]
    fn what_does_not_exist_is_refused_with_the_list_of_what_does() {
        assert_eq!(
            parse(["speed=11"].into_iter()).unwrap_err(),
            "there is no option `speed`, but cpu=zen4|zen5, pmu=on|old|off, oracle=on|off|note, stats=FILE, \
             without=QUIRK, pmi-delay=N, power-on=zero|random:SEED, weights=CYCLES:REFERENCE, \
             listing=host|guest:ADD:SUBTRACT, lbr=on|off, counters=4|5|6"
        );
    }
}
