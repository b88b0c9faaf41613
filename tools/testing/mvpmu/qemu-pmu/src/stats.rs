// SPDX-License-Identifier: GPL-2.0
//! The operation counts, written to a file when QEMU ends.
//!
//! The file is a [`Report`] as JSON.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use pmu_model::amd::Version;
use pmu_model::mark::Mark;
use pmu_model::Stats;
use serde::Serialize;

use crate::apic::MAX_APICS;

/// What is written.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a str,
    /// `on`, `old` or `off`.
    pmu: &'a str,
    /// What guests have marked.
    marks: &'a [Mark],
    /// One for each vCPU.
    cpus: Vec<Stats>,
}

/// Where the statistics go, and what they say of the PMU.
static TO: OnceLock<(PathBuf, Option<Version>)> = OnceLock::new();

static PUBLISHED: [Mutex<Option<Stats>>; MAX_APICS] = [const { Mutex::new(None) }; MAX_APICS];

static MARKS: Mutex<Vec<Mark>> = Mutex::new(Vec::new());

/// Keeps what a guest has marked.
pub fn keep_mark(mark: Option<Mark>) {
    MARKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(mark);
}

/// Lets other threads see the statistics of vCPU `index` as they are now.
pub fn publish(index: u32, stats: Stats) {
    *PUBLISHED[index as usize]
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(stats);
}

/// Has [`write`] write to this file.
pub fn write_to(path: PathBuf, version: Option<Version>) {
    TO.get_or_init(|| (path, version));
}

/// Writes the file, if one is wanted.
pub fn write() {
    let Some((path, version)) = TO.get() else {
        return;
    };
    let report = Report {
        machine: "qemu-tcg-svm",
        pmu: match version {
            Some(Version::PerfMonV2) => "on",
            Some(Version::Core) => "old",
            None => "off",
        },
        marks: &MARKS.lock().unwrap_or_else(PoisonError::into_inner),
        cpus: (PUBLISHED.iter())
            .filter_map(|slot| *slot.lock().unwrap_or_else(PoisonError::into_inner))
            .collect(),
    };
    let written = serde_json::to_string_pretty(&report)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(path, text + "\n"));
    if let Err(error) = written {
        eprintln!("qemu-pmu: {}: {error}", path.display());
    }
}
