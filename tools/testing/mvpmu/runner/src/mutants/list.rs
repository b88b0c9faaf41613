// SPDX-License-Identifier: GPL-2.0

//! Which deliberate bugs there are. Those that were thought of are diffs in the checkout, of the module or
//! of Linux with the series, which say how they are caught. Of those that are made the build of the module
//! has left a list.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::machine::Machine;
use crate::paths::Kernel;

/// The diffs. Their first lines are text.
const OF_MODULE: &str = "tools/testing/mvpmu/mutants";
const OF_LINUX: &str = "tools/testing/mvpmu/mutants/linux";

/// A bug that somebody thought of.
#[derive(Debug, PartialEq, Eq)]
pub struct Thought {
    /// As the module calls it, or Linux.
    pub name: String,
    /// Whether it is one of Linux.
    pub of_linux: bool,
    /// The selftest that makes it show.
    pub test: String,
    /// Parameters of the module for it, each with a comma before it.
    pub parameters: String,
    /// Whether the oracle watches.
    pub watched: bool,
    /// What catches it on the AMD and on the Intel machine, if it applies there.
    amd: Option<String>,
    intel: Option<String>,
}

impl Thought {
    /// What catches it on this machine.
    pub fn expected(&self, machine: Machine) -> Option<&str> {
        match machine {
            Machine::Amd => self.amd.as_deref(),
            Machine::Intel => self.intel.as_deref(),
        }
    }

    fn parse((name, of_linux): (&str, bool), text: &str) -> Result<Self> {
        let head = text.split("\n--- ").next().unwrap_or_default();
        let value = |key: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .map(str::to_owned)
                .with_context(|| format!("{name}.diff does not say '{key}: '"))
        };
        let by = |key| Ok::<_, anyhow::Error>(Some(value(key)?).filter(|by| by != "-"));
        let parameters = value("parameters").map(|all| format!(",{all}"));
        Ok(Thought {
            name: name.to_owned(),
            of_linux,
            test: value("test")?,
            parameters: parameters.unwrap_or_default(),
            watched: value("oracle").map_or(true, |oracle| oracle != "off"),
            amd: by("amd")?,
            intel: by("intel")?,
        })
    }
}

/// All that somebody thought of.
pub fn thought() -> Result<Vec<Thought>> {
    let mut found = Vec::new();
    for (directory, of_linux) in [(OF_MODULE, false), (OF_LINUX, true)] {
        let before = found.len();
        for entry in fs::read_dir(directory).context(directory)? {
            let path = entry?.path();
            if let (Some("diff"), Some(name)) = (
                path.extension().and_then(|extension| extension.to_str()),
                path.file_stem().and_then(|name| name.to_str()),
            ) {
                let text = fs::read_to_string(&path)?;
                found.push(Thought::parse((name, of_linux), &text)?);
            }
        }
        ensure!(found.len() > before, "{directory}: no mutants");
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The write of a register that is skipped.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    /// As the module calls it.
    pub name: String,
    /// FILE:LINE, in the sources with the bugs.
    pub place: String,
    /// The line.
    pub source: String,
}

impl Made {
    /// Whether this machine's vendor executes it.
    pub fn is_for(&self, machine: Machine) -> bool {
        match Path::new(&self.place).parent() {
            Some(parent) if parent == Path::new("vendor") => self
                .place
                .starts_with(&format!("vendor/{}.", machine.name())),
            _ => true,
        }
    }

    fn parse(line: &str) -> Result<Self> {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut next = || {
            columns
                .next()
                .with_context(|| format!("not a write: {line}"))
        };
        Ok(Made {
            name: next()?,
            place: next()?,
            source: next()?,
        })
    }
}

/// All writes that can be skipped.
pub fn made(kernel: Kernel) -> Result<Vec<Made>> {
    let path = kernel.product("mutants");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let made: Vec<_> = text.lines().map(Made::parse).collect::<Result<_>>()?;
    ensure!(!made.is_empty(), "{}: no writes", path.display());
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the head is not separated from the diff, and when "-" is an expectation.
    #[test]
    fn a_diff_says_how_it_is_caught() {
        let text = "A bug.\ntest: count_test\namd: I2 user mode\nintel: -\n--- a/x\n+++ b/x\n";
        let mutant = Thought::parse(("a-bug", false), text).unwrap();
        assert_eq!((&*mutant.name, &*mutant.test), ("a-bug", "count_test"));
        assert_eq!(mutant.expected(Machine::Amd), Some("I2 user mode"));
        assert_eq!(mutant.expected(Machine::Intel), None);
        assert_eq!((&*mutant.parameters, mutant.watched), ("", true));
        let with = text.replace("amd:", "parameters: pt=off,lbr=off\noracle: off\namd:");
        let mutant = Thought::parse(("a-bug", true), &with).unwrap();
        assert_eq!(
            (&*mutant.parameters, mutant.watched),
            (",pt=off,lbr=off", false)
        );
        for key in ["test", "amd", "intel"] {
            let text = text.replace(&format!("{key}: "), "");
            assert!(Thought::parse(("a-bug", false), &text).is_err(), "{key}");
            let late = format!("{text}\n--- a/y\n{key}: x\n");
            assert!(Thought::parse(("a-bug", false), &late).is_err(), "{key}");
        }
    }

    // Has to fail when a write of one vendor is looked for on the machine of the other.
    #[test]
    fn a_write_is_skipped_where_it_is_executed() {
        let made = |place| Made::parse(&format!("skip:x\t{place}\tregs.write(a, 0);")).unwrap();
        for (place, amd, intel) in [
            ("switch.rs:7", true, true),
            ("vendor.rs:7", true, true),
            ("vendor/amd.rs:7", true, false),
            ("vendor/intel.rs:7", false, true),
        ] {
            assert_eq!(made(place).is_for(Machine::Amd), amd, "{place}");
            assert_eq!(made(place).is_for(Machine::Intel), intel, "{place}");
        }
        assert_eq!(made("switch.rs:7").source, "regs.write(a, 0);");
        assert!(Made::parse("skip:x").is_err());
    }
}
