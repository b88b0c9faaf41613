// SPDX-License-Identifier: GPL-2.0
//! The operation counts, written to a file when QEMU ends.
//!
//! A JSON object: `machine`, `pmu` (`on`, `old`, `off`), `marks`, an array of the [`Mark`]s that
//! guests have made, and `cpus`, one with what [`pmu_model::Stats`] counts for each vCPU.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use pmu_model::amd::Version;
use pmu_model::mark;
use pmu_model::mark::Mark;
use pmu_model::Stats;

use crate::apic::MAX_APICS;

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
    let cpus: Vec<Stats> = (PUBLISHED.iter())
        .filter_map(|slot| *slot.lock().unwrap_or_else(PoisonError::into_inner))
        .collect();
    let marks = MARKS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = std::fs::write(path, json(*version, &marks, &cpus)) {
        eprintln!("qemu-pmu: {}: {error}", path.display());
    }
}

fn json(version: Option<Version>, marks: &[Mark], cpus: &[Stats]) -> String {
    let pmu = match version {
        Some(Version::PerfMonV2) => "on",
        Some(Version::Core) => "old",
        None => "off",
    };
    let marks = mark::array(marks);
    let mut text = format!(
        "{{\"machine\": \"qemu-tcg-svm\", \"pmu\": \"{pmu}\", \"marks\": {marks}, \"cpus\": ["
    );
    for (n, stats) in cpus.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}\n  {stats}");
    }
    text.push_str("\n]}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: leave the comma out.
    #[test]
    fn the_file_has_one_object_per_cpu() {
        let mut stats = Stats::default();
        stats.host.rdpmc = 7;
        let text = json(Some(Version::PerfMonV2), &[], &[stats, Stats::default()]);
        assert_eq!(text.matches("\"vm_entries\": 0").count(), 2);
        assert!(text.contains("\"rdpmc\": 7"));
        assert!(text.contains("},\n  {"));
        assert!(text.ends_with("}\n]}\n"));
    }
}
