// SPDX-License-Identifier: GPL-2.0

//! `make image`: one file that a machine's firmware boots, a Unified Kernel Image: kernel, initial root
//! file system and command line. What runs in it is the crate `survey`.

mod boots;
mod disk;
mod drivers;
mod test;

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::cpio::Archive;
use crate::image;
use crate::paths;
use crate::paths::Kernel;

pub use self::test::on_amd;
pub use self::test::on_amd_that_is_unable;
pub use self::test::on_intel;

/// Where it comes to.
const DIRECTORY: &str = "build/image";
const NAME: &str = "mvpmu.efi";

/// What begins it: it hands kernel and root file system over, as firmware does not.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// The survey talks on both consoles; the kernel only when it cannot go on.
const COMMAND_LINE: &str = "console=ttyS0,115200 console=tty0 loglevel=3";

/// Devices that a person at a machine needs: screen, keyboard, the stick, and disks of virtual machines.
const DRIVERS: [&str; 13] = [
    "simpledrm",
    "i8042",
    "atkbd",
    "xhci-pci",
    "usbhid",
    "hid-generic",
    "usb-storage",
    "sd_mod",
    "virtio_pci",
    "virtio_blk",
    "nls_cp437",
    "nls_ascii",
    "vfat",
];

/// What the survey loads and unloads.
const KVM: [&str; 3] = ["kvm-amd", "kvm-intel", "mvpmu"];

/// Makes it, of the kernel with this configuration.
pub fn make(config: &str) -> Result<()> {
    match config {
        "small" => {}
        "amd64" | "cloud" => bail!(
            "CONFIG={config}: the image is made of the kernel of make kernel, CONFIG=small; with Debian's \
             configuration there are only packages (make deb)"
        ),
        other => bail!("CONFIG={other}: there are small, cloud and amd64"),
    }
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory)?;
    build(directory)?;
    println!("{}", directory.join(NAME).display());
    Ok(())
}

/// The root file system: what a job has, too, of what the survey needs.
fn root_file_system(kernel: Kernel, part: &Path) -> Result<Archive> {
    let mut archive = image::system()?;
    image::loaders(&mut archive)?;
    image::c_library(&mut archive)?;
    for tool in ["mvpmu-survey", "mvpmu-check"] {
        stripped(
            &mut archive,
            &format!("/bin/{tool}"),
            &paths::tool(tool),
            part,
        )?;
    }
    let selftests = Path::new(paths::SELFTESTS).join("mvpmu");
    for entry in fs::read_dir(selftests)? {
        let entry = entry?;
        let path = format!("/selftests/mvpmu/{}", entry.file_name().to_string_lossy());
        stripped(&mut archive, &path, &entry.path(), part)?;
    }
    let modules = kernel.product("modules");
    let drivers = drivers::in_order(&modules, &DRIVERS)?;
    for name in drivers.iter().chain(&drivers::in_order(&modules, &KVM)?) {
        image::copy(
            &mut archive,
            &format!("/modules/{name}"),
            &modules.join(name),
        )?;
    }
    let drivers = drivers.iter().map(|name| format!("/modules/{name}\n"));
    archive.file("/image/drivers", 0o644, drivers.collect::<String>());
    let release = fs::read_to_string(kernel.product("release"))?;
    let config = format!("/boot/config-{}", release.trim());
    image::copy(&mut archive, &config, &kernel.product("config"))?;
    Ok(archive)
}

/// Adds a program without its symbols, which are most of it: firmware reads slowly. By way of the file
/// `part`.
fn stripped(archive: &mut Archive, path: &str, from: &Path, part: &Path) -> Result<()> {
    let output = Command::new("strip")
        .arg("-o")
        .args([part, from])
        .output()
        .context("strip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "strip: {said}");
    image::copy(archive, path, part)?;
    fs::remove_file(part)?;
    Ok(())
}

/// Writes the image, and the root file system that is in it, to a directory.
fn build(directory: &Path) -> Result<()> {
    let kernel = Kernel::Main;
    let bz_image = kernel.product("bzImage");
    paths::require(&[bz_image.clone(), paths::SELFTESTS.into(), STUB.into()])?;
    // What is not complete has another name.
    let part = directory.join("part");
    let initrd = directory.join("initrd.zst");
    compress(&root_file_system(kernel, &part)?, &initrd)?;
    let release = fs::read_to_string(kernel.product("release"))?;
    let os_release = format!(
        "ID=mvpmu\nNAME=mvpmu\nVERSION_ID={0}\nPRETTY_NAME=\"mvpmu {0}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let output = Command::new("ukify")
        .arg("build")
        .arg("--linux")
        .arg(&bz_image)
        .arg("--initrd")
        .arg(&initrd)
        .args(["--stub", STUB, "--cmdline", COMMAND_LINE])
        .args(["--uname", release.trim(), "--os-release", &os_release])
        .arg("--output")
        .arg(&part)
        .output()
        .context("ukify")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ukify: {said}");
    fs::rename(part, directory.join(NAME))?;
    Ok(())
}

/// A test machine unpacks faster than it reads from a stick, and so do others.
fn compress(archive: &Archive, to: &Path) -> Result<()> {
    let mut zstd = Command::new("zstd")
        .args(["-q", "-10", "-T1", "-c"])
        .stdin(Stdio::piped())
        .stdout(File::create(to)?)
        .spawn()
        .context("zstd")?;
    let mut input = zstd.stdin.take().context("zstd takes nothing")?;
    archive.write(&mut input)?;
    input.flush()?;
    drop(input);
    let status = zstd.wait()?;
    ensure!(status.success(), "zstd: {status}");
    Ok(())
}
