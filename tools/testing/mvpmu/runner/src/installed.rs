// SPDX-License-Identifier: GPL-2.0

//! Our packages in a Debian that boots: by its boot loader on the machine that has firmware, and from
//! memory on the other.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Result;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Given;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::results;
use crate::tap::Case;
use crate::tap::Verdict;

const INSTALL: &str = "tools/testing/mvpmu/scripts/installed.sh";
const LIMIT: Duration = Duration::from_secs(900);

/// Installs and boots it on the machine of `base`.
pub fn test(base: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory)?;
    let run = |name: &str, boot: &Boot| -> Result<Vec<Case>> {
        let job = Job::new(name);
        let outcome = boot::run(boot, &job, &directory.join(name), LIMIT, false)?;
        Ok(results::of_job(&outcome, &[name.to_owned()]))
    };
    if base.machine == Machine::Intel {
        make("memory", directory)?;
        let from_memory = Boot {
            given: Given {
                kernel: Some(directory.join("vmlinuz")),
                initrd: Some(directory.join("initrd")),
                ..Given::default()
            },
            append: "boot=memory".to_owned(),
            ..base.clone()
        };
        let cases = run("installed", &from_memory)?;
        fs::remove_file(directory.join("initrd"))?;
        return Ok(cases);
    }
    make("disk", directory)?;
    let disk = directory.join("disk");
    let with_disk = Boot {
        disk: Some(disk.clone()),
        oracle: Oracle::Off,
        ..base.clone()
    };
    let from_disk = Boot {
        oracle: base.oracle,
        given: Given {
            on_disk: true,
            ..Given::default()
        },
        ..with_disk.clone()
    };
    let mut cases = run("install-debian", &with_disk)?;
    for name in ["installed", "other"] {
        // Without a system on the disk the firmware would wait for somebody.
        if cases
            .iter()
            .any(|case| matches!(case.verdict, Verdict::Failed(_)))
        {
            return Ok(cases);
        }
        cases.extend(run(name, &from_disk)?);
    }
    fs::remove_file(disk)?;
    Ok(cases)
}

/// Makes what is booted, in `directory`.
fn make(kind: &str, directory: &Path) -> Result<()> {
    let log = File::create(directory.join("log"))?;
    let status = Command::new("sh")
        .args([INSTALL, kind])
        .arg(directory)
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    let log = directory.join("log");
    ensure!(
        status.success(),
        "{INSTALL} has failed: see {}",
        log.display()
    );
    Ok(())
}
