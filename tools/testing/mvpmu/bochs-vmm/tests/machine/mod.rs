// SPDX-License-Identifier: GPL-2.0

//! Runs guest programs on the machine.
//!
//! The programs are assembled into this test and copied out of it into an ELF
//! file that the machine loads as it would load a kernel.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// Where the image is loaded: where the machine would load Linux.
pub const LOAD_ADDRESS: u64 = 0x10_0000;
/// RAM of the machine in MiB.
const MEM: &str = "64";
/// No guest program takes as many instructions.
const LIMIT: &str = "100000000";

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status of the machine.
    pub status: i32,
    /// The values that the guest reported.
    pub values: Vec<u64>,
    /// The statistics.
    pub stats: serde_json::Value,
    /// What the machine said.
    pub stderr: String,
    /// Of each instruction that was executed while Intel PT was on: where, and whether by whom.
    #[allow(dead_code, reason = "only tests of Intel PT look at it")]
    pub flow: Vec<[u64; 2]>,
}

/// A guest program: the image from `start` to `end`, entered at `entry`.
pub struct Guest {
    pub start: *const u8,
    pub end: *const u8,
    pub entry: *const u8,
}

impl Guest {
    /// What lies in memory from the load address on.
    pub fn image(&self) -> &'static [u8] {
        let len = self.end as usize - self.start as usize;
        // SAFETY: The linker put the image between the two symbols.
        unsafe { std::slice::from_raw_parts(self.start, len) }
    }

    fn elf(&self) -> Vec<u8> {
        let image = self.image();
        let entry = LOAD_ADDRESS + (self.entry as u64 - self.start as u64);
        const HEADERS: u64 = 64 + 56;
        let mut elf = Vec::new();
        elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        for half in [2u16, 62] {
            elf.extend_from_slice(&half.to_le_bytes());
        }
        elf.extend_from_slice(&1u32.to_le_bytes());
        for word in [entry, 64, 0] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
        elf.extend_from_slice(&0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            elf.extend_from_slice(&half.to_le_bytes());
        }
        // PT_LOAD, readable, writable and executable.
        elf.extend_from_slice(&1u32.to_le_bytes());
        elf.extend_from_slice(&7u32.to_le_bytes());
        let len = image.len() as u64;
        for word in [HEADERS, LOAD_ADDRESS, LOAD_ADDRESS, len, len, 4096] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
        elf.extend_from_slice(image);
        elf
    }

    /// Runs it.
    pub fn run(&self, options: &[&str]) -> Outcome {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let core = std::env::var("MVPMU_BOCHS").expect("MVPMU_BOCHS names the Bochs core");
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "run-{}-{}",
            std::process::id(),
            RUNS.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let (kernel, stream, stats) = (dir.join("kernel"), dir.join("stream"), dir.join("stats"));
        let flow = dir.join("flow");
        std::fs::write(&kernel, self.elf()).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_bochs-vmm"))
            .args([
                "--bochs",
                &core,
                "--oracle",
                "off",
                "--mem",
                MEM,
                "--max-instructions",
                LIMIT,
            ])
            .arg("--kernel")
            .arg(&kernel)
            .arg("--stream")
            .arg(&stream)
            .arg("--stats")
            .arg(&stats)
            .arg("--flow")
            .arg(&flow)
            .args(options)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let words = |path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            let words = bytes.chunks_exact(8);
            let words = words.map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            words.collect::<Vec<_>>()
        };
        let flow = words(&flow);
        let values = words(&stream);
        let outcome = Outcome {
            status: output.status.code().expect("no signal ended the machine"),
            values,
            // A machine that could not start leaves an empty file.
            stats: match std::fs::read_to_string(&stats) {
                Ok(text) if !text.is_empty() => serde_json::from_str(&text).unwrap(),
                _ => serde_json::Value::Null,
            },
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            flow: flow
                .chunks_exact(2)
                .map(|entry| [entry[0], entry[1]])
                .collect(),
        };
        std::fs::remove_dir_all(&dir).unwrap();
        outcome
    }

    /// Runs it, and expects it to end cleanly; the result is what it reported.
    pub fn values(&self, options: &[&str]) -> Vec<u64> {
        let outcome = self.run(options);
        assert_eq!(outcome.status, 1, "{}", outcome.stderr);
        outcome.values
    }
}

/// Assembles the runtime and files of guest programs into this test, and makes a
/// function of each program's name.
macro_rules! guests {
    ($($file:literal),+: $($name:ident)*) => {
        std::arch::global_asm!(
            ".pushsection .rodata.guest, \"a\"",
            ".balign 4096",
            ".globl guest_image_start",
            "guest_image_start:",
            include_str!("guest/runtime.s"),
            $(include_str!($file),)+
            $(concat!(".globl ", stringify!($name)),)*
            ".globl guest_image_end",
            "guest_image_end:",
            ".popsection",
            options(att_syntax),
        );
        $(
            fn $name() -> $crate::machine::Guest {
                extern "C" {
                    static guest_image_start: u8;
                    static guest_image_end: u8;
                    #[link_name = stringify!($name)]
                    static ENTRY: u8;
                }
                $crate::machine::Guest {
                    start: &raw const guest_image_start,
                    end: &raw const guest_image_end,
                    entry: &raw const ENTRY,
                }
            }
        )*
    };
}
