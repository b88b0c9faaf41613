// SPDX-License-Identifier: GPL-2.0

//! The oracle of the machines: whether it watches, and what it has reported.
//!
//! A machine whose oracle objects ends with a status of its own; the report is
//! in its log, where code has addresses. The names come from System.map. What
//! lies in modules stays a number: it is known only to L1, which has stopped.

use std::fs;
use std::path::Path;

use clap::ValueEnum;

use crate::paths::Kernel;

/// The exit status of a machine that the oracle has stopped.
pub const VIOLATION: i32 = pmu_model::oracle::EXIT_STATUS;

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
    if lines.is_empty() {
        return None;
    }
    let map = fs::read_to_string(kernel.product("System.map")).unwrap_or_default();
    let symbols = Symbols::parse(&map);
    let named: Vec<_> = lines.iter().map(|line| symbols.name_all(line)).collect();
    Some(named.join("\n"))
}

/// The kernel's functions by their addresses.
struct Symbols<'a>(Vec<(u64, &'a str)>);

impl<'a> Symbols<'a> {
    fn parse(map: &'a str) -> Self {
        let mut symbols: Vec<_> = map
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                let kind = words.next()?;
                let name = words.next()?;
                matches!(kind, "t" | "T" | "w" | "W").then_some((address, name))
            })
            .collect();
        symbols.sort_unstable();
        Symbols(symbols)
    }

    /// The function at `address`, and how far into it.
    fn name(&self, address: u64) -> Option<String> {
        // Linux maps its image to the last GiB but one, modules after it.
        const IMAGE: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_a000_0000;
        let next = self.0.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.0.get(next.checked_sub(1)?)?;
        let known = IMAGE.contains(&address) && *start >= IMAGE.start;
        known.then(|| format!("{name}+{:#x}", address - start))
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
        let symbols = Symbols::parse(
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
    }
}
