// SPDX-License-Identifier: GPL-2.0

//! Linux by its 64-bit boot protocol (Documentation/arch/x86/boot.rst): kernel,
//! initrd, command line and zero page in memory, the CPU in long mode.

use std::ffi::CString;
use std::ops::Range;
use std::path::PathBuf;

use pmu_model::oracle::TraceFunctions;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;

use crate::core;
use crate::kernel::Kernel;
use crate::kernel::Kind;
use crate::layout::gpr;
use crate::mptable;

/// What Linux needs to be told about this machine: it has neither ACPI nor PCI,
/// and its TSC is the tick counter.
const MACHINE_CMDLINE: &str = "acpi=off pci=off nokaslr tsc=reliable";
/// COMMAND_LINE_SIZE of x86.
const CMDLINE_MAX: usize = 2048;

const GDT: u64 = 0x6000;
const ZERO_PAGE: u64 = 0x7000;
const STACK_TOP: u64 = 0x8ff0;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PAGE_DIRECTORIES: u64 = 0xb000;
const CMDLINE: u64 = 0x2_0000;
const LOW_MEMORY_END: u64 = 0x9_fc00;
const BIOS: u64 = 0xf_0000;
const HIGH_MEMORY: u64 = 0x10_0000;
const PAGE: u64 = 4096;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const CODE_DESCRIPTOR: u64 = 0x00af_9a00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9200_0000_ffff;
const CODE_ATTRIBUTES: u16 = 0xa09b;
const DATA_ATTRIBUTES: u16 = 0xc093;
const CR0: u32 = 0x8000_0033;
const CR4_PAE: u32 = 0x20;
const EFER_LME_LMA: u32 = 0x500;
const EFLAGS: u32 = 2;

/// What to boot.
#[derive(Debug, clap::Args)]
pub struct Boot {
    /// vmlinux or bzImage
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// cpio archives of the initial root file system, in order
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub initrd: Vec<PathBuf>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "STRING",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub append: String,
}

/// What is known of a kernel that is in memory.
pub struct Loaded {
    /// The entry point.
    pub entry: u64,
    /// The code of its functions that save and load last branch records of guests.
    pub branch_functions: Vec<Range<u64>>,
    /// That of those for traces of guests.
    pub trace_functions: TraceFunctions,
}

/// Puts everything into `memory` of a machine with so many CPUs.
pub fn load(boot: &Boot, cpus: usize, memory: &GuestMemoryMmap) -> Result<Loaded, String> {
    let shown = boot.kernel.display();
    let file =
        std::fs::read(&boot.kernel).map_err(|e| format!("cannot open the kernel {shown}: {e}"))?;
    let kernel = Kernel::parse(&file, &boot.kernel, HIGH_MEMORY)?;
    for &(address, bytes) in &kernel.parts {
        write(memory, address, bytes)?;
    }
    let (initrd, initrd_len) = load_initrds(&boot.initrd, memory, kernel.end)?;

    let cmdline = format!("{MACHINE_CMDLINE} {}", boot.append);
    if cmdline.len() >= CMDLINE_MAX {
        return Err(format!(
            "--append: the command line has {} characters, Linux takes {}",
            cmdline.len(),
            CMDLINE_MAX - 1
        ));
    }
    let cmdline = CString::new(cmdline).map_err(|_| "--append: has a null byte".to_string())?;
    write(memory, CMDLINE, cmdline.as_bytes_with_nul())?;

    let mut zero_page = kernel.zero_page;
    zero_page.set_cmdline(CMDLINE as u32, cmdline.as_bytes().len() as u32);
    zero_page.set_ramdisk(initrd as u32, initrd_len as u32);
    zero_page.set_map(&[
        (0, LOW_MEMORY_END, Kind::Ram),
        (BIOS, HIGH_MEMORY, Kind::Reserved),
        (HIGH_MEMORY, memory.last_addr().raw_value() + 1, Kind::Ram),
    ]);
    write(memory, ZERO_PAGE, zero_page.bytes())?;

    write(memory, mptable::ADDRESS, &mptable::build(cpus))?;
    write_tables(memory)?;
    Ok(Loaded {
        entry: kernel.entry,
        branch_functions: kernel.branch_functions,
        trace_functions: kernel.trace_functions,
    })
}

/// Puts the archives, one after the other, at the top of RAM.
fn load_initrds(
    paths: &[PathBuf],
    memory: &GuestMemoryMmap,
    kernel_end: u64,
) -> Result<(u64, u64), String> {
    let mut bytes = Vec::new();
    for path in paths {
        let archive = std::fs::read(path)
            .map_err(|e| format!("cannot read the initrd {}: {e}", path.display()))?;
        // An archive starts at a multiple of 4 (buffer-format.rst).
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(&archive);
    }
    if bytes.is_empty() {
        return Ok((0, 0));
    }
    let top = memory.last_addr().raw_value() + 1;
    let len = bytes.len() as u64;
    let start = top
        .checked_sub(len)
        .map(|start| start & !(PAGE - 1))
        .filter(|&start| start > kernel_end)
        .ok_or_else(|| {
            format!(
                "--mem: {} MiB are too few for the kernel and {} MiB of initrd",
                top >> 20,
                len >> 20
            )
        })?;
    write(memory, start, &bytes)?;
    Ok((start, len))
}

fn write(memory: &GuestMemoryMmap, address: u64, bytes: &[u8]) -> Result<(), String> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|e| format!("cannot write guest memory at {address:#x}: {e}"))
}

/// The GDT, and page tables that map 4 GiB one to one in 2 MiB pages.
fn write_tables(memory: &GuestMemoryMmap) -> Result<(), String> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let entry = |table: u64, n: u64, value: u64| write(memory, table + 8 * n, &value.to_le_bytes());
    entry(GDT, u64::from(CODE_SELECTOR) / 8, CODE_DESCRIPTOR)?;
    entry(GDT, u64::from(DATA_SELECTOR) / 8, DATA_DESCRIPTOR)?;
    entry(PML4, 0, PDPT | PRESENT_WRITABLE)?;
    for gib in 0..4 {
        let directory = PAGE_DIRECTORIES + gib * PAGE;
        entry(PDPT, gib, directory | PRESENT_WRITABLE)?;
        for n in 0..512 {
            entry(directory, n, gib << 30 | n << 21 | PRESENT_WRITABLE | LARGE)?;
        }
    }
    Ok(())
}

/// Puts the CPU into the state that the boot protocol asks for.
pub fn enter(entry: u64) {
    core::cpu_set_gdtr(0, GDT, 0x1f);
    core::cpu_set_cr3(0, PML4);
    core::cpu_set_cr4(0, CR4_PAE);
    core::cpu_set_efer(0, EFER_LME_LMA);
    core::cpu_set_cr0(0, CR0);
    // ES, CS, SS, DS, FS, GS.
    for segment in 0..6 {
        let (selector, attributes) = match segment {
            1 => (CODE_SELECTOR, CODE_ATTRIBUTES),
            _ => (DATA_SELECTOR, DATA_ATTRIBUTES),
        };
        core::cpu_set_seg(0, segment, 1, selector, 0, u32::MAX, attributes);
    }
    core::cpu_set_mode(0);
    core::cpu_set_eflags(0, EFLAGS);
    core::cpu_set_pc(0, entry);
    core::cpu_set_sp(0, STACK_TOP);
    core::cpu_set_reg64(0, gpr::RSI as u32, ZERO_PAGE);
}
