// SPDX-License-Identifier: GPL-2.0

//! Disks with a partition for firmware, as files: an ordinary user cannot mount them, mtools need not.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

/// Large enough for the image.
const SIZE: u64 = 128 << 20;

/// Where the partition begins and ends: between the two copies of the partition table.
const BEGIN: u64 = 1 << 20;
const END: u64 = SIZE - (1 << 20);

/// A disk with one FAT file system.
pub struct Disk(PathBuf);

impl Disk {
    /// With a copy of what is in a directory.
    pub fn new(path: &Path, directory: &Path) -> Result<Self> {
        let disk = Disk(path.to_owned());
        File::create(path)?.set_len(SIZE)?;
        let table = format!(
            "label: gpt\nlabel-id: 00000000-0000-0000-0000-000000000000\nstart={}, size={}, type=U\n",
            BEGIN / 512,
            (END - BEGIN) / 512
        );
        let mut sfdisk = Command::new("sfdisk")
            .args(["--quiet", "--no-tell-kernel"])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .context("sfdisk")?;
        let mut input = sfdisk.stdin.take().context("sfdisk takes nothing")?;
        input.write_all(table.as_bytes())?;
        drop(input);
        ensure!(sfdisk.wait()?.success(), "sfdisk: {}", path.display());
        let sectors = ((END - BEGIN) / 512).to_string();
        disk.mtool(&["mformat", "-T", &sectors, "-h", "64", "-s", "32", "::"])?;
        for entry in fs::read_dir(directory)? {
            disk.mtool(&["mcopy", "-s", &entry?.path().to_string_lossy(), "::"])?;
        }
        Ok(disk)
    }

    /// One of mtools, on the partition.
    fn mtool(&self, words: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(words[0])
            .args(["-i", &format!("{}@@{BEGIN}", self.0.display())])
            .args(&words[1..])
            .output()
            .with_context(|| words[0].to_owned())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", words.join(" "));
        Ok(output.stdout)
    }

    /// The file.
    pub fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    /// All that is on it.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.0)?)
    }

    /// What is in a file of the file system.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.mtool(&["mtype", &format!("::{name}")])
    }
}
