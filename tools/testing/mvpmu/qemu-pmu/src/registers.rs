// SPDX-License-Identifier: GPL-2.0
//! Registers and memory of the emulated CPU, through the plugin API.

use std::ffi::CStr;
use std::sync::OnceLock;

use crate::api;

/// QEMU's names for the registers that are used.
pub struct Handles {
    /// RAX
    pub rax: Handle,
    /// RBX
    pub rbx: Handle,
    /// RCX
    pub rcx: Handle,
    /// RDX
    pub rdx: Handle,
    /// RSP
    pub rsp: Handle,
    /// RBP
    pub rbp: Handle,
    /// RSI
    pub rsi: Handle,
    /// RDI
    pub rdi: Handle,
    /// RIP
    pub rip: Handle,
    /// RFLAGS
    pub eflags: Handle,
    /// CS
    pub cs: Handle,
    /// CR0
    pub cr0: Handle,
    /// CR2
    pub cr2: Handle,
    /// CR3
    pub cr3: Handle,
    /// CR4
    pub cr4: Handle,
    /// EFER
    pub efer: Handle,
}

/// QEMU's name for a register.
#[derive(Clone, Copy)]
pub struct Handle(*mut api::Register);

// SAFETY: A handle is a number that QEMU knows, the same for all vCPUs.
unsafe impl Send for Handle {}
// SAFETY: As above.
unsafe impl Sync for Handle {}

static HANDLES: OnceLock<Handles> = OnceLock::new();

/// The handles. They were found when the first vCPU started.
pub fn handles() -> &'static Handles {
    HANDLES.get().expect("handles are found at vCPU start")
}

/// Whether [`find`] was done.
pub fn found() -> bool {
    HANDLES.get().is_some()
}

/// Asks QEMU for the handles; says which register it does not know. In a vCPU's thread.
pub fn find() -> Result<(), String> {
    if found() {
        return Ok(());
    }
    // SAFETY: This is a vCPU's thread, as the call demands. It returns an array of descriptors
    // that lives on; their names are C strings.
    let known = unsafe {
        let array = &*api::qemu_plugin_get_registers();
        let descriptors: *const api::RegisterDescriptor = array.data.cast();
        std::slice::from_raw_parts(descriptors, array.len as usize)
    };
    let handle = |name: &CStr| {
        known
            .iter()
            // SAFETY: As above.
            .find(|d| unsafe { CStr::from_ptr(d.name) } == name)
            .map(|d| Handle(d.handle))
            .ok_or_else(|| format!("this QEMU has no register {}", name.to_string_lossy()))
    };
    let handles = Handles {
        rax: handle(c"rax")?,
        rbx: handle(c"rbx")?,
        rcx: handle(c"rcx")?,
        rdx: handle(c"rdx")?,
        rsp: handle(c"rsp")?,
        rbp: handle(c"rbp")?,
        rsi: handle(c"rsi")?,
        rdi: handle(c"rdi")?,
        rip: handle(c"rip")?,
        eflags: handle(c"eflags")?,
        cs: handle(c"cs")?,
        cr0: handle(c"cr0")?,
        cr2: handle(c"cr2")?,
        cr3: handle(c"cr3")?,
        cr4: handle(c"cr4")?,
        efer: handle(c"efer")?,
    };
    HANDLES.get_or_init(|| handles);
    Ok(())
}

/// A vCPU's buffer for the exchange of values with QEMU.
///
/// All functions are to be called in a callback in the vCPU's thread.
pub struct Bus {
    buffer: *mut api::GByteArray,
}

impl Default for Bus {
    fn default() -> Bus {
        Bus {
            // SAFETY: No conditions.
            buffer: unsafe { api::g_byte_array_new() },
        }
    }
}

impl Bus {
    /// Makes the buffer `len` bytes long.
    fn resize(&mut self, len: usize) {
        // SAFETY: The buffer lives as long as the vCPU.
        unsafe { api::g_byte_array_set_size(self.buffer, len as u32) };
    }

    /// The first bytes of the buffer.
    fn value(&self) -> u64 {
        let mut bytes = [0; 8];
        // SAFETY: The buffer has `len` bytes at `data`.
        unsafe {
            let len = ((*self.buffer).len as usize).min(bytes.len());
            std::ptr::copy_nonoverlapping((*self.buffer).data, bytes.as_mut_ptr(), len);
        }
        u64::from_le_bytes(bytes)
    }

    /// Fills the buffer.
    fn set_value(&mut self, value: u64, len: usize) {
        self.resize(len);
        let bytes = value.to_le_bytes();
        // SAFETY: The buffer was made `len` bytes long.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (*self.buffer).data, len.min(8)) };
    }

    /// Reads a register.
    pub fn register(&mut self, handle: Handle) -> u64 {
        // read_register appends.
        self.resize(0);
        // SAFETY: The handle is QEMU's, the buffer ours.
        unsafe { api::qemu_plugin_read_register(handle.0, self.buffer) };
        self.value()
    }

    /// Writes a register of 64 bits.
    pub fn set_register(&mut self, handle: Handle, value: u64) {
        self.set_value(value, 8);
        // SAFETY: The handle is QEMU's, the buffer ours.
        unsafe { api::qemu_plugin_write_register(handle.0, self.buffer) };
    }

    /// The value that RDMSR, WRMSR and RDPMC have in EDX:EAX.
    pub fn edx_eax(&mut self) -> u64 {
        let low = self.register(handles().rax) as u32;
        let high = self.register(handles().rdx) as u32;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Sets EDX:EAX, as RDMSR and RDPMC do.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.set_register(handles().rax, value & 0xffff_ffff);
        self.set_register(handles().rdx, value >> 32);
    }

    /// Reads `len` (at most 8) bytes of physical memory; all ones where there is none.
    pub fn physical(&mut self, address: u64, len: usize) -> u64 {
        self.resize(len);
        // SAFETY: The buffer is ours.
        match unsafe { api::qemu_plugin_read_memory_hwaddr(address, self.buffer, len) } {
            0 => self.value(),
            _ => u64::MAX,
        }
    }

    /// Writes `len` (at most 8) bytes of physical memory.
    pub fn set_physical(&mut self, address: u64, value: u64, len: usize) {
        self.set_value(value, len);
        // SAFETY: The buffer is ours.
        unsafe { api::qemu_plugin_write_memory_hwaddr(address, self.buffer) };
    }

    /// Reads `len` (at most 8) bytes at a virtual address, if it is mapped.
    pub fn virtual_memory(&mut self, address: u64, len: usize) -> Option<u64> {
        self.resize(len);
        // SAFETY: The buffer is ours.
        unsafe { api::qemu_plugin_read_memory_vaddr(address, self.buffer, len) }
            .then(|| self.value())
    }
}
