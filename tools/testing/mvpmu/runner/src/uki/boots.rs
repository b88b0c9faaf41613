// SPDX-License-Identifier: GPL-2.0

//! Boots as a person sees them: firmware, disks, a screen, and a key that is pressed in the end.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::disk::Disk;
use crate::boot;
use crate::boot::Dialogue;
use crate::machine::Boot;
use crate::machine::Files;
use crate::machine::Machine;
use crate::machine::RESET;
use crate::paths;
use crate::tap::Case;

const LIMIT: Duration = Duration::from_secs(1800);

/// The answer to what the survey asks in the end: Enter is "power off". Before, perhaps, the picture on the
/// screen is taken: Ctrl-A C is the way from the console to QEMU's monitor and back.
fn farewell(picture: Option<&Path>) -> Dialogue {
    let taken = picture.map_or(String::new(), |path| {
        format!("\x01cscreendump {}\n\x01c", path.display())
    });
    Dialogue {
        prompt: "power off after 10 minutes",
        answer: format!("{taken}\n"),
    }
}

/// What came of a boot.
pub struct Ended {
    /// What Enter does with the machine, and whether it has.
    how: &'static str,
    off: bool,
    /// What the console showed.
    pub console: String,
    path: PathBuf,
}

impl Ended {
    /// That it did.
    pub fn went_off(&self) -> Case {
        Case::new(self.how, self.off, || {
            format!("see {}", self.path.display())
        })
    }

    /// That the console showed a text.
    pub fn says(&self, name: &str, text: &str) -> Case {
        Case::new(name, self.console.contains(text), || {
            format!("no \"{text}\" in {}", self.path.display())
        })
    }
}

/// Boots a machine; with more options for the AMD machine, of whose screen a picture may be taken.
pub fn run(
    boot: &Boot,
    files: &Files,
    options: &[String],
    picture: Option<&Path>,
    directory: &Path,
) -> Result<Ended> {
    paths::require(&boot.machine.needs())?;
    let mut command = boot.machine.command(boot, files);
    command.args(options);
    let status = boot::attended(&mut command, farewell(picture), directory, LIMIT)?;
    let path = directory.join("console");
    let console = fs::read(&path)?;
    // A machine that restarts ends, too: what Linux says of it is another thing.
    let (how, status_when_off, said) = match boot.machine {
        Machine::Amd => ("Enter powers the machine off", 0, "reboot: Power down"),
        Machine::Intel => (
            "Enter halts the machine, which has no ACPI to go off",
            RESET,
            "reboot: Power off not available: System halted",
        ),
    };
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    let ended = status.and_then(|status| status.code()) == Some(status_when_off);
    Ok(Ended {
        how,
        off: ended && console.contains(said),
        console,
        path,
    })
}

/// The files of a boot, in a directory.
pub fn files(kernel: Option<PathBuf>, initrd: Option<PathBuf>, directory: &Path) -> Files {
    Files {
        kernel,
        initrd,
        data: directory.join("data"),
        stats: directory.join("stats"),
    }
}

/// The options for a disk on USB.
pub fn on_usb(disk: &Disk) -> [String; 6] {
    [
        "-device".to_owned(),
        "qemu-xhci".to_owned(),
        "-drive".to_owned(),
        format!("if=none,id=stick,format=raw,file={}", disk.path()),
        "-device".to_owned(),
        "usb-storage,drive=stick".to_owned(),
    ]
}

/// Those for one that is not.
pub fn built_in(disk: &Disk) -> [String; 4] {
    [
        "-drive".to_owned(),
        format!("if=none,id=disk,format=raw,file={}", disk.path()),
        "-device".to_owned(),
        "virtio-blk-pci,drive=disk".to_owned(),
    ]
}

/// As a PC has it: a screen, the stick and a disk; nothing is handed to the kernel but what
/// QEMU's time needs (see `command_line()` in machine.rs), which the stub takes from SMBIOS.
pub fn pc(stick: &Disk, disk: &Disk) -> Vec<String> {
    let mut options = vec![
        "-device".to_owned(),
        "VGA".to_owned(),
        "-smbios".to_owned(),
        "type=11,value=io.systemd.stub.kernel-cmdline-extra=no_timer_check tsc=reliable".to_owned(),
    ];
    options.extend(on_usb(stick));
    options.extend(built_in(disk));
    options
}
