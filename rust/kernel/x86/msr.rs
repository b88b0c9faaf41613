// SPDX-License-Identifier: GPL-2.0

//! Model-specific registers.
//!
//! C header: [`arch/x86/include/asm/msr.h`](srctree/arch/x86/include/asm/msr.h)

use core::{
    arch::asm,
    marker::PhantomData, //
};

/// Marks an MSR that can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadWrite {}
/// Marks an MSR that can only be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {}
/// Marks an MSR that can only be written: reading it faults or has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOnly {}

/// Access modes of MSRs that can be read.
pub trait Readable: Copy {}
impl Readable for ReadWrite {}
impl Readable for ReadOnly {}

/// Access modes of MSRs that can be written.
pub trait Writable: Copy {}
impl Writable for ReadWrite {}
impl Writable for WriteOnly {}

/// A model-specific register (MSR) of the local CPU.
///
/// # Invariants
///
/// Neither reads nor writes of any value, as far as `A` allows them, violate memory safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msr<A = ReadWrite> {
    index: u32,
    _access: PhantomData<A>,
}

impl<A> Msr<A> {
    /// Names an MSR.
    ///
    /// # Safety
    ///
    /// Neither reading nor writing any value, as far as `A` allows it, may violate memory safety.
    pub const unsafe fn new(index: u32) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            index,
            _access: PhantomData,
        }
    }

    /// The register's number, as in ECX.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.index
    }
}

impl<A: Readable> Msr<A> {
    /// Reads the register (RDMSR).
    ///
    /// If the CPU doesn't have it, the kernel warns once and the result is 0, as with `rdmsrq()`.
    #[inline(always)]
    pub fn read(self) -> u64 {
        let (low, high): (u64, u64);

        // SAFETY: By the type invariant reading the register is harmless. A fault is resolved by
        // the exception table entry.
        unsafe {
            asm!(
                "22: rdmsr",
                "23:",
                ".pushsection \"__ex_table\", \"a\"",
                ".balign 4",
                ".long 22b - .",
                ".long 23b - .",
                ".long {ex_type}",
                ".popsection",
                ex_type = const bindings::EX_TYPE_RDMSR,
                in("ecx") self.index,
                // The instruction clears the upper halves.
                out("rax") low,
                out("rdx") high,
                options(nostack, preserves_flags),
            )
        };
        low | high << 32
    }
}

impl<A: Writable> Msr<A> {
    /// Writes the register (WRMSR).
    ///
    /// If the CPU refuses, the kernel warns once, as with `wrmsrq()`.
    #[inline(always)]
    pub fn write(self, value: u64) {
        // SAFETY: By the type invariant writing the register is harmless. A fault is resolved by
        // the exception table entry.
        unsafe {
            asm!(
                "22: wrmsr",
                "23:",
                ".pushsection \"__ex_table\", \"a\"",
                ".balign 4",
                ".long 22b - .",
                ".long 23b - .",
                ".long {ex_type}",
                ".popsection",
                ex_type = const bindings::EX_TYPE_WRMSR,
                in("ecx") self.index,
                in("eax") value as u32,
                in("edx") (value >> 32) as u32,
                options(nostack, preserves_flags),
            )
        }
    }
}

/// A row of MSRs at a fixed distance, e.g. one per counter.
///
/// # Invariants
///
/// The members satisfy the invariants of [`Msr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrArray<A = ReadWrite> {
    base: u32,
    stride: u32,
    len: u32,
    _access: PhantomData<A>,
}

impl<A> MsrArray<A> {
    /// Names `len` MSRs from `base`, `stride` apart.
    ///
    /// # Safety
    ///
    /// Each of them must satisfy the requirements of [`Msr::new`].
    pub const unsafe fn new(base: u32, stride: u32, len: u32) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            base,
            stride,
            len,
            _access: PhantomData,
        }
    }

    /// The number of registers.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.len
    }

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether this is the number of one of them.
    #[inline(always)]
    pub const fn contains(self, index: u32) -> bool {
        let offset = index.wrapping_sub(self.base);

        offset % self.stride == 0 && offset / self.stride < self.len
    }

    /// The register of number `i`, if there is one.
    #[inline(always)]
    pub const fn get(self, i: u32) -> Option<Msr<A>> {
        if i >= self.len {
            return None;
        }
        // INVARIANT: `i` is in range, by the type invariant the member is harmless.
        Some(Msr {
            index: self.base + i * self.stride,
            _access: PhantomData,
        })
    }
}
