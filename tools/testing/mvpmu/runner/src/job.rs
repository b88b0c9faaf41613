// SPDX-License-Identifier: GPL-2.0

//! A job for L1: a script of `initramfs/jobs` with its arguments.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use crate::cpio::Archive;
use crate::paths;

/// What L1 is to do.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The script: a file name in `initramfs/jobs`, or a path.
    pub script: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether QEMU and a Linux guest for it are needed.
    pub linux_guest: bool,
    /// Further files for /job: name and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Job {
    /// A job without arguments.
    pub fn new(script: &str) -> Self {
        Job {
            script: script.to_owned(),
            ..Job::default()
        }
    }

    /// The archive that brings the job to L1.
    pub fn archive(&self) -> Result<Archive> {
        let mut archive = Archive::default();
        let path = Path::new(paths::JOBS).join(&self.script);
        let script = fs::read(&path).with_context(|| path.display().to_string())?;
        archive.file("/job/script", 0o755, script);

        for (name, contents) in &self.files {
            archive.file(&format!("/job/{name}"), 0o644, contents.clone());
        }

        let mut run = String::from("#!/bin/sh\nexec /job/script");
        for argument in &self.arguments {
            run.push_str(&format!(" '{}'", argument.replace('\'', r"'\''")));
        }
        run.push('\n');
        archive.file("/job/run", 0o755, run);
        Ok(archive)
    }
}
