// SPDX-License-Identifier: GPL-2.0

//! A job for L1: a script of `initramfs/jobs` with its arguments.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::cpio::Archive;
use crate::page;
use crate::paths;
use crate::paths::Kernel;

/// What L1 is to do.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The script: a file name in `initramfs/jobs`, or a path.
    pub script: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether QEMU and a Linux guest for it are needed.
    pub linux_guest: bool,
    /// Whether perf is needed, in L1 and in the Linux guest.
    pub perf: bool,
    /// Whether the tools for hosts are needed.
    pub host_tools: bool,
    /// Whether libvirt is needed, and the recipes of the page of hypervisors.
    pub libvirt: bool,
    /// Whether every selftest of KVM is needed, not only those that are run usually.
    pub every_selftest: bool,
    /// The name under which it needs mvpmu a second time: KVM's symbols are for modules of
    /// certain names only, and this one must not be loaded.
    pub second_provider: Option<&'static str>,
    /// A program that it runs as a guest, in place of a kernel.
    pub image: Option<PathBuf>,
    /// Files that it finds beside itself.
    pub files: Vec<PathBuf>,
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
    pub fn archive(&self, kernel: Kernel) -> Result<Archive> {
        let mut archive = Archive::default();
        let path = Path::new(paths::JOBS).join(&self.script);
        let script = fs::read(&path).with_context(|| path.display().to_string())?;
        archive.file("/job/script", 0o755, script);

        if let Some(name) = self.second_provider {
            let path = kernel.product("modules/mvpmu.ko");
            let module = fs::read(&path).with_context(|| path.display().to_string())?;
            archive.file("/job/second.ko", 0o644, renamed_module(&module, name)?);
        }

        if let Some(path) = &self.image {
            let image = fs::read(path).with_context(|| path.display().to_string())?;
            archive.file("/job/image", 0o644, image);
        }

        for path in &self.files {
            let content = fs::read(path).with_context(|| path.display().to_string())?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("/job/{name}"), 0o644, content);
        }

        if self.libvirt {
            for (name, text) in page::recipes()? {
                archive.file(&format!("/job/{name}"), 0o644, text);
            }
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

/// The module under another name, as a second provider.
fn renamed_module(module: &[u8], name: &str) -> Result<Vec<u8>> {
    // `name` in struct module: 56 bytes, the rest of them 0.
    let mut old = [0; 56];
    old[..5].copy_from_slice(b"mvpmu");
    let mut new = [0; 56];
    new[..name.len()].copy_from_slice(name.as_bytes());

    let places: Vec<_> = (0..module.len().saturating_sub(56))
        .filter(|&at| module[at..at + 56] == old)
        .collect();
    ensure!(
        places.len() == 1,
        "the name of the module is in {} places",
        places.len()
    );
    let mut renamed = module.to_vec();
    renamed[places[0]..places[0] + 56].copy_from_slice(&new);
    Ok(renamed)
}
