// SPDX-License-Identifier: GPL-2.0

//! What this program calls in the Bochs core, by symbol.
//!
//! The core is the extension module of a Python wheel, loaded with `dlopen`.
//! Its C++ object code is position independent and was linked without
//! `-Bsymbolic`: a function this program exports under the same name replaces
//! the core's, and the replaced one is still found through the handle.
//!
//! It was built for one CPU, which its code finds at a fixed place. So the file is loaded once for
//! each CPU: the copies share no object, as each sees this program and itself only. Of all that is
//! called here, the one is meant that is [selected](select).
//!
//! `exception()` and `VMexit()` leave by longjmp to `cpu_loop()`. Whoever calls
//! into the core, and whoever is called by it, keeps no value with a destructor
//! in those frames.

use std::ffi::c_char;
use std::ffi::c_void;
use std::ffi::CStr;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::path::Path;

use sha2::Digest;
use sha2::Sha256;

use crate::per_cpu::MAX_CPUS;
use crate::single::SingleCell;

/// A CPUID leaf as the core lays it out (`cpuid_function_t`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// The file this program was written for: field offsets and the work-arounds
/// are true of these bytes and of no others.
const PINNED: &str = include_str!("bochs.sha256");

macro_rules! core_functions {
    ($( $(#[$doc:meta])* $name:ident = $symbol:literal
        ( $($arg:ident : $ty:ty),* ) $(-> $ret:ty)? ; )*) => {
        /// The functions and objects found in the loaded core.
        struct Symbols {
            handle: *mut c_void,
            $( $name: unsafe extern "C-unwind" fn($($ty),*) $(-> $ret)?, )*
        }

        impl Symbols {
            fn find(handle: *mut c_void) -> Result<Self, String> {
                Ok(Self {
                    handle,
                    $( $name: {
                        let address = symbol(handle, $symbol)?;
                        // SAFETY: The hash of the file was checked: in this file
                        // the symbol is a function of this type.
                        unsafe { std::mem::transmute::<*mut c_void,
                            unsafe extern "C-unwind" fn($($ty),*) $(-> $ret)?>(address) }
                    }, )*
                })
            }
        }

        $(
            $(#[$doc])*
            #[inline]
            pub fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: The type is right (see `Symbols::find`), and the one
                // thread of this program is the only one in the core.
                unsafe { (symbols().$name)($($arg),*) }
            }
        )*
    };
}

core_functions! {
    /// Makes the CPU and its local APIC.
    cpu_new = "cpu_new"(id: u32);
    /// Runs until the kill bit is set.
    cpu_loop = "cpu_loop"(id: u32);
    /// Asks `cpu_loop` to return after the instruction.
    cpu_set_killbit = "cpu_set_killbit"(id: u32);
    /// Takes the request back.
    cpu_clear_killbit = "cpu_clear_killbit"(id: u32);
    /// Whether `cpu_loop` was asked to return.
    cpu_killbit = "cpu_killbit"(id: u32) -> u32;
    /// Recomputes the CPU mode after control registers were set.
    cpu_set_mode = "cpu_set_mode"(id: u32);
    /// Sets RIP.
    cpu_set_pc = "cpu_set_pc"(id: u32, rip: u64);
    /// Sets RSP.
    cpu_set_sp = "cpu_set_sp"(id: u32, rsp: u64);
    /// RIP.
    cpu_get_pc = "cpu_get_pc"(id: u32) -> u64;
    /// Sets a general purpose register.
    cpu_set_reg64 = "cpu_set_reg64"(id: u32, register: u32, value: u64);
    /// Sets EFLAGS.
    cpu_set_eflags = "cpu_set_eflags"(id: u32, value: u32);
    /// Sets CR0.
    cpu_set_cr0 = "cpu_set_cr0"(id: u32, value: u32);
    /// Sets CR3.
    cpu_set_cr3 = "cpu_set_cr3"(id: u32, value: u64);
    /// Sets CR4.
    cpu_set_cr4 = "cpu_set_cr4"(id: u32, value: u32);
    /// Sets IA32_EFER.
    cpu_set_efer = "cpu_set_efer"(id: u32, value: u32);
    /// Sets a segment register.
    cpu_set_seg = "cpu_set_seg"(id: u32, segment: u32, present: u32, selector: u16, base: u64,
        limit: u32, attributes: u16);
    /// Sets GDTR.
    cpu_set_gdtr = "cpu_set_gdtr"(id: u32, base: u64, limit: u16);

    /// A boolean parameter object.
    new_param_bool = "sim_new_param_bool"(name: *const c_char, value: u32) -> *mut c_void;
    /// A number parameter object.
    new_param_num = "sim_new_param_num"(name: *const c_char, min: u64, max: u64, value: u64)
        -> *mut c_void;
    /// A string parameter object.
    new_param_string = "sim_new_param_string"(name: *const c_char, value: *const c_char, size: u32)
        -> *mut c_void;
    /// An enumeration parameter object.
    new_param_enum = "sim_new_param_enum"(name: *const c_char, choices: *const *const c_char,
        value: u32) -> *mut c_void;
    /// The core's own boolean parameter, or null.
    core_param_bool = "sim_get_param_bool"(name: *const c_char) -> *mut c_void;
    /// The core's own number parameter, or null.
    core_param_num = "sim_get_param_num"(name: *const c_char) -> *mut c_void;
    /// The core's own string parameter, or null.
    core_param_string = "sim_get_param_string"(name: *const c_char) -> *mut c_void;
    /// The core's own enumeration parameter, or null.
    core_param_enum = "sim_get_param_enum"(name: *const c_char) -> *mut c_void;

    /// Reads a register of a local APIC by its xAPIC address.
    lapic_read = "_ZN15bx_local_apic_c12read_alignedEm"(lapic: *mut c_void, address: u64) -> u32;
    /// Writes a local vector table entry.
    lapic_set_lvt = "_ZN15bx_local_apic_c13set_lvt_entryEjj"(lapic: *mut c_void, register: u32,
        value: u32);
    /// Accepts an interrupt message at a local APIC.
    lapic_deliver = "_ZN15bx_local_apic_c7deliverEhhh"(lapic: *mut c_void, vector: u8, mode: u8,
        trigger: u8) -> bool;

    /// Whether a logical destination is this local APIC.
    lapic_matches = "_ZN15bx_local_apic_c18match_logical_addrEj"(lapic: *mut c_void,
        destination: u32) -> bool;
    /// The arbitration priority of a local APIC.
    lapic_priority = "_ZN15bx_local_apic_c7get_aprEv"(lapic: *mut c_void) -> u8;

    /// Raises an exception: does not return.
    exception = "_ZN8BX_CPU_C9exceptionEjt"(vector: u32, error: u16);
    /// Leaves VMX guest mode: does not return.
    vm_exit = "_ZN8BX_CPU_C6VMexitEjm"(reason: u32, qualification: u64);
    /// Reads a 32-bit field of the current VMCS.
    vmread32 = "_ZN8BX_CPU_C8VMread32Ej"(field: u32) -> u32;
    /// Reads a 64-bit field of the current VMCS.
    vmread64 = "_ZN8BX_CPU_C8VMread64Ej"(field: u32) -> u64;
    /// Writes a 64-bit field of the current VMCS.
    vmwrite64 = "_ZN8BX_CPU_C9VMwrite64Ejm"(field: u32, value: u64);
    /// Translates a linear address; false when it is not mapped.
    xlate = "_ZN8BX_CPU_C20dbg_xlate_linear2phyEmPmS0_bb"(linear: u64, physical: *mut u64,
        page_offset_mask: *mut u64, verbose: bool, nested: bool) -> bool;
    /// The TSC as software reads it.
    virtual_tsc = "_ZN8BX_CPU_C15get_Virtual_TSCEv"() -> u64;
    /// Recomputes which events are masked.
    handle_interrupt_mask_change = "_ZN8BX_CPU_C25handleInterruptMaskChangeEv"();

    /// The replaced choice of the current VMCS.
    core_set_vmcs = "_ZN8BX_CPU_C11set_VMCSPTREm"(pointer: u64);
    /// The replaced forgetting of what was decoded from parts of a page.
    core_handle_smc = "_Z9handleSMCmj"(address: u64, parts: u32);
    /// The replaced forgetting of all that was decoded.
    core_flush_decoded = "_Z12flushICachesv"();
    /// The replaced reset of the CPU.
    core_reset = "_ZN8BX_CPU_C5resetEj"(source: u32);
    /// The replaced handling of events between instructions; whether `cpu_loop` is to return.
    core_handle_events = "_ZN8BX_CPU_C16handleAsyncEventEv"() -> bool;
    /// The replaced change of the activity state.
    core_enter_sleep_state = "_ZN8BX_CPU_C17enter_sleep_stateEj"(state: u32);
    /// The replaced CPUID of the CPU model.
    core_cpuid_leaf = "_ZNK17sapphire_rapids_t14get_cpuid_leafEjjP16cpuid_function_t"(
        model: *const c_void, leaf: u32, subleaf: u32, out: *mut CpuidLeaf);
    /// The replaced delivery of interrupts and exceptions.
    core_interrupt = "_ZN8BX_CPU_C9interruptEhjbt"(vector: u8, kind: u32, has_error: bool, error: u16);
    /// The replaced list of VMCS fields.
    core_has_field = "_ZN8BX_CPU_C20vmcs_field_supportedEj"(field: u32) -> bool;
    /// The replaced choice of the secondary VM-execution controls that there are.
    core_init_secondary_controls = "_ZN8BX_CPU_C38init_secondary_proc_based_vmexec_ctrlsEv"();
    /// The replaced choice of the VM-exit controls that there are.
    core_init_exit_controls = "_ZN8BX_CPU_C17init_vmexit_ctrlsEv"();
    /// The replaced choice of the VM-entry controls that there are.
    core_init_entry_controls = "_ZN8BX_CPU_C18init_vmentry_ctrlsEv"();
    /// The replaced RDMSR.
    core_rdmsr = "_ZN8BX_CPU_C5rdmsrEjPm"(index: u32, value: *mut u64) -> bool;
    /// The replaced WRMSR.
    core_wrmsr = "_ZN8BX_CPU_C5wrmsrEjm"(index: u32, value: u64) -> bool;
    /// The replaced checks of the controls at VM entry.
    core_vmenter_check_controls = "_ZN8BX_CPU_C26VMenterLoadCheckVmControlsEv"() -> u32;
    /// The replaced loading of host state checks at VM entry.
    core_vmenter_check_host = "_ZN8BX_CPU_C25VMenterLoadCheckHostStateEv"() -> u32;
    /// The replaced loading of guest state at VM entry.
    core_vmenter_load_guest = "_ZN8BX_CPU_C26VMenterLoadCheckGuestStateEPm"(
        qualification: *mut u64) -> u32;
    /// The replaced injection of events at VM entry.
    core_vmenter_inject = "_ZN8BX_CPU_C19VMenterInjectEventsEv"();
    /// The replaced saving of guest state at VM exit.
    core_vmexit_save_guest = "_ZN8BX_CPU_C20VMexitSaveGuestStateEjj"(a: u32, b: u32);
    /// The replaced loading of host state at VM exit.
    core_vmexit_load_host = "_ZN8BX_CPU_C19VMexitLoadHostStateEv"();
    /// The replaced walk of a VM-exit MSR-store list.
    core_store_msrs = "_ZN8BX_CPU_C9StoreMSRsEjm"(count: u32, address: u64) -> u32;
    /// The replaced walk of a VM-entry or VM-exit MSR-load list.
    core_load_msrs = "_ZN8BX_CPU_C8LoadMSRsEjm"(count: u32, address: u64) -> u32;
    /// The replaced delivery of an external interrupt.
    core_handle_ext_interrupt = "_ZN8BX_CPU_C18HandleExtInterruptEv"();
}

#[inline]
fn symbols() -> &'static Symbols {
    match SYMBOLS.get() {
        Some(symbols) => symbols,
        None => unloaded(),
    }
}

#[cold]
fn unloaded() -> ! {
    eprintln!("bochs-vmm: internal error: the core was used before it was loaded");
    std::process::abort()
}

/// The core, as it was loaded for one of the CPUs.
#[derive(Clone, Copy)]
struct Instance {
    symbols: &'static Symbols,
    cpu: *mut u8,
    pc_system: *mut u8,
    decoded: *mut u8,
}

static COPIES: SingleCell<[Option<Instance>; MAX_CPUS]> = SingleCell::new([None; MAX_CPUS]);
static SELECTED: SingleCell<usize> = SingleCell::new(0);
// Those of the selected one. Read for each instruction: not behind a lock.
static SYMBOLS: SingleCell<Option<&'static Symbols>> = SingleCell::new(None);
static CPU: SingleCell<*mut u8> = SingleCell::new(std::ptr::null_mut());
static PC_SYSTEM: SingleCell<*mut u8> = SingleCell::new(std::ptr::null_mut());

/// The number of the selected CPU.
#[inline(always)]
pub fn selected() -> usize {
    SELECTED.get()
}

/// From now on CPU number `cpu` is meant by all that is called in the core, and by its fields.
pub fn select(cpu: usize) {
    if let Some(copy) = COPIES.get()[cpu] {
        SELECTED.set(cpu);
        SYMBOLS.set(Some(copy.symbols));
        CPU.set(copy.cpu);
        PC_SYSTEM.set(copy.pc_system);
    }
}

/// Runs `f` with CPU number `cpu` selected. `f` returns: it calls nothing that leaves by longjmp.
pub fn on<R>(cpu: usize, f: impl FnOnce() -> R) -> R {
    let before = selected();
    select(cpu);
    let result = f();
    select(before);
    result
}

/// The CPU object; null before the core is loaded.
#[inline(always)]
pub fn cpu() -> *mut u8 {
    CPU.get()
}

/// The object that holds the time; null before the core is loaded.
#[inline(always)]
pub fn pc_system() -> *mut u8 {
    PC_SYSTEM.get()
}

/// The core keeps a word for each page below 4 GiB; each bit is a 32nd of the page, from which
/// something was decoded. All CPUs have the same words: see [`load`].
pub fn decoded_words() -> *mut u32 {
    match COPIES.get()[0] {
        // SAFETY: The object of the pinned file, with the pointer to the words.
        Some(copy) => unsafe { words_of(copy).read() },
        None => unloaded(),
    }
}

/// Where the object of `copy` has the pointer to the words.
///
/// # Safety
///
/// `copy` was loaded.
unsafe fn words_of(copy: Instance) -> *mut *mut u32 {
    const WORDS: usize = 8;
    // SAFETY: The object of the pinned file is longer than that.
    unsafe { copy.decoded.add(WORDS).cast() }
}

/// The address of a function of the core, for the work-arounds.
pub fn address_of(name: &str) -> Result<*mut u8, String> {
    symbol(symbols().handle, name).map(|address| address.cast())
}

/// The core is loaded. Keep it until the program ends.
pub struct Loaded(());

impl Drop for Loaded {
    /// The destructors of the copies free what they take for theirs.
    fn drop(&mut self) {
        for copy in COPIES.get().into_iter().flatten().skip(1) {
            // SAFETY: It was loaded, and nothing runs in it any more.
            unsafe { words_of(copy).write(std::ptr::null_mut()) };
        }
    }
}

/// Loads the core from `path` for so many CPUs, after checking that it is the pinned file. The first
/// one is selected.
pub fn load(path: &Path, cpus: usize) -> Result<Loaded, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read the core {shown}: {e}"))?;
    check_hash(&bytes, PINNED).map_err(|e| format!("{shown}: {e}"))?;
    let loaded = Loaded(());
    let mut files = Vec::new();
    for cpu in 0..cpus {
        SELECTED.set(cpu);
        let copy = match cpu {
            0 => load_copy(path)?,
            // A file that is known already would not be loaded again. None is closed before all are
            // loaded: the loader goes by names, too.
            _ => {
                files.push(copy_of(&bytes).map_err(|e| format!("cannot copy the core: {e}"))?);
                let file = files.last().map_or(-1, File::as_raw_fd);
                load_copy(Path::new(&format!("/proc/self/fd/{file}")))?
            }
        };
        let mut copies = COPIES.get();
        copies[cpu] = Some(copy);
        COPIES.set(copies);
        // SAFETY: Each was loaded, and has decoded nothing yet; the words of the first one are there
        // as long as the program.
        unsafe { words_of(copy).write(decoded_words()) };
    }
    select(0);
    Ok(loaded)
}

/// A file in memory with these bytes.
fn copy_of(bytes: &[u8]) -> std::io::Result<File> {
    // SAFETY: A C string and a flag.
    let fd = unsafe { libc::memfd_create(c"core".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: A new descriptor, which the file owns from here on.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    Ok(file)
}

/// Loads a file that was checked.
fn load_copy(path: &Path) -> Result<Instance, String> {
    let shown = path.display();
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| format!("{shown}: not a file name"))?;
    // SAFETY: The hash of the file was checked: its constructors set up tables
    // of its own and call no Python.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(format!("cannot load the core {shown}: {}", dl_error()));
    }
    Ok(Instance {
        // For as long as the program.
        symbols: Box::leak(Box::new(Symbols::find(handle)?)),
        cpu: symbol(handle, "bx_cpu")?.cast(),
        pc_system: symbol(handle, "bx_pc_system")?.cast(),
        decoded: symbol(handle, "pageWriteStampTable")?.cast(),
    })
}

fn check_hash(bytes: &[u8], pinned: &str) -> Result<(), String> {
    let expected = pinned
        .lines()
        .find(|line| !line.starts_with('#'))
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or_default();
    let found: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found == expected {
        Ok(())
    } else {
        Err(format!(
            "not the Bochs core this machine was written for: sha256 is {found}, expected {expected}"
        ))
    }
}

fn symbol(handle: *mut c_void, name: &str) -> Result<*mut c_void, String> {
    let c_name = CString::new(name).map_err(|e| e.to_string())?;
    // SAFETY: A handle of dlopen and a C string.
    let address = unsafe { libc::dlsym(handle, c_name.as_ptr()) };
    if address.is_null() {
        Err(format!("the core has no symbol {name}"))
    } else {
        Ok(address)
    }
}

fn dl_error() -> String {
    // SAFETY: No argument; the text stays valid until the next dl* call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown error".into();
    }
    // SAFETY: Not null, hence a C string.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_the_pinned_one_is_refused() {
        let error = check_hash(b"another file", PINNED).unwrap_err();
        assert!(error.contains("not the Bochs core this machine was written for"));
        assert!(error.contains("3d6ffafb"));
    }

    #[test]
    fn the_pinned_file_is_accepted() {
        let pinned =
            "# comment\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc\n";
        assert_eq!(check_hash(b"abc", pinned), Ok(()));
    }
}
