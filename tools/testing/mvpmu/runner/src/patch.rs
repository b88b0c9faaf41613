// SPDX-License-Identifier: GPL-2.0

//! Deliberate bugs of the C code of the series: instructions of a kernel that is built are others, in what is booted.
//!
//! A kernel for each bug would take minutes to link.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;
use object::Object;
use object::ObjectSection;
use object::ObjectSymbol;
use object::RelocationTarget;
use object::SectionIndex;
use object::SymbolKind;

/// What becomes of some instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This MSR is not written.
    NoWrite(u32),
    /// This function is not called.
    NoCall(&'static str),
    /// Nor is this, but has returned this.
    Returned(&'static str, u32),
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The file: "vmlinux", or a module.
    pub image: &'static str,
    /// Functions, in all of which it is.
    pub functions: &'static [&'static str],
    /// What it is.
    pub change: Change,
}

/// NOP of the length of WRMSR, and of CALL.
const NOP_2: [u8; 2] = [0x66, 0x90];
const NOP_5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// MOV EAX with a constant.
const MOV_EAX: u8 = 0xb8;
/// An entry of a table of relocations: offset, type and symbol, addend.
const RELOCATION: usize = 24;
/// ELF: the type of such tables.
const SHT_RELA: u32 = 4;

/// A function: its section, and where it is in the file and by its addresses.
struct Function {
    section: SectionIndex,
    file: usize,
    address: u64,
    size: usize,
}

fn find(image: &object::File<'_>, name: &str) -> Result<Function> {
    let mut symbols = image.symbols();
    let symbol = symbols
        .find(|symbol| symbol.kind() == SymbolKind::Text && symbol.name() == Ok(name))
        .with_context(|| format!("there is no function {name}"))?;
    let index = symbol.section_index().context("not in a section")?;
    let section = image.section_by_index(index)?;
    let (file, _) = section.file_range().context("not in the file")?;
    // A relocatable file has offsets in sections.
    let offset = symbol.address() - section.address();
    Ok(Function {
        section: index,
        file: usize::try_from(file + offset)?,
        address: symbol.address(),
        size: usize::try_from(symbol.size())?,
    })
}

/// The addresses of instructions that call a function of another image, in the section of this one: there are
/// relocations for them.
fn calls(image: &object::File<'_>, function: &Function, callee: &str) -> Result<Vec<u64>> {
    let section = image.section_by_index(function.section)?;
    let is_callee = |target| match target {
        RelocationTarget::Symbol(index) => image
            .symbol_by_index(index)
            .is_ok_and(|symbol| symbol.name() == Ok(callee)),
        _ => false,
    };
    Ok(section
        .relocations()
        .filter(|(_, relocation)| is_callee(relocation.target()))
        // The offset is behind the opcode.
        .map(|(offset, _)| offset - 1)
        .collect())
}

/// Leaves out the relocation of this place.
fn drop_relocation(data: &mut [u8], section: SectionIndex, offset: u64) -> Result<()> {
    let word = |data: &[u8], at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&data[at..at + len]);
        u64::from_le_bytes(bytes) as usize
    };
    // ELF-64: the table of sections, the length and number of its entries.
    let (table, len, number) = (word(data, 40, 8), word(data, 58, 2), word(data, 60, 2));
    for header in (0..number).map(|n| table + n * len) {
        let is_of = word(data, header + 4, 4) == SHT_RELA as usize
            && word(data, header + 44, 4) == section.0;
        if !is_of {
            continue;
        }
        let (begin, size) = (word(data, header + 24, 8), word(data, header + 32, 8));
        let mut entries = (begin..begin + size).step_by(RELOCATION);
        if let Some(entry) = entries.find(|entry| word(data, *entry, 8) as u64 == offset) {
            // R_X86_64_NONE.
            data[entry + 8..entry + 12].fill(0);
            return Ok(());
        }
    }
    anyhow::bail!("no relocation at {offset:#x}")
}

impl Patch {
    /// The file with the bug.
    pub fn applied(&self, path: &Path) -> Result<Vec<u8>> {
        let mut data = fs::read(path).with_context(|| path.display().to_string())?;
        for function in self.functions {
            let number = self
                .apply(&mut data, function)
                .with_context(|| format!("{}: {function}", self.image))?;
            ensure!(number > 0, "{}: {function} has no such thing", self.image);
        }
        Ok(data)
    }

    /// The same of one function. The result is how many instructions are others.
    fn apply(&self, data: &mut [u8], function: &str) -> Result<usize> {
        let (mut places, mut relocations) = (Vec::new(), Vec::new());
        let image = object::File::parse(&*data)?;
        let function = find(&image, function)?;
        let section = function.section;
        let (callee, with) = match self.change {
            Change::NoWrite(_) => (None, Vec::from(NOP_2)),
            Change::NoCall(callee) => (Some(callee), Vec::from(NOP_5)),
            Change::Returned(callee, value) => {
                let mut mov = vec![MOV_EAX];
                mov.extend(value.to_le_bytes());
                (Some(callee), mov)
            }
        };
        let away = match callee {
            Some(callee) => calls(&image, &function, callee)?,
            None => Vec::new(),
        };
        let here = callee.and_then(|callee| find(&image, callee).ok());
        let code = &data[function.file..][..function.size];
        let mut decoder = Decoder::with_ip(64, code, function.address, DecoderOptions::NONE);
        let mut msr = None;
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let at = instruction.ip();
            let is_it = match (self.change, instruction.mnemonic()) {
                (Change::NoWrite(number), Mnemonic::Wrmsr) => msr == Some(number),
                (Change::NoWrite(_), Mnemonic::Mov) => {
                    if instruction.op0_register() == Register::ECX {
                        let is_number = instruction.op1_kind() == OpKind::Immediate32;
                        msr = is_number.then(|| instruction.immediate32());
                    }
                    false
                }
                (_, Mnemonic::Call) => {
                    let target = instruction.near_branch_target();
                    away.contains(&at) || here.as_ref().is_some_and(|f| f.address == target)
                }
                _ => false,
            };
            if is_it {
                ensure!(instruction.len() == with.len(), "another encoding");
                places.push(function.file + usize::try_from(at - function.address)?);
                if away.contains(&at) {
                    relocations.push(at + 1);
                }
            }
        }
        for place in &places {
            data[*place..][..with.len()].copy_from_slice(&with);
        }
        for offset in relocations {
            drop_relocation(data, section, offset)?;
        }
        Ok(places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[no_mangle]
    #[inline(never)]
    extern "C" fn called_in_test_of_patch(value: u32) -> u32 {
        std::hint::black_box(value) + 1
    }

    #[no_mangle]
    #[inline(never)]
    extern "C" fn calling_in_test_of_patch(value: u32) -> u32 {
        called_in_test_of_patch(value) + called_in_test_of_patch(value + 1)
    }

    fn patch(change: Change) -> Patch {
        Patch {
            image: "",
            functions: &["calling_in_test_of_patch"],
            change,
        }
    }

    fn applied(change: Change) -> Result<Vec<u8>> {
        patch(change).applied(&std::env::current_exe().unwrap())
    }

    // Has to fail when a call of the function stays, or anything else becomes another.
    #[test]
    fn calls_of_a_function_are_others() {
        assert_eq!(calling_in_test_of_patch(1), 5);
        let before = fs::read(std::env::current_exe().unwrap()).unwrap();
        for (change, with) in [
            (Change::NoCall("called_in_test_of_patch"), NOP_5),
            (
                Change::Returned("called_in_test_of_patch", 0x0403_0201),
                [0xb8, 1, 2, 3, 4],
            ),
        ] {
            let after = applied(change).unwrap();
            let mut others = Vec::new();
            let mut at = 0;
            while at < before.len() {
                if before[at] == after[at] {
                    at += 1;
                    continue;
                }
                // CALL.
                assert_eq!((before[at], &after[at..at + 5]), (0xe8, &with[..]));
                others.push(at);
                at += 5;
            }
            assert_eq!(others.len(), 2, "{change:?}");
        }
    }

    // Has to fail when a bug that changes nothing passes for one.
    #[test]
    fn what_is_not_there_is_an_error() {
        for change in [
            Change::NoCall("calling_in_test_of_patch"),
            Change::NoCall("not_there"),
            Change::NoWrite(0x570),
        ] {
            let error = applied(change).unwrap_err().to_string();
            assert!(error.contains("no such thing"), "{error}");
        }
        let other = Patch {
            functions: &["not_there"],
            ..patch(Change::NoWrite(0x570))
        };
        assert!(other.applied(&std::env::current_exe().unwrap()).is_err());
    }
}
