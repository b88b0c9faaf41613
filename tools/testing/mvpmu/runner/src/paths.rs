// SPDX-License-Identifier: GPL-2.0

//! Where things lie. The runner runs inside the root file system, with the
//! checkout as its current directory: all paths are relative to that.

use std::path::Path;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Result;

/// Sources of the initial root file system.
pub const INITRAMFS: &str = "tools/testing/mvpmu/initramfs";

/// Jobs for L1.
pub const JOBS: &str = "tools/testing/mvpmu/initramfs/jobs";

/// The script that runs the tests of the machine in L1.
pub const MACHINE_TESTS: &str = "tools/testing/mvpmu/machine-tests/in-l1.sh";

/// Programs built by `make tools`.
pub fn tool(name: &str) -> PathBuf {
    Path::new("build/tools").join(name)
}

/// The CPU core of the Intel machine.
pub const BOCHS: &str = "build/bochs/bochs.so";

/// The program that decodes traces of Intel PT.
pub const PT_FLOW: &str = "build/libipt/pt-flow";

/// KVM's selftests and ours.
pub const SELFTESTS: &str = "build/selftests";

/// All of KVM's selftests.
pub const EVERY_SELFTEST: &str = "build/every-selftest";

/// The module's object code, with static branches.
pub const STATIC_BRANCHES: &str = "build/static-branches/mvpmu.o";

/// Which build of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// As distributions have it.
    #[default]
    Main,
    /// With lockdep and assertions.
    Debug,
    /// The same with PREEMPT_RT.
    Rt,
    /// With the detector of data races.
    Kcsan,
    /// With a watch on each access of memory.
    Kasan,
    /// As `Main`, with deliberate bugs.
    Mutants,
}

impl Kernel {
    /// The variant of the build.
    pub fn variant(self) -> &'static str {
        match self {
            Kernel::Main => "main",
            Kernel::Debug => "debug",
            Kernel::Rt => "rt",
            Kernel::Kcsan => "kcsan",
            Kernel::Kasan => "kasan",
            Kernel::Mutants => "mutants",
        }
    }

    /// A product of the kernel build: bzImage, vmlinux, config, modules...
    pub fn product(self, name: &str) -> PathBuf {
        Path::new("build").join(self.variant()).join(name)
    }
}

/// Says what is missing before anything is started.
pub fn require(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        ensure!(
            path.exists(),
            "{} is missing: run make in the checkout",
            path.display()
        );
    }
    Ok(())
}
