// SPDX-License-Identifier: GPL-2.0

//! The stick: the FAT file system that holds a directory for reports. Nothing else is written to.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use rustix::mount::mount;
use rustix::mount::unmount;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

/// The directory.
pub const MARKER: &str = "mvpmu";

/// How long USB may take to find what is plugged in.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long no disk has appeared, when all that are there are known. USB storage is asked after a second.
const QUIET: Duration = Duration::from_secs(3);

const POINT: &str = "/run/stick";
const OPTIONS: &std::ffi::CStr = c"codepage=437,iocharset=ascii,errors=remount-ro";

/// What was found.
pub enum Search {
    /// The stick.
    Found(Stick),
    /// None.
    Nothing,
    /// More than one: which is meant?
    Ambiguous(Vec<String>),
}

/// Looks for it, for a while: of two disks that are marked one must not win as it was found first.
pub fn search() -> Search {
    let begin = Instant::now();
    let mut known = devices();
    let mut since = begin;
    while begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(200));
        let now = devices();
        if now != known {
            known = now;
            since = Instant::now();
        }
        if since.elapsed() >= QUIET && known.iter().any(|name| is_marked(name)) {
            break;
        }
    }
    let mut found: Vec<_> = known.into_iter().filter(|name| is_marked(name)).collect();
    match found.len() {
        0 => Search::Nothing,
        1 => Search::Found(Stick {
            device: found.remove(0),
            number: None,
        }),
        _ => Search::Ambiguous(found),
    }
}

/// Disks and partitions.
fn devices() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !["loop", "ram", "zram"]
                .iter()
                .any(|other| name.starts_with(other))
        })
        .collect();
    names.sort();
    names
}

/// Does something with the file system on a device, if there is one.
fn mounted<T>(device: &str, flags: MountFlags, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    fs::create_dir_all(POINT)?;
    let flags = flags | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(format!("/dev/{device}"), POINT, "vfat", flags, OPTIONS)?;
    let result = work(Path::new(POINT));
    unmount(POINT, UnmountFlags::empty())?;
    result
}

fn is_marked(device: &str) -> bool {
    let quietly = MountFlags::RDONLY | MountFlags::SILENT;
    mounted(device, quietly, |root| Ok(root.join(MARKER).is_dir())).unwrap_or(false)
}

/// The stick.
pub struct Stick {
    /// The device.
    pub device: String,
    /// That of the report, once it is there.
    number: Option<u32>,
}

impl Stick {
    /// Writes the report as JSON and as text, over what this run has written before, and gives the name
    /// of the former. In between the stick may be pulled out.
    pub fn write(&mut self, json: &str, text: &str) -> Result<String> {
        let number = &mut self.number;
        mounted(&self.device, MountFlags::SYNCHRONOUS, |root| {
            let directory = root.join(MARKER);
            let number = *number.get_or_insert_with(|| free_number(&directory));
            replace(&directory.join(name(number, "txt")), text)?;
            replace(&directory.join(name(number, "json")), json)?;
            Ok(format!("{MARKER}/{}", name(number, "json")))
        })
        .with_context(|| self.device.clone())
    }
}

fn name(number: u32, extension: &str) -> String {
    format!("report-{number}.{extension}")
}

/// That of the report after the last one.
fn free_number(directory: &Path) -> u32 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let number = name.strip_prefix("report-")?;
        number.split('.').next()?.parse::<u32>().ok()
    });
    numbers.max().unwrap_or(0).saturating_add(1)
}

/// The old one is there until the new one is complete.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = PathBuf::from(format!("{}.new", path.display()));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail when the number is that of how many there are.
    #[test]
    fn no_report_is_overwritten_by_another_run() {
        let directory = std::env::temp_dir().join(format!("mvpmu-stick-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        assert_eq!(free_number(&directory), 1);
        for name in [
            "REPORT-7.TXT",
            "report-2.json",
            "other-9.json",
            "report-x.json",
        ] {
            fs::write(directory.join(name), "").expect("a file");
        }
        assert_eq!(free_number(&directory), 8);
        replace(&directory.join("report-2.json"), "new").expect("it is replaced");
        assert_eq!(
            fs::read_to_string(directory.join("report-2.json")).expect("it is there"),
            "new"
        );
        assert_eq!(fs::read_dir(&directory).expect("it is there").count(), 4);
        fs::remove_dir_all(&directory).expect("it is there");
    }
}
