// SPDX-License-Identifier: GPL-2.0
//! QEMU's write to the flags of the first CPU, which every CPU does: see [`Quirk::FpuStatus`].
//!
//! [`Quirk::FpuStatus`]: crate::quirks::Quirk::FpuStatus

use std::ffi::c_void;

use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::OpKind;

use crate::symbols;

/// IGNNE#, in QEMU's `HF2_IGNNE_MASK`.
const IGNNE: u32 = 1 << 7;
/// RET
const RET: u8 = 0xc3;
/// How much of the function is looked at: it is shorter.
const LEN: usize = 128;

/// Where in the code of `cpu_clear_ignne()` a RET can stand for all of it, behind its ENDBR64: if it clears
/// the bit that it is known to clear, and returns.
fn first_instruction(code: &[u8]) -> Option<usize> {
    let mut instructions = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
    let endbr = instructions.next()?;
    let begin = match endbr.code() {
        Code::Endbr64 => endbr.len(),
        _ => 0,
    };
    let clears = instructions
        .take_while(|insn| insn.flow_control() != FlowControl::Return)
        .any(|insn| {
            insn.code() == Code::And_rm32_imm32
                && insn.op0_kind() == OpKind::Memory
                && insn.immediate32() == !IGNNE
        });
    clears.then_some(begin)
}

/// Has `cpu_clear_ignne()` return at once. Before any vCPU starts.
pub fn leave_alone() -> Result<(), String> {
    let function = symbols::find(c"cpu_clear_ignne")?.cast::<u8>();
    // SAFETY: Other functions follow it.
    let code = unsafe { std::slice::from_raw_parts(function, LEN) };
    let begin = first_instruction(code)
        .ok_or("this QEMU has another cpu_clear_ignne(): use qemu-system-x86_64 11.1 of Debian")?;
    let target = function.wrapping_add(begin);
    // SAFETY: sysconf() has no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let start = target.wrapping_sub(target as usize % page).cast::<c_void>();
    let protect = |protection| {
        // SAFETY: The page holds code of QEMU, which stays executable all the time.
        match unsafe { libc::mprotect(start, page, protection) } {
            0 => Ok(()),
            _ => Err(format!(
                "QEMU's code cannot be changed: {}",
                std::io::Error::last_os_error()
            )),
        }
    };
    protect(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
    // SAFETY: The first byte of an instruction in a page that is writable now. The only thread
    // is the one that loads plugins.
    unsafe { target.write_volatile(RET) };
    protect(libc::PROT_READ | libc::PROT_EXEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: another function is taken for it.
    #[test]
    fn it_is_known_by_the_bit_that_it_clears() {
        // endbr64; sub $8,%rsp; andl $~0x80,0x41a4(%rax); add $8,%rsp; ret
        let mut code = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 8, 0x81, 0xa0, 0xa4, 0x41, 0, 0, 0x7f, 0xff,
            0xff, 0xff, 0x48, 0x83, 0xc4, 8, 0xc3,
        ];
        assert_eq!(first_instruction(&code), Some(4));
        assert_eq!(first_instruction(&code[4..]), Some(0));
        code[14] = 0xbf;
        assert_eq!(first_instruction(&code), None);
        // It returns before.
        code[14] = 0x7f;
        code[4] = 0xc3;
        assert_eq!(first_instruction(&code), None);
    }
}
