// SPDX-License-Identifier: GPL-2.0

//! The reports of the test machines, to compare with. Tests write them, and compare.

use crate::file;
use crate::Report;

const AMD: &str = include_str!("../recorded/amd.json");
const INTEL: &str = include_str!("../recorded/intel.json");

fn recorded(text: &str) -> Report {
    file::parse(text).expect("what is recorded is a report")
}

/// That of the AMD machine.
pub fn amd() -> Report {
    recorded(AMD)
}

/// That of the Intel machine.
pub fn intel() -> Report {
    recorded(INTEL)
}

/// That of the test machine with a CPU of the same vendor.
pub fn of(report: &Report) -> Option<Report> {
    match report.cpu.vendor.as_str() {
        "AuthenticAMD" => Some(amd()),
        "GenuineIntel" => Some(intel()),
        _ => None,
    }
}
