// SPDX-License-Identifier: GPL-2.0

//! The functions of a kernel or module, and where each of them branches to.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use iced_x86::Register;
use object::Object;
use object::ObjectKind;
use object::ObjectSection;
use object::ObjectSymbol;
use object::RelocationKind;
use object::RelocationTarget;
use object::SectionIndex;
use object::SectionKind;
use object::SymbolKind;

/// A place in an image: in a module the index of the section and the offset in it, in a kernel, which
/// is linked, 0 and the address.
pub type Place = (usize, u64);

/// The section with what `static_cpu_has()` does until it has become a branch or a NOP.
const PATCHED: &str = ".altinstr_aux";

/// The section that says which instructions are static branches.
const STATIC_BRANCHES: &str = "__jump_table";

/// What a relocation puts in.
#[derive(Clone)]
enum Symbol {
    Here(Place),
    Elsewhere(String),
}

/// What an instruction does that is of interest here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A branch to another function of the image, call or jump.
    Branch(Place),
    /// The same, to a function of another image.
    BranchAway(String),
    /// The same, to where no function is.
    BranchNowhere,
    /// A branch to where a register or memory says.
    IndirectBranch,
    /// The address of a function is stored in memory, where a register points to, so far behind it.
    Store(Register, u64, Place),
    /// An access that is atomic for all CPUs, without which there is no lock.
    LockedAccess,
}

struct Function {
    /// All its names.
    names: Vec<String>,
    size: u64,
}

/// A kernel or module.
pub struct Image {
    /// What the file is called.
    pub name: String,
    functions: BTreeMap<Place, Function>,
    names: HashMap<String, Place>,
    /// The code, by section; the address of its first byte.
    code: BTreeMap<Place, Vec<u8>>,
    /// Sections to which only what the kernel patches at boot has branches.
    patched: Vec<(Place, u64)>,
    /// What the linker has left open in the code.
    relocations: HashMap<Place, (Symbol, i64)>,
    /// The static branches, of a module: where each is, and the symbol of its key.
    static_branches: BTreeMap<Place, String>,
}

/// Where the linker would put something into an instruction: what is immediate or relative comes last.
fn field_of(instruction: &Instruction) -> u64 {
    instruction.next_ip().wrapping_sub(4)
}

/// The static branches in a section of a module: in each 16 bytes the branch, where it leads, and the
/// key.
fn static_branches<'a>(
    file: &object::File<'a>,
    section: &object::Section<'a, '_>,
) -> Result<BTreeMap<Place, String>> {
    let relocations: BTreeMap<u64, _> = section.relocations().collect();
    let symbol = |offset: u64| {
        let relocation = relocations.get(&offset)?;
        match relocation.target() {
            RelocationTarget::Symbol(symbol) => {
                Some((file.symbol_by_index(symbol).ok()?, relocation.addend()))
            }
            _ => None,
        }
    };
    let mut branches = BTreeMap::new();
    for &offset in relocations.keys().filter(|&offset| offset % 16 == 0) {
        let (Some((code, addend)), Some((key, _))) = (symbol(offset), symbol(offset + 8)) else {
            bail!("{STATIC_BRANCHES}+{offset:#x} is no entry");
        };
        let index = code.section_index().context("a static branch elsewhere")?;
        let address = code.address().wrapping_add_signed(addend);
        branches.insert((index.0, address), key.name()?.to_owned());
    }
    Ok(branches)
}

impl Image {
    /// Reads an ELF file.
    pub fn new(name: &str, data: &[u8]) -> Result<Image> {
        let file = object::File::parse(data).with_context(|| name.to_owned())?;
        let linked = file.kind() != ObjectKind::Relocatable;
        let place = |section: SectionIndex, address| match linked {
            true => (0, address),
            false => (section.0, address),
        };
        let mut image = Image {
            name: name.to_owned(),
            functions: BTreeMap::new(),
            names: HashMap::new(),
            code: BTreeMap::new(),
            patched: Vec::new(),
            relocations: HashMap::new(),
            static_branches: BTreeMap::new(),
        };
        for symbol in file.symbols() {
            let (Some(section), SymbolKind::Text) = (symbol.section_index(), symbol.kind()) else {
                continue;
            };
            let at = place(section, symbol.address());
            let name = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
            let function = image.functions.entry(at).or_insert(Function {
                names: Vec::new(),
                size: 0,
            });
            function.size = function.size.max(symbol.size());
            function.names.push(name.clone());
            image.names.insert(name, at);
        }
        for section in file.sections() {
            if section.name()? == STATIC_BRANCHES {
                image.static_branches = static_branches(&file, &section)?;
            }
            if section.kind() != SectionKind::Text {
                continue;
            }
            let index = section.index();
            let begin = place(index, section.address());
            if section.name()? == PATCHED {
                image.patched.push((begin, section.size()));
            }
            image.code.insert(begin, section.data()?.to_vec());
            for (offset, relocation) in section.relocations() {
                let (
                    RelocationTarget::Symbol(symbol),
                    RelocationKind::Relative
                    | RelocationKind::PltRelative
                    | RelocationKind::Absolute,
                ) = (relocation.target(), relocation.kind())
                else {
                    continue;
                };
                let symbol = file.symbol_by_index(symbol)?;
                let target = match symbol.section_index() {
                    Some(section) => Symbol::Here(place(section, symbol.address())),
                    None => {
                        let name = rustc_demangle::demangle(symbol.name()?);
                        Symbol::Elsewhere(format!("{name:#}"))
                    }
                };
                image
                    .relocations
                    .insert(place(index, offset), (target, relocation.addend()));
            }
        }
        Ok(image)
    }

    /// Where the function of this name is.
    pub fn find(&self, name: &str) -> Option<Place> {
        self.names.get(name).copied()
    }

    /// The names of the function that begins at a place.
    pub fn names_at(&self, place: Place) -> &[String] {
        self.functions
            .get(&place)
            .map_or(&[], |function| &function.names)
    }

    /// The beginning of the function with this place in it.
    fn function_at(&self, place: Place) -> Option<Place> {
        let (&(section, begin), function) = self.functions.range(..=place).next_back()?;
        let inside = section == place.0 && place.1 < begin + function.size.max(1);
        inside.then_some((section, begin))
    }

    fn bytes(&self, (section, begin): Place, size: u64) -> Option<&[u8]> {
        let (&(in_section, first), bytes) = self.code.range(..=(section, begin)).next_back()?;
        let begin = usize::try_from(begin - first).ok()?;
        let end = begin + usize::try_from(size).ok()?;
        (section == in_section).then(|| bytes.get(begin..end))?
    }

    /// What the instructions of the function that begins at `place` do, with their addresses. All of
    /// its instructions, whether something jumps there or not.
    pub fn deeds(&self, place: Place) -> Result<Vec<(u64, Deed)>> {
        let mut deeds = Vec::new();
        for instruction in self.instructions(place)? {
            if let Some(deed) = self.deed(place, &instruction)? {
                deeds.push((instruction.ip(), deed));
            }
        }
        Ok(deeds)
    }

    fn instructions(&self, place: Place) -> Result<Vec<Instruction>> {
        let context = || format!("{}: {:?}", self.name, self.names_at(place));
        let function = self.functions.get(&place).with_context(context)?;
        let bytes = self.bytes(place, function.size).with_context(context)?;
        let decoder = Decoder::with_ip(64, bytes, place.1, DecoderOptions::NONE);
        let instructions: Vec<_> = decoder.into_iter().collect();
        for instruction in &instructions {
            ensure!(
                !instruction.is_invalid(),
                "{:?}: no instruction at {:#x}",
                function.names,
                instruction.ip()
            );
        }
        Ok(instructions)
    }

    /// The static branches in the function that begins at `place`: the address, the symbol of the key,
    /// and whether it is a NOP, as it has to be while the key is off.
    pub fn static_branches(&self, place: Place) -> Result<Vec<(u64, &str, bool)>> {
        let instructions = self.instructions(place)?;
        let here = instructions.iter().filter_map(|instruction| {
            let key = self.static_branches.get(&(place.0, instruction.ip()))?;
            let nop = instruction.mnemonic() == Mnemonic::Nop;
            Some((instruction.ip(), key.as_str(), nop))
        });
        Ok(here.collect())
    }

    /// The addresses of the instructions of the function that begins at `place` which are executed
    /// while all static branches are what they are here.
    pub fn executed(&self, place: Place) -> Result<BTreeSet<u64>> {
        let instructions = self.instructions(place)?;
        let by_address: BTreeMap<_, _> = instructions.iter().map(|i| (i.ip(), i)).collect();
        let mut executed = BTreeSet::new();
        let mut pending = vec![place.1];
        while let Some(address) = pending.pop() {
            let Some(instruction) = by_address.get(&address) else {
                continue;
            };
            if !executed.insert(address) {
                continue;
            }
            let flow = instruction.flow_control();
            let is_jump = matches!(
                flow,
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            );
            // What has a relocation leads to another function.
            if is_jump
                && instruction.op0_kind() == OpKind::NearBranch64
                && !self
                    .relocations
                    .contains_key(&(place.0, field_of(instruction)))
            {
                pending.push(instruction.near_branch_target());
            }
            if matches!(
                flow,
                FlowControl::Next
                    | FlowControl::Call
                    | FlowControl::IndirectCall
                    | FlowControl::ConditionalBranch
            ) {
                pending.push(instruction.next_ip());
            }
        }
        Ok(executed)
    }

    /// All functions.
    pub fn functions(&self) -> impl Iterator<Item = Place> + '_ {
        self.functions.keys().copied()
    }

    /// How often other functions branch to the one that begins at `place`.
    pub fn branches_to(&self, place: Place) -> Result<usize> {
        let mut branches = 0;
        for function in self.functions() {
            let to_it = |(_, deed): &(u64, Deed)| *deed == Deed::Branch(place);
            branches += self.deeds(function)?.iter().filter(|d| to_it(d)).count();
        }
        Ok(branches)
    }

    fn deed(&self, function: Place, instruction: &Instruction) -> Result<Option<Deed>> {
        let exchange = matches!(
            instruction.code(),
            Code::Xchg_rm8_r8 | Code::Xchg_rm16_r16 | Code::Xchg_rm32_r32 | Code::Xchg_rm64_r64
        );
        let of_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
        if instruction.has_lock_prefix() || exchange && of_memory {
            return Ok(Some(Deed::LockedAccess));
        }
        let field = (function.0, field_of(instruction));
        let relocation = self.relocations.get(&field);
        if instruction.code() == Code::Mov_rm64_imm32 && of_memory {
            let Some((Symbol::Here((section, address)), addend)) = relocation else {
                return Ok(None);
            };
            let stored = (*section, address.wrapping_add_signed(*addend));
            let (base, offset) = (
                instruction.memory_base(),
                instruction.memory_displacement64(),
            );
            return Ok(self
                .function_at(stored)
                .map(|stored| Deed::Store(base, offset, stored)));
        }
        match instruction.flow_control() {
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                return Ok(Some(Deed::IndirectBranch));
            }
            FlowControl::Call
            | FlowControl::ConditionalBranch
            | FlowControl::UnconditionalBranch
                if instruction.op0_kind() == OpKind::NearBranch64 => {}
            _ => return Ok(None),
        }
        let target = match relocation {
            Some((Symbol::Elsewhere(name), _)) => return Ok(Some(Deed::BranchAway(name.clone()))),
            // Relative to the field, the branch to what comes after it.
            Some((Symbol::Here((section, address)), addend)) => {
                (*section, address.wrapping_add_signed(addend + 4))
            }
            None => (function.0, instruction.near_branch_target()),
        };
        let in_section = |((section, begin), size): &(Place, u64)| {
            *section == target.0 && (*begin..begin + size).contains(&target.1)
        };
        if self.patched.iter().any(in_section) {
            return Ok(None);
        }
        Ok(match self.function_at(target) {
            None => Some(Deed::BranchNowhere),
            Some(target) if target == function => None,
            Some(target) => Some(Deed::Branch(target)),
        })
    }
}
