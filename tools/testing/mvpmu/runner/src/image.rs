// SPDX-License-Identifier: GPL-2.0

//! The initial root file system of L1, and that of its Linux guest.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;

use crate::cpio::Archive;
use crate::job::Job;
use crate::machine::Boot;
use crate::paths;
use crate::paths::Kernel;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "/lib/x86_64-linux-gnu";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const PERF: &str = "/usr/bin/perf";

/// The monolithic daemon of libvirt, and what talks to it.
const LIBVIRT: [&str; 2] = ["/usr/sbin/libvirtd", "/usr/bin/virsh"];
/// The daemon's driver, which it loads.
const LIBVIRT_DRIVER: &str =
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so";
const CPU_MAP: &str = "/usr/share/libvirt/cpu_map";

/// What QEMU loads for a q35 machine without a display that boots a kernel.
const FIRMWARE: [&str; 3] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
];

/// Writes the initial root file system of L1 to `to`: programs, modules and
/// selftests; the Linux guests, perf, the tools for hosts and every selftest when the job wants them, and the job.
pub fn write(boot: &Boot, job: Option<&Job>, to: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(to)?);
    let kernel = boot.kernel;
    base(boot)?.write(&mut out)?;
    // For somebody's own kernel ours need not be there.
    let is_built = !boot.given.is_any() || kernel.product("release").exists();
    if is_built && job.is_none_or(|job| job.linux_guest) {
        guest(kernel)?.write(&mut out)?;
    }
    if is_built && job.is_none_or(|job| job.host_tools) {
        host_tools(kernel)?.write(&mut out)?;
    }
    if let Some(job) = job.filter(|job| is_built && job.perf) {
        perf(job.linux_guest)?.write(&mut out)?;
    }
    if is_built && job.is_some_and(|job| job.libvirt) {
        libvirt()?.write(&mut out)?;
    }
    if job.is_some_and(|job| job.every_selftest) {
        let mut archive = Archive::default();
        let every = Path::new(paths::EVERY_SELFTEST);
        copy_directory(&mut archive, "/selftests/every", every)?;
        archive.write(&mut out)?;
    }
    if let Some(job) = job {
        job.archive(kernel)?.write(&mut out)?;
    }
    out.flush()?;
    Ok(())
}

/// Adds a file.
pub fn copy(archive: &mut Archive, path: &str, from: &Path) -> Result<()> {
    archive
        .copy(path, from)
        .with_context(|| from.display().to_string())
}

fn copy_directory(archive: &mut Archive, path: &str, from: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{path}/{}", name.to_string_lossy());
        copy(archive, &path, &entry.path())?;
    }
    Ok(())
}

/// Adds a dynamically linked program and the libraries it is linked with.
fn program(archive: &mut Archive, path: &str, from: &Path) -> Result<()> {
    copy(archive, path, from)?;
    for library in libraries(from)? {
        let real = fs::canonicalize(&library)?;
        copy(archive, &library.to_string_lossy(), &real)?;
    }
    Ok(())
}

fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new(LOADER).arg("--list").arg(program).output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)"
    Ok(String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// A system that runs a job.
pub fn system() -> Result<Archive> {
    let mut archive = Archive::default();
    let source = Path::new(paths::INITRAMFS);

    archive.character_device("/dev/console", 5, 1);
    copy(&mut archive, "/bin/busybox", Path::new("/usr/bin/busybox"))?;
    archive.symlink("/bin/sh", "busybox");
    archive.file("/etc/passwd", 0o644, "root::0:0:root:/tmp:/bin/sh\n");
    for library in ["tap.sh", "branches.sh"] {
        copy(
            &mut archive,
            &format!("/lib/{library}"),
            &source.join(library),
        )?;
    }
    copy(&mut archive, "/init", &source.join("init"))?;
    copy(&mut archive, "/bin/kernel-log", &paths::tool("kernel-log"))?;
    Ok(archive)
}

/// The scripts and programs with which KVM is loaded and unloaded.
pub fn loaders(archive: &mut Archive) -> Result<()> {
    let source = Path::new(paths::INITRAMFS);
    for script in ["load-kvm", "unload-kvm", "load-provider"] {
        copy(archive, &format!("/bin/{script}"), &source.join(script))?;
    }
    copy(archive, "/bin/load-module", &paths::tool("load-module"))
}

/// The selftests need the C library; pthread_cancel() loads libgcc_s. KVM's of Linux 7.3 are linked
/// with libuuid.
pub fn c_library(archive: &mut Archive) -> Result<()> {
    for library in [LOADER, "libc.so.6", "libgcc_s.so.1", "libuuid.so.1"] {
        let path = Path::new(LIBRARIES).join(library);
        let real = fs::canonicalize(&path)?;
        copy(archive, &path.to_string_lossy(), &real)?;
    }
    Ok(())
}

fn base(boot: &Boot) -> Result<Archive> {
    let mut archive = system()?;

    loaders(&mut archive)?;
    let guest = Path::new(paths::INITRAMFS).join("linux-guest");
    copy(&mut archive, "/bin/linux-guest", &guest)?;
    for tool in ["port", "count", "bare-guest", "sampling"] {
        copy(&mut archive, &format!("/bin/{tool}"), &paths::tool(tool))?;
    }
    for test in ["exact_test", "lbr_test", "register_test", "sampling_test"] {
        let path = format!("/selftests/machine/{test}");
        copy(&mut archive, &path, &paths::tool(test))?;
    }
    copy(
        &mut archive,
        "/selftests/machine/in-l1.sh",
        Path::new(paths::MACHINE_TESTS),
    )?;
    let built = boot.kernel.product("modules");
    let modules = match &boot.given.kernel {
        Some(_) => boot.given.modules.as_ref(),
        None => Some(&built),
    };
    if let Some(directory) = modules {
        copy_directory(&mut archive, "/modules", directory)?;
    }
    for suite in ["kvm", "mvpmu"] {
        let directory = Path::new(paths::SELFTESTS).join(suite);
        if boot.given.is_any() && !directory.exists() {
            continue;
        }
        copy_directory(&mut archive, &format!("/selftests/{suite}"), &directory)?;
    }
    c_library(&mut archive)?;
    Ok(archive)
}

/// What a guest does: the job traces, if its command line has that word, else the test of perf.
const IN_GUEST: &str = "\
#!/bin/sh
! grep -qw traces /proc/cmdline || exec traces
exec perf-test
";

/// Debian's perf, and the test of it; in L1, and also for a Linux guest of it.
fn perf(for_guest: bool) -> Result<Archive> {
    let source = Path::new(paths::INITRAMFS);
    let add_test = |archive: &mut Archive| {
        program(archive, PERF, Path::new(PERF))?;
        copy(archive, "/bin/counted", &paths::tool("counted"))?;
        copy(archive, "/bin/perf-test", &source.join("perf-test"))
    };
    let mut archive = Archive::default();
    add_test(&mut archive)?;
    if !for_guest {
        return Ok(archive);
    }
    let mut initrd = system()?;
    add_test(&mut initrd)?;
    copy(&mut initrd, "/bin/port", &source.join("guest-port"))?;
    let calls = "/selftests/machine/lbr_test";
    copy(&mut initrd, calls, &paths::tool("lbr_test"))?;
    initrd.file("/job/run", 0o755, IN_GUEST);
    copy(
        &mut initrd,
        "/bin/traces",
        &Path::new(paths::JOBS).join("traces"),
    )?;
    copy(&mut initrd, "/job/image", &paths::tool("traced"))?;
    let mut bytes = Vec::new();
    initrd.write(&mut bytes)?;

    archive.file("/guest/perf-initrd", 0o644, bytes);
    Ok(archive)
}

/// The tools, and the kernel's configuration where they look for it.
fn host_tools(kernel: Kernel) -> Result<Archive> {
    let mut archive = Archive::default();
    for name in ["mvpmu-top", "mvpmu-check"] {
        copy(&mut archive, &format!("/bin/{name}"), &paths::tool(name))?;
    }
    let release = fs::read_to_string(kernel.product("release")).context("the kernel's release")?;
    let path = format!("/boot/config-{}", release.trim());
    copy(&mut archive, &path, &kernel.product("config"))?;
    Ok(archive)
}

fn guest(kernel: Kernel) -> Result<Archive> {
    let mut archive = Archive::default();
    program(&mut archive, QEMU, Path::new(QEMU))?;
    for file in FIRMWARE {
        copy(&mut archive, file, &fs::canonicalize(file)?)?;
    }
    copy(&mut archive, "/guest/bzImage", &kernel.product("bzImage"))?;
    for preload in ["qemu-branches.so", "qemu-pt.so"] {
        copy(
            &mut archive,
            &format!("/lib/{preload}"),
            &paths::tool(preload),
        )?;
    }

    let mut initrd = Archive::default();
    initrd.character_device("/dev/console", 5, 1);
    copy(&mut initrd, "/init", &paths::tool("count"))?;
    for program in ["rounds", "sampling"] {
        copy(&mut initrd, &format!("/{program}"), &paths::tool(program))?;
    }
    let mut bytes = Vec::new();
    initrd.write(&mut bytes)?;
    archive.file("/guest/initrd", 0o644, bytes);
    Ok(archive)
}

/// Debian's libvirt, with the driver of QEMU.
fn libvirt() -> Result<Archive> {
    let mut archive = Archive::default();
    for path in LIBVIRT {
        program(&mut archive, path, Path::new(path))?;
    }
    program(&mut archive, LIBVIRT_DRIVER, Path::new(LIBVIRT_DRIVER))?;
    copy_directory(&mut archive, CPU_MAP, Path::new(CPU_MAP))?;
    Ok(archive)
}
