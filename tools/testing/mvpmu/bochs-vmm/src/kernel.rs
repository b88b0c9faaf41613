// SPDX-License-Identifier: GPL-2.0

//! The file of a kernel: vmlinux, an ELF file, or bzImage (Documentation/arch/x86/boot.rst).

use std::ops::Range;
use std::path::Path;

use object::elf;
use object::read::elf::ElfFile64;
use object::Object;
use object::ObjectSegment;
use object::ObjectSymbol;
use object::SymbolKind;
use pmu_model::oracle::is_branch_function;
use pmu_model::oracle::loads_trace;
use pmu_model::oracle::saves_trace;
use pmu_model::oracle::TraceFunctions;

/// The "zero page", by which Linux is told about the machine: `struct boot_params`, byte for byte.
pub struct ZeroPage([u8; 4096]);

/// Fields of the zero page. Those of the setup header are at the same offsets in a bzImage.
mod field {
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const BOOT_FLAG: usize = 0x1fe;
    /// One byte: how long the header is from the next one on.
    pub const HEADER_LENGTH: usize = 0x201;
    pub const HEADER: usize = 0x202;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const INIT_SIZE: usize = 0x260;
    pub const E820_TABLE: usize = 0x2d0;
}

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// No registered boot loader.
const LOADER_UNDEFINED: u8 = 0xff;
/// `xloadflags`: there is a 64-bit entry.
const KERNEL_64: u8 = 1;
/// Where that is, from the beginning of what is loaded.
const ENTRY_64: u64 = 0x200;
const SECTOR: usize = 512;

/// What the memory map says of a range.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Kind {
    Ram = 1,
    Reserved = 2,
}

impl ZeroPage {
    fn new() -> ZeroPage {
        let mut page = ZeroPage([0; 4096]);
        page.set(field::BOOT_FLAG, &BOOT_FLAG.to_le_bytes());
        page.set(field::HEADER, &HEADER_MAGIC.to_le_bytes());
        page.set(field::KERNEL_ALIGNMENT, &0x20_0000_u32.to_le_bytes());
        page
    }

    /// With the setup header of a bzImage.
    fn of(image: &[u8]) -> Option<ZeroPage> {
        let mut page = ZeroPage::new();
        let end = field::HEADER + usize::from(*image.get(field::HEADER_LENGTH)?);
        page.set(field::SETUP_SECTS, image.get(field::SETUP_SECTS..end)?);
        Some(page)
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn dword(&self, offset: usize) -> u32 {
        let bytes = &self.0[offset..offset + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Says where the command line is, and how long without its end.
    pub fn set_cmdline(&mut self, address: u32, len: u32) {
        self.set(field::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        self.set(field::CMD_LINE_PTR, &address.to_le_bytes());
        self.set(field::CMDLINE_SIZE, &len.to_le_bytes());
    }

    /// Says where the initial root file system is.
    pub fn set_ramdisk(&mut self, address: u32, len: u32) {
        self.set(field::RAMDISK_IMAGE, &address.to_le_bytes());
        self.set(field::RAMDISK_SIZE, &len.to_le_bytes());
    }

    /// Says what memory there is: from, to, kind.
    pub fn set_map(&mut self, map: &[(u64, u64, Kind)]) {
        self.set(field::E820_ENTRIES, &[map.len() as u8]);
        for (n, &(from, to, kind)) in map.iter().enumerate() {
            let at = field::E820_TABLE + 20 * n;
            self.set(at, &from.to_le_bytes());
            self.set(at + 8, &(to - from).to_le_bytes());
            self.set(at + 16, &(kind as u32).to_le_bytes());
        }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A kernel, and what it wants.
pub struct Kernel<'a> {
    /// What is to be loaded, and where.
    pub parts: Vec<(u64, &'a [u8])>,
    /// The 64-bit entry.
    pub entry: u64,
    /// The end of what it uses before it looks at the memory map.
    pub end: u64,
    /// With its setup header.
    pub zero_page: ZeroPage,
    /// The code of its functions that save and load last branch records of guests, if it has symbols.
    pub branch_functions: Vec<Range<u64>>,
    /// That of those for traces of guests.
    pub trace_functions: TraceFunctions,
}

impl<'a> Kernel<'a> {
    /// The kernel in `file`; a bzImage is to be loaded at `start`.
    pub fn parse(file: &'a [u8], path: &Path, start: u64) -> Result<Kernel<'a>, String> {
        let kernel = if file.starts_with(&elf::ELFMAG) {
            Kernel::vmlinux(file)
        } else {
            Kernel::bzimage(file, start)
        };
        kernel.map_err(|e| format!("{}: cannot load this kernel: {e}", path.display()))
    }

    fn vmlinux(file: &'a [u8]) -> Result<Kernel<'a>, String> {
        let image = ElfFile64::<object::Endianness>::parse(file).map_err(|e| e.to_string())?;
        let endian = image.endian();
        let mut kernel = Kernel {
            parts: Vec::new(),
            entry: image.entry(),
            end: 0,
            zero_page: ZeroPage::new(),
            branch_functions: functions(&image, is_branch_function),
            trace_functions: TraceFunctions {
                load: functions(&image, loads_trace).into(),
                save: functions(&image, saves_trace).into(),
            },
        };
        for segment in image.segments() {
            let header = segment.elf_program_header();
            let address = header.p_paddr.get(endian);
            let bytes = segment.data().map_err(|e| e.to_string())?;
            kernel.parts.push((address, bytes));
            kernel.end = kernel.end.max(address + segment.size());
        }
        if kernel.parts.is_empty() {
            return Err("it has no segment to load".into());
        }
        Ok(kernel)
    }

    fn bzimage(file: &'a [u8], start: u64) -> Result<Kernel<'a>, String> {
        let zero_page = ZeroPage::of(file)
            .filter(|page| {
                page.dword(field::HEADER) == HEADER_MAGIC
                    && page.0[field::XLOADFLAGS] & KERNEL_64 != 0
            })
            .ok_or("it is neither an ELF file nor a bzImage with a 64-bit entry")?;
        let sectors = match zero_page.0[field::SETUP_SECTS] {
            0 => 4,
            n => usize::from(n),
        };
        let code = file.get((1 + sectors) * SECTOR..).ok_or("it is cut off")?;
        // It unpacks itself: it needs room beyond its end.
        let room = u64::from(zero_page.dword(field::INIT_SIZE)).max(code.len() as u64);
        Ok(Kernel {
            parts: vec![(start, code)],
            entry: start + ENTRY_64,
            end: start + room,
            zero_page,
            branch_functions: Vec::new(),
            trace_functions: TraceFunctions::default(),
        })
    }
}

/// The code of the functions whose names are such.
fn functions<'a>(image: &impl Object<'a>, is_such: impl Fn(&str) -> bool) -> Vec<Range<u64>> {
    image
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.name().is_ok_and(&is_such))
        .map(|symbol| symbol.address()..symbol.address() + symbol.size())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x10_0000;

    // Break: take all symbols, or the end for the length.
    #[test]
    fn functions_are_found_by_their_names() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let image = ElfFile64::<object::Endianness>::parse(&*file).unwrap();
        let all = functions(&image, |_| true);
        let found = functions(&image, |name| name.contains("functions_are_found"));
        assert!(!found.is_empty() && found.len() < all.len());
        let lengths = found.iter().map(|code| code.end - code.start);
        assert!(lengths.into_iter().all(|length| length < 0x1_0000));
    }

    /// A bzImage of two sectors of setup and 100 bytes of code, with room for 4096.
    fn bzimage() -> Vec<u8> {
        let mut file = vec![0; 3 * SECTOR];
        file.resize(file.len() + 100, 0x90);
        file[field::SETUP_SECTS] = 2;
        file[field::HEADER_LENGTH] = 0x6a;
        file[field::HEADER..][..4].copy_from_slice(b"HdrS");
        file[field::XLOADFLAGS] = KERNEL_64;
        file[field::INIT_SIZE + 1] = 0x10;
        file[field::KERNEL_ALIGNMENT] = 7;
        file
    }

    fn parse(file: &[u8]) -> Result<Kernel<'_>, String> {
        Kernel::parse(file, Path::new("kernel"), START)
    }

    // Break: load the setup code, forget init_size, or make the header up.
    #[test]
    fn a_bzimage_is_loaded_behind_its_setup_code() {
        let file = bzimage();
        let kernel = parse(&file).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(kernel.parts, [(START, &[0x90; 100][..])]);
        assert_eq!((kernel.entry, kernel.end), (START + 0x200, START + 4096));
        assert_eq!(kernel.zero_page.dword(field::KERNEL_ALIGNMENT), 7);
    }

    // Break: take any file for a bzImage.
    #[test]
    fn what_is_no_kernel_is_refused() {
        let mut old = bzimage();
        old[field::XLOADFLAGS] = 0;
        let mut cut = bzimage();
        cut.truncate(3 * SECTOR - 1);
        for file in [&b""[..], b"\x7fELF", &[0; 4096], &old, &cut] {
            assert!(parse(file).is_err_and(|e| e.starts_with("kernel: cannot load this kernel: ")));
        }
    }

    // Break: any offset, or the end of a range where its length belongs.
    #[test]
    fn the_zero_page_is_as_the_protocol_has_it() {
        let mut page = ZeroPage::new();
        page.set_cmdline(0x2_0000, 5);
        page.set_ramdisk(0x700_0000, 9);
        page.set_map(&[
            (0, 0x9_fc00, Kind::Ram),
            (0xf_0000, 0x10_0000, Kind::Reserved),
        ]);
        let dwords: Vec<_> = [
            0x218, 0x21c, 0x228, 0x238, 0x2d8, 0x2e0, 0x2e4, 0x2ec, 0x2f4,
        ]
        .map(|offset| page.dword(offset))
        .into();
        assert_eq!(
            dwords,
            [0x700_0000, 9, 0x2_0000, 5, 0x9_fc00, 1, 0xf_0000, 0x1_0000, 2]
        );
        assert_eq!((page.bytes()[0x1e8], page.bytes()[0x210]), (2, 0xff));
    }
}
