// SPDX-License-Identifier: GPL-2.0
//! Where packets go: into memory.
//!
//! | rule (sections are those of SDM volume 3, "Intel Processor Trace") | source |
//! |---|---|
//! | ToPA: entry MaskOrTableOffset of the table at IA32_RTIT_OUTPUT_BASE names a region and its size, OutputOffset is the place in it | "Table of Physical Addresses (ToPA)", "IA32_RTIT_OUTPUT_MASK_PTRS MSR" |
//! | a filled region: the next entry, from the beginning of its region; END names the next table | "ToPA", the introduction |
//! | with STOP Stopped is set, and the registers stay at the end of the region; what does not fit is lost | "ToPA STOP" |
//! | with INT Trace_ToPA_PMI is set, and a PMI requested, which freezes what others do | "ToPA PMI" |
//! | Error is set, and nothing more written: reserved bits of an entry, a region or table that is not aligned, an END entry with INT or STOP, an offset that is not in the region | "ToPA Errors"; of the reserved bits of an END entry: no source |
//! | a single range: base and mask, from whose end it goes on at the beginning; Error when they overlap or the offset is not in it | "Single Range Output", "Operational Errors" |
//! | with PT using guest-physical addresses each of these addresses is one; they are translated ahead, and a VM exit for an EPT violation comes, asynchronous to instructions, where that fails | "VM-Execution Controls", "Trace-Address Pre-Translation (TAPT)", table "Exit Qualification for EPT Violations", bit 16; how far ahead: no source |
//!
//! What is not modelled: buffers and caches. A packet is in memory when the next instruction begins, and a
//! table is read for each packet.

use super::bits::control;
use super::bits::mask_ptrs;
use super::bits::status;
use super::Pt;
use super::PHYSICAL_BITS;

/// An address that cannot be accessed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmapped(pub u64);

/// Memory by physical addresses, as PT uses them. What there is not can be written without effect.
pub trait PhysicalMemory {
    /// Reads 8 bytes, at a multiple of 8.
    fn read(&mut self, address: u64) -> Result<u64, Unmapped>;
    /// Writes bytes of one page.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unmapped>;
    /// Whether addresses may be unmapped at all.
    fn is_mapped(&self) -> bool;
}

const PAGE: u64 = 4096;

/// So many bytes ahead it has to be mapped: more than any instruction comes to.
const AHEAD: u64 = 512;

/// An entry of a table.
mod entry {
    pub const END: u64 = 1 << 0;
    pub const INT: u64 = 1 << 2;
    pub const STOP: u64 = 1 << 4;
    pub const SIZE_SHIFT: u32 = 6;
    pub const RESERVED: u64 =
        1 << 1 | 1 << 3 | 1 << 5 | 0b11 << 10 | u64::MAX << super::PHYSICAL_BITS;
    pub const BASE: u64 = !0xfff;
    /// What makes the entry one for output.
    pub const OF_OUTPUT: u64 = INT | STOP;
}

/// Why nothing can be written.
enum Refusal {
    /// An operational error.
    Error,
    /// Not now.
    Unmapped(Unmapped),
}

impl From<Unmapped> for Refusal {
    fn from(unmapped: Unmapped) -> Refusal {
        Refusal::Unmapped(unmapped)
    }
}

/// A region.
struct Region {
    base: u64,
    size: u64,
    /// The bits of its entry.
    bits: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct PtOutcome {
    /// A PMI is due.
    pub pmi: bool,
    /// This address has to be mapped before it can go on.
    pub unmapped: Option<Unmapped>,
    /// Bytes were written to memory.
    pub written: bool,
}

impl Pt {
    fn offset(&self) -> u64 {
        self.mask_ptrs >> mask_ptrs::OFFSET_SHIFT
    }

    fn set_offset(&mut self, offset: u64) {
        self.mask_ptrs = self.mask_ptrs & mask_ptrs::NOT_OFFSET | offset << mask_ptrs::OFFSET_SHIFT;
    }

    fn has_tables(&self) -> bool {
        self.applied & control::TOPA != 0
    }

    /// The entry of the table that is current.
    fn entry(&self, memory: &mut impl PhysicalMemory) -> Result<u64, Refusal> {
        let index = (self.mask_ptrs & mask_ptrs::NOT_OFFSET) >> mask_ptrs::INDEX_SHIFT;
        if !self.output_base.is_multiple_of(PAGE) {
            return Err(Refusal::Error);
        }
        let found = memory.read(self.output_base + 8 * index)?;
        match found & entry::RESERVED {
            0 => Ok(found),
            _ => Err(Refusal::Error),
        }
    }

    fn region(&self, memory: &mut impl PhysicalMemory) -> Result<Region, Refusal> {
        let region = if self.has_tables() {
            let entry = self.entry(memory)?;
            if entry & entry::END != 0 {
                return Err(Refusal::Error);
            }
            Region {
                base: entry & entry::BASE,
                size: PAGE << (entry >> entry::SIZE_SHIFT & 0xf),
                bits: entry,
            }
        } else {
            Region {
                base: self.output_base,
                size: (self.mask_ptrs & mask_ptrs::NOT_OFFSET) + 1,
                bits: 0,
            }
        };
        let is_aligned = region.base & (region.size - 1) == 0 && region.size.is_power_of_two();
        match is_aligned && self.offset() < region.size {
            true => Ok(region),
            false => Err(Refusal::Error),
        }
    }

    /// The region is filled: goes on to the next. True when a PMI is due.
    fn filled(
        &mut self,
        region: &Region,
        memory: &mut impl PhysicalMemory,
    ) -> Result<bool, Refusal> {
        if !self.has_tables() {
            self.set_offset(0);
            return Ok(false);
        }
        let pmi = region.bits & entry::INT != 0;
        if region.bits & entry::STOP != 0 {
            self.set_offset(region.size);
            self.status |= status::STOPPED;
            return Ok(pmi);
        }
        self.mask_ptrs = (self.mask_ptrs & mask_ptrs::NOT_OFFSET) + (1 << mask_ptrs::INDEX_SHIFT);
        match self.entry(memory) {
            Ok(next) if next & entry::END == 0 => {}
            Ok(next) if next & entry::OF_OUTPUT == 0 => {
                self.output_base = next & entry::BASE;
                self.mask_ptrs = mask_ptrs::LOWER_MASK;
            }
            Ok(_) | Err(Refusal::Error) => self.status |= status::ERROR,
            // It was mapped when the region before it was, and is looked at again.
            Err(Refusal::Unmapped(_)) => {}
        }
        Ok(pmi)
    }

    fn refused(&mut self, refusal: Refusal) -> Option<Unmapped> {
        match refusal {
            Refusal::Error => {
                self.status |= status::ERROR;
                None
            }
            Refusal::Unmapped(unmapped) => Some(unmapped),
        }
    }

    /// Writes what is at the beginning of the buffer. True when a PMI is due.
    fn write_some(&mut self, memory: &mut impl PhysicalMemory) -> Result<bool, Refusal> {
        let region = self.region(memory)?;
        let offset = self.offset();
        let address = region.base + offset;
        let room = (region.size - offset).min(PAGE - address % PAGE);
        let len = self.buffer.len().min(room as usize);
        memory.write(address, &self.buffer[..len])?;
        self.buffer.drain(..len);
        let offset = offset + len as u64;
        if offset == region.size {
            return self.filled(&region, memory);
        }
        self.set_offset(offset);
        Ok(false)
    }

    /// Where the byte [`AHEAD`] of the current place will be written, if there is one.
    fn ahead(&self, memory: &mut impl PhysicalMemory) -> Result<Option<u64>, Refusal> {
        let region = self.region(memory)?;
        let ahead = self.offset() + AHEAD;
        if ahead < region.size {
            return Ok(Some(region.base + ahead));
        }
        let mut next = Pt {
            buffer: Vec::new(),
            ..self.clone()
        };
        let _ = next.filled(&region, memory)?;
        if next.is_stopped() {
            return Ok(None);
        }
        let region = next.region(memory)?;
        Ok(Some(region.base))
    }

    /// What has to be mapped before anything more is traced: TAPT.
    pub(super) fn translate_ahead(&self, memory: &mut impl PhysicalMemory) -> Option<Unmapped> {
        if memory.is_mapped() {
            return None;
        }
        let here = self
            .region(memory)
            .map(|region| Some(region.base + self.offset()));
        let ahead = self.ahead(memory);
        [here, ahead].into_iter().find_map(|address| match address {
            Ok(Some(address)) => memory.write(address, &[]).err(),
            Err(Refusal::Unmapped(unmapped)) => Some(unmapped),
            _ => None,
        })
    }

    /// Writes what is in the buffer.
    pub(super) fn flush(&mut self, memory: &mut impl PhysicalMemory) -> PtOutcome {
        let mut outcome = PtOutcome::default();
        while !self.buffer.is_empty() && !self.is_stopped() {
            match self.write_some(memory) {
                Ok(pmi) => {
                    outcome.pmi |= pmi;
                    outcome.written = true;
                }
                Err(refusal) => {
                    outcome.unmapped = self.refused(refusal);
                    if outcome.unmapped.is_some() {
                        return outcome;
                    }
                }
            }
        }
        self.buffer.clear();
        if !self.is_stopped() {
            outcome.unmapped = self.translate_ahead(memory);
        }
        outcome
    }
}
