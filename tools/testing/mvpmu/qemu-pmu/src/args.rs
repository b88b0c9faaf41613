// SPDX-License-Identifier: GPL-2.0
//! The plugin's arguments: `-plugin libqemu_pmu.so,pmu=on,oracle=on,stats=FILE`.

use std::path::PathBuf;

use pmu_model::amd::Version;

use pmu_model::oracle::Mode;

use crate::quirks::Quirk;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// The PMU of the CPU; `None`: none is announced, and none is there.
    pub pmu: Option<Version>,
    /// What the oracle does.
    pub oracle: Mode,
    /// Where to write the operation counts at the end.
    pub stats: Option<PathBuf>,
    /// A work-around to leave out.
    pub without: Option<Quirk>,
}

/// Parses `name=value` arguments.
pub fn parse<'a>(args: impl Iterator<Item = &'a str>) -> Result<Args, String> {
    let mut parsed = Args {
        pmu: Some(Version::PerfMonV2),
        oracle: Mode::On,
        stats: None,
        without: None,
    };
    for arg in args {
        match arg.split_once('=') {
            Some(("pmu", "on")) => parsed.pmu = Some(Version::PerfMonV2),
            Some(("pmu", "old")) => parsed.pmu = Some(Version::Core),
            Some(("pmu", "off")) => parsed.pmu = None,
            Some(("oracle", name)) if Mode::named(name).is_some() => {
                parsed.oracle = Mode::named(name).unwrap_or(parsed.oracle);
            }
            Some(("stats", file)) if !file.is_empty() => parsed.stats = Some(file.into()),
            Some(("without", name)) => {
                let quirk = Quirk::named(name);
                parsed.without = Some(quirk.ok_or(format!("{arg}: there is no such work-around"))?);
            }
            _ => {
                return Err(format!(
                    "unknown argument `{arg}` (there are pmu=on|old|off, oracle=on|off|note, \
                     stats=FILE and without=QUIRK)"
                ))
            }
        }
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
        assert_eq!(args.pmu, Some(Version::Core));
        assert_eq!(args.stats, Some("/tmp/x".into()));
        assert_eq!(parse(["pmu=off"].into_iter()).unwrap().pmu, None);
        assert_eq!(parse([].into_iter()).unwrap().pmu, Some(Version::PerfMonV2));
        assert_eq!(parse([].into_iter()).unwrap().oracle, Mode::On);
        let args = parse(["oracle=note"].into_iter()).unwrap();
        assert_eq!(args.oracle, Mode::Note);
        assert!(parse(["oracle=maybe"].into_iter()).is_err());
        assert!(parse(["pmu=maybe"].into_iter()).is_err());
        assert!(parse(["speed=11"].into_iter()).is_err());
        assert!(parse(["stats="].into_iter()).is_err());
        assert!(parse(["without=nothing"].into_iter()).is_err());
        let without = parse(["without=set-pc"].into_iter()).unwrap().without;
        assert_eq!(without, Some(Quirk::SetPc));
    }
}
