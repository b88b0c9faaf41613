// SPDX-License-Identifier: GPL-2.0
//! Which register an MSR number names, and how they are read and written.

use crate::Fault;

use super::super::checked;
use super::super::msr;
use super::bits::control;
use super::bits::mask_ptrs;
use super::bits::range;
use super::bits::status;
use super::bits::CYCLE_THRESHOLDS;
use super::bits::PSB_FREQUENCIES;
use super::Pt;
use super::PHYSICAL_BITS;
use super::PT_RANGES;

/// A register of PT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PtRegister {
    /// IA32_RTIT_CTL.
    Control,
    /// IA32_RTIT_STATUS.
    Status,
    /// IA32_RTIT_CR3_MATCH.
    Cr3Match,
    /// IA32_RTIT_OUTPUT_BASE.
    OutputBase,
    /// IA32_RTIT_OUTPUT_MASK_PTRS.
    OutputMaskPtrs,
    /// IA32_RTIT_ADDRn_A.
    AddrA(usize),
    /// IA32_RTIT_ADDRn_B.
    AddrB(usize),
}

impl PtRegister {
    /// The register with this MSR number, if it is one.
    pub fn of(number: u32) -> Option<PtRegister> {
        Some(match number {
            msr::RTIT_CTL => PtRegister::Control,
            msr::RTIT_STATUS => PtRegister::Status,
            msr::RTIT_CR3_MATCH => PtRegister::Cr3Match,
            msr::RTIT_OUTPUT_BASE => PtRegister::OutputBase,
            msr::RTIT_OUTPUT_MASK_PTRS => PtRegister::OutputMaskPtrs,
            _ => {
                let n = number.checked_sub(msr::RTIT_ADDR0_A)? as usize;
                match n % 2 {
                    _ if n >= 2 * PT_RANGES => return None,
                    0 => PtRegister::AddrA(n / 2),
                    _ => PtRegister::AddrB(n / 2),
                }
            }
        })
    }
}

impl PtRegister {
    /// What the manual calls it.
    pub(in crate::intel) fn name(self) -> String {
        match self {
            PtRegister::Control => "IA32_RTIT_CTL".into(),
            PtRegister::Status => "IA32_RTIT_STATUS".into(),
            PtRegister::Cr3Match => "IA32_RTIT_CR3_MATCH".into(),
            PtRegister::OutputBase => "IA32_RTIT_OUTPUT_BASE".into(),
            PtRegister::OutputMaskPtrs => "IA32_RTIT_OUTPUT_MASK_PTRS".into(),
            PtRegister::AddrA(n) => format!("IA32_RTIT_ADDR{n}_A"),
            PtRegister::AddrB(n) => format!("IA32_RTIT_ADDR{n}_B"),
        }
    }
}

/// Whether IA32_RTIT_CTL can have this value.
fn is_valid_control(value: u64) -> bool {
    let field = |shift: u32| value >> shift & 0xf;
    let offered = |offered: u32, shift| offered >> field(shift) & 1 != 0;
    value & !control::DEFINED == 0
        && offered(PSB_FREQUENCIES, control::PSB_FREQ_SHIFT)
        && offered(CYCLE_THRESHOLDS, control::CYC_THRESH_SHIFT)
        && (0..PT_RANGES as u32).all(|n| field(control::ADDR_CFG_SHIFT + 4 * n) <= range::STOP)
}

fn is_canonical(address: u64) -> bool {
    address.cast_signed() << 16 >> 16 == address.cast_signed()
}

impl Pt {
    pub(super) fn read(&self, register: PtRegister) -> u64 {
        match register {
            PtRegister::Control => self.control,
            PtRegister::Status => self.status(),
            PtRegister::Cr3Match => self.cr3_match,
            PtRegister::OutputBase => self.output_base,
            PtRegister::OutputMaskPtrs => self.mask_ptrs,
            PtRegister::AddrA(n) => self.ranges[n][0],
            PtRegister::AddrB(n) => self.ranges[n][1],
        }
    }

    pub(super) fn write(&mut self, register: PtRegister, value: u64) -> Result<(), Fault> {
        if register == PtRegister::Control {
            return self.write_control(value);
        }
        if self.is_on() {
            return Err(Fault::GeneralProtection);
        }
        match register {
            PtRegister::Control => {}
            PtRegister::Status => {
                self.status = checked(value & !status::READ_ONLY, !status::WRITABLE)?;
            }
            PtRegister::Cr3Match => self.cr3_match = checked(value, 0x1f)?,
            PtRegister::OutputBase => {
                self.output_base =
                    checked(value, mask_ptrs::LOWER_MASK | u64::MAX << PHYSICAL_BITS)?;
            }
            PtRegister::OutputMaskPtrs => self.mask_ptrs = value | mask_ptrs::LOWER_MASK,
            PtRegister::AddrA(_) | PtRegister::AddrB(_) if !is_canonical(value) => {
                return Err(Fault::GeneralProtection);
            }
            PtRegister::AddrA(n) => self.ranges[n][0] = value,
            PtRegister::AddrB(n) => self.ranges[n][1] = value,
        }
        Ok(())
    }

    fn write_control(&mut self, value: u64) -> Result<(), Fault> {
        let changes_while_on =
            self.is_on() && value & control::TRACE_EN != 0 && value != self.control;
        if changes_while_on || !is_valid_control(value) {
            return Err(Fault::GeneralProtection);
        }
        self.control = value;
        Ok(())
    }
}
