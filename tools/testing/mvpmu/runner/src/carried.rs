// SPDX-License-Identifier: GPL-2.0

//! Guests that a machine saves, and one whose CPU has fewer counters gets.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::results;
use crate::tap::Case;

/// What the first run of the job leaves, and the second one wants.
const GUESTS: [&str; 2] = ["four", "all"];

/// Saves on one machine, then restores on the other one.
pub fn test(from: &Boot, to: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let run = |boot: &Boot, what: &str, files: Vec<PathBuf>| -> Result<Vec<Case>> {
        let job = Job {
            arguments: vec![what.to_owned()],
            files,
            ..Job::new("carry")
        };
        let limit = Duration::from_secs(300);
        let outcome = boot::run(boot, &job, &directory.join(what), limit, false)?;
        let mut cases = results::of_job(&outcome, &["carry".to_owned()]);
        cases.extend(results::of_refusals(&outcome));
        for case in &mut cases {
            case.name = format!("{what}: {}", case.name);
        }
        Ok(cases)
    };
    let mut cases = run(from, "save", Vec::new())?;
    let saved = GUESTS.map(|name| directory.join("save/out").join(name));
    if saved.iter().all(|file| file.exists()) {
        cases.extend(run(to, "restore", saved.to_vec())?);
    }
    Ok(cases)
}
