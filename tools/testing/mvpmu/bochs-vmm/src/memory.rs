// SPDX-License-Identifier: GPL-2.0

//! Guest memory, and the core's way to it.

use std::ffi::c_void;
use std::sync::OnceLock;

use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;

use crate::decoded;
use crate::ioapic;
use crate::log;

/// The only region: RAM from 0 up to below the IOAPIC.
static RAM: OnceLock<Ram> = OnceLock::new();

/// RAM as the core sees it.
struct Ram {
    memory: GuestMemoryMmap,
    base: *mut u8,
    size: u64,
}

// SAFETY: The address of a mapping that `memory` keeps for the whole run.
unsafe impl Send for Ram {}
// SAFETY: As above; guest memory is only touched by the one thread.
unsafe impl Sync for Ram {}

/// RAM must end below the IOAPIC and the local APIC: this many MiB at most.
pub const MAX_MIB: u64 = 3072;
/// Linux and an initramfs do not fit below this many MiB.
pub const MIN_MIB: u64 = 16;

/// Physical addresses have 52 bits.
const ADDRESS_MASK: u64 = (1 << 52) - 1;

/// Creates the RAM.
pub fn create(mib: u64) -> Result<&'static GuestMemoryMmap, String> {
    if !(MIN_MIB..=MAX_MIB).contains(&mib) {
        return Err(format!(
            "--mem {mib}: this machine takes {MIN_MIB} to {MAX_MIB} (MiB)"
        ));
    }
    let size = mib << 20;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), size as usize)])
        .map_err(|e| format!("cannot map {mib} MiB of guest memory: {e}"))?;
    let base = memory
        .get_host_address(GuestAddress(0))
        .map_err(|e| format!("guest memory has no start: {e}"))?;
    let ram = RAM.get_or_init(|| Ram { memory, base, size });
    Ok(&ram.memory)
}

/// The host address of `[address, address + len)`, if that is RAM.
#[inline]
fn host(address: u64, len: u64) -> Option<*mut u8> {
    let ram = RAM.get()?;
    let end = address.checked_add(len)?;
    // SAFETY: Within the mapping, as compared.
    (end <= ram.size).then(|| unsafe { ram.base.add(address as usize) })
}

/// Replaces `BX_MEM_C::getHostMemAddr(cpu, address, rw)`. Null sends the access
/// to `readPhysicalPage` and `writePhysicalPage`.
#[export_name = "_ZN8BX_MEM_C14getHostMemAddrEP8BX_CPU_Cmj"]
extern "C-unwind" fn host_address(_cpu: *mut c_void, address: u64, _rw: u32) -> *mut u8 {
    host(address & ADDRESS_MASK, 1).unwrap_or(std::ptr::null_mut())
}

/// Replaces `BX_MEM_C::readPhysicalPage(cpu, address, len, data)`; `len` stays
/// within a page.
#[export_name = "_ZN8BX_MEM_C16readPhysicalPageEP8BX_CPU_CmjPv"]
unsafe extern "C-unwind" fn read(_cpu: *mut c_void, address: u64, len: u32, data: *mut u8) {
    let address = address & ADDRESS_MASK;
    if let Some(from) = host(address, u64::from(len)) {
        // SAFETY: `from` is valid for `len`, `data` is the core's buffer of `len`.
        unsafe { std::ptr::copy_nonoverlapping(from, data, len as usize) };
        return;
    }
    let bytes = mmio_read(address).to_le_bytes();
    for n in 0..len as usize {
        let byte = bytes.get(n).copied().unwrap_or(0xff);
        // SAFETY: `data` is the core's buffer of `len` bytes.
        unsafe { data.add(n).write(byte) };
    }
}

/// A byte of RAM.
pub fn byte(address: u64) -> Option<u8> {
    // SAFETY: `host` says that it is RAM.
    host(address & ADDRESS_MASK, 1).map(|at| unsafe { at.read() })
}

/// Eight bytes of RAM, at a multiple of 8.
pub fn word(address: u64) -> Option<u64> {
    let at = host(address & ADDRESS_MASK, 8)?.cast::<u64>();
    // SAFETY: `host` says that all of it is RAM; pages of it begin at multiples of their size.
    at.is_aligned().then(|| unsafe { at.read() })
}

/// Writes eight bytes of RAM, at a multiple of 8.
pub fn set_word(address: u64, value: u64) -> Option<()> {
    let at = host(address & ADDRESS_MASK, 8)?.cast::<u64>();
    // SAFETY: As above.
    at.is_aligned().then(|| unsafe { at.write(value) })
}

/// Writes bytes of RAM, within a page; where there is none, nothing.
pub fn store(address: u64, bytes: &[u8]) {
    let address = address & ADDRESS_MASK;
    let to = host(address, bytes.len() as u64).filter(|_| !bytes.is_empty());
    if let Some(to) = to {
        // SAFETY: `to` is valid for the length, and no part of what this program owns.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        decoded::code_written(address, bytes.len() as u32);
    }
}

/// Replaces `BX_MEM_C::writePhysicalPage(cpu, address, len, data)`, which is called where the
/// TLB has no entry, or none for writing.
#[export_name = "_ZN8BX_MEM_C17writePhysicalPageEP8BX_CPU_CmjPv"]
unsafe extern "C-unwind" fn write(_cpu: *mut c_void, address: u64, len: u32, data: *const u8) {
    let address = address & ADDRESS_MASK;
    if let Some(to) = host(address, u64::from(len)) {
        // SAFETY: `to` is valid for `len`, `data` is the core's buffer of `len`.
        unsafe { std::ptr::copy_nonoverlapping(data, to, len as usize) };
        decoded::code_written(address, len);
        return;
    }
    let mut bytes = [0u8; 8];
    for (n, byte) in bytes.iter_mut().enumerate().take(len as usize) {
        // SAFETY: `data` is the core's buffer of `len` bytes.
        *byte = unsafe { data.add(n).read() };
    }
    mmio_write(address, u64::from_le_bytes(bytes));
}

/// Replaces `BX_MEM_C::dbg_fetch_mem(cpu, address, len, data)`: for the core's
/// own messages.
#[export_name = "_ZN8BX_MEM_C13dbg_fetch_memEP8BX_CPU_CmjPh"]
unsafe extern "C-unwind" fn fetch(
    _cpu: *mut c_void,
    address: u64,
    len: u32,
    data: *mut u8,
) -> bool {
    match host(address & ADDRESS_MASK, u64::from(len)) {
        Some(from) => {
            // SAFETY: `from` is valid for `len`, `data` is the core's buffer of `len`.
            unsafe { std::ptr::copy_nonoverlapping(from, data, len as usize) };
            true
        }
        None => false,
    }
}

fn mmio_read(address: u64) -> u64 {
    match ioapic::register_of(address) {
        Some(register) => u64::from(ioapic::read(register)),
        None => {
            log::say(
                log::Level::Info,
                format_args!("read of {address:#x}: nothing there"),
            );
            u64::MAX
        }
    }
}

fn mmio_write(address: u64, value: u64) {
    match ioapic::register_of(address) {
        Some(register) => ioapic::write(register, value as u32),
        None => log::say(
            log::Level::Info,
            format_args!("write of {value:#x} to {address:#x}: nothing there"),
        ),
    }
}
