// SPDX-License-Identifier: GPL-2.0

//! Tests of the machines with a kernel and an initial root file system that somebody has given.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::boot;
use crate::boot::End;
use crate::cpio::Archive;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Given;
use crate::oracle::Oracle;
use crate::paths::Kernel;
use crate::tap::Case;

const LIMIT: Duration = Duration::from_secs(300);

/// A root file system of somebody else: it says that it is there, and ends the machine.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir /dev
/bin/busybox mount -t devtmpfs devtmpfs /dev
echo 'this is given' >/dev/console
/bin/busybox poweroff -f
";

/// Boots our kernel as if it were somebody's, on the machine of `base`.
pub fn test(base: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let kernel = Kernel::Main.product("bzImage");
    let release = fs::read_to_string(Kernel::Main.product("release"))?;
    let given = Given {
        kernel: Some(kernel.clone()),
        modules: Some(Kernel::Main.product("modules")),
        ..Given::default()
    };
    let boot = |given: Given| Boot {
        oracle: Oracle::Off,
        given,
        ..base.clone()
    };
    let command = |text: String| Job {
        arguments: vec![text],
        ..Job::new("command")
    };
    let run = |name: &str, text: String| {
        let boot = boot(given.clone());
        boot::run(&boot, &command(text), &directory.join(name), LIMIT, false)
    };
    let text = format!("load-kvm && [ $(uname -r) = {} ]", release.trim());
    let outcome = run("command", text)?;
    let mut cases = vec![Case::new(
        "a command runs in a given kernel, with its modules",
        outcome.end == End::Job(0),
        || format!("{:?}; see {}", outcome.end, outcome.console.display()),
    )];
    let outcome = run("status", "exit 7".to_owned())?;
    cases.push(Case::new(
        "its exit status is known",
        outcome.end == End::Job(7),
        || format!("{:?}; see {}", outcome.end, outcome.console.display()),
    ));

    let initrd = directory.join("given-initrd");
    let mut archive = Archive::default();
    archive.character_device("/dev/console", 5, 1);
    archive.copy("/bin/busybox", Path::new("/usr/bin/busybox"))?;
    archive.file("/init", 0o755, INIT);
    archive.write(&mut File::create(&initrd)?)?;
    let whole = boot(Given {
        kernel: Some(kernel),
        initrd: Some(initrd.clone()),
        ..Given::default()
    });
    let place = directory.join("initrd");
    let outcome = boot::run(&whole, &Job::default(), &place, LIMIT, false)?;
    let console = fs::read(&outcome.console).context("no console")?;
    let said = String::from_utf8_lossy(&console).contains("this is given");
    cases.push(Case::new(
        "a given initial root file system runs, and ends the machine",
        said && outcome.end != End::TimedOut && initrd.exists(),
        || format!("{:?}; see {}", outcome.end, outcome.console.display()),
    ));

    let none = boot(Given {
        kernel: Some("README.md".into()),
        ..Given::default()
    });
    let place = directory.join("none");
    let error = boot::run(&none, &Job::default(), &place, LIMIT, false).err();
    let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
    cases.push(Case::new(
        "what is no kernel is refused",
        error == "README.md is no bzImage",
        || error.clone(),
    ));
    Ok(cases)
}
