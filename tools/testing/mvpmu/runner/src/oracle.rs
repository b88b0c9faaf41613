// SPDX-License-Identifier: GPL-2.0

//! The oracle of the machines: whether it watches, and what it has reported.
//!
//! A machine whose oracle objects ends with a status of its own; the report is
//! in its log, where code has addresses. The names come from System.map and from
//! the modules, of which L1 says on the console where it has put them.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use clap::ValueEnum;
use object::Object;
use object::ObjectSection;
use object::ObjectSymbol;
use object::SymbolKind;

use crate::paths::Kernel;

/// The exit status of a machine that the oracle has stopped.
pub const VIOLATION: i32 = pmu_model::oracle::EXIT_STATUS;

/// Has L1 say where the code of its modules is.
pub const REPORT_MODULES: &str = "mvpmu.report_modules";

/// What the oracle does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Oracle {
    /// Stop the machine at the first violation.
    #[default]
    On,
    /// Nothing.
    Off,
    /// Report violations and go on.
    Note,
}

impl Oracle {
    /// As the machines call it.
    pub fn name(self) -> &'static str {
        match self {
            Oracle::On => "on",
            Oracle::Off => "off",
            Oracle::Note => "note",
        }
    }
}

/// What the oracle has reported in a run, with the names of the functions.
pub fn report(directory: &Path, kernel: Kernel) -> Option<String> {
    let log = fs::read_to_string(directory.join("machine.log")).ok()?;
    let lines: Vec<_> = log
        .lines()
        .filter_map(|line| line.strip_prefix("oracle: "))
        .filter(|line| *line != "end")
        .collect();
    (!lines.is_empty()).then(|| with_names(&lines, directory, kernel).join("\n"))
}

/// Lines of the log of a run, with the names of the functions.
pub fn with_names(lines: &[&str], directory: &Path, kernel: Kernel) -> Vec<String> {
    let map = fs::read_to_string(kernel.product("System.map")).unwrap_or_default();
    let mut symbols = Symbols::parse(&map);
    let console = fs::read(directory.join("console")).unwrap_or_default();
    for line in String::from_utf8_lossy(&console).lines() {
        symbols.add_module(line, |file, section| {
            functions(&kernel.product("modules").join(file), section).unwrap_or_default()
        });
    }
    symbols.0.sort_unstable();
    lines.iter().map(|line| symbols.name_all(line)).collect()
}

/// The functions in a section of a module: where each begins, and its name.
fn functions(file: &Path, section: &str) -> Result<Vec<(u64, String)>> {
    let data = fs::read(file)?;
    let module = object::File::parse(&*data)?;
    let section = module.section_by_name(section).context("no such section")?;
    let section = Some(section.index());
    module
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.section_index() == section)
        .map(|symbol| {
            let name = rustc_demangle::demangle(symbol.name()?);
            Ok((symbol.address(), format!("{name:#}")))
        })
        .collect()
}

/// The kernel's functions by their addresses.
struct Symbols(Vec<(u64, String)>);

impl Symbols {
    fn parse(map: &str) -> Self {
        let symbols = map
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                let kind = words.next()?;
                let name = words.next()?;
                matches!(kind, "t" | "T" | "w" | "W").then(|| (address, name.to_owned()))
            })
            .collect();
        Symbols(symbols)
    }

    /// Adds the functions of a module. `line` is "module FILE SECTION ADDRESS", or something else;
    /// `functions` gives those in a section of a file.
    fn add_module(&mut self, line: &str, functions: impl Fn(&str, &str) -> Vec<(u64, String)>) {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["module", file, section, address] = words[..] else {
            return;
        };
        let digits = address.strip_prefix("0x").unwrap_or(address);
        let Ok(base) = u64::from_str_radix(digits, 16) else {
            return;
        };
        let functions = functions(file, section).into_iter();
        self.0.extend(functions.map(|(offset, name)| {
            let address = base.wrapping_add(offset);
            (address, format!("{name} [{file}]"))
        }));
    }

    /// The function at `address`, and how far into it.
    fn name(&self, address: u64) -> Option<String> {
        /// No function is as large. (What lies between two modules has no name.)
        const FUNCTION_MAX: u64 = 0x1_0000;
        let next = self.0.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.0.get(next.checked_sub(1)?)?;
        let offset = address - start;
        (offset < FUNCTION_MAX).then(|| format!("{name}+{offset:#x}"))
    }

    /// The line, with a name behind each address of code: a number of 16 digits.
    fn name_all(&self, line: &str) -> String {
        let mut named = line.to_owned();
        for word in line.split_whitespace() {
            let digits = word.strip_prefix("0x").filter(|d| d.len() == 16);
            let address = digits.and_then(|d| u64::from_str_radix(d, 16).ok());
            if let Some(name) = address.and_then(|address| self.name(address)) {
                named = named.replacen(word, &format!("{word} {name}"), 1);
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: take the symbol behind the address.
    #[test]
    fn addresses_in_the_kernel_get_names() {
        let mut symbols = Symbols::parse(
            "0000000000001000 A early\n\
             ffffffff81000000 T _text\n\
             ffffffff81001000 t amd_pmu_v2_enable_all\n\
             ffffffff82000000 D some_data\n",
        );
        let line = "host  0xffffffff8100100b  WRMSR GlobalCtl = 0x3f";
        let named = "host  0xffffffff8100100b amd_pmu_v2_enable_all+0xb  WRMSR GlobalCtl = 0x3f";
        assert_eq!(symbols.name_all(line), named);
        let module = "host  0xffffffffa0066acf  RDPMC 0x1 = 0x0";
        assert_eq!(symbols.name_all(module), module);
        symbols.add_module(
            "module mvpmu.ko .text 0xffffffffa0066000",
            |file, section| {
                assert_eq!((file, section), ("mvpmu.ko", ".text"));
                vec![(0xac0, "mvpmu::put".to_owned())]
            },
        );
        let named = "host  0xffffffffa0066acf mvpmu::put [mvpmu.ko]+0xf  RDPMC 0x1 = 0x0";
        assert_eq!(symbols.name_all(module), named);
    }

    // Break: take all sections, or leave names mangled.
    #[test]
    fn a_file_has_functions_in_its_sections() {
        let file = std::env::current_exe().unwrap();
        let found = functions(&file, ".text").unwrap();
        let named = |(_, name): &(u64, String)| name.contains("oracle::tests::");
        assert!(found.iter().any(named));
        assert!(!functions(&file, ".init").unwrap().iter().any(named));
    }
}
