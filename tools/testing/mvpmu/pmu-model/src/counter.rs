// SPDX-License-Identifier: GPL-2.0
//! The counter registers.

/// The largest number of counters a PMU may have.
pub const MAX_COUNTERS: usize = 32;

/// The counters of one PMU: general purpose ones first, then fixed ones, then what else holds
/// counts.
#[derive(Clone, Debug)]
pub struct Counters {
    values: [u64; MAX_COUNTERS],
    len: usize,
    width: u32,
    /// The number of a register that is none, but lies beside them: it has 64 bits.
    other: Option<usize>,
}

impl Counters {
    /// `len` counters of `width` bits, all 0; that of number `other` is none.
    pub(crate) fn new(len: usize, width: u32, other: Option<usize>) -> Counters {
        assert!(len <= MAX_COUNTERS && width < u64::BITS);
        Counters {
            values: [0; MAX_COUNTERS],
            len,
            width,
            other,
        }
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bits that exist.
    pub fn mask(&self) -> u64 {
        (1 << self.width) - 1
    }

    /// The bits of counter `n`.
    pub fn mask_of(&self, n: usize) -> u64 {
        match self.other == Some(n) {
            true => u64::MAX,
            false => self.mask(),
        }
    }

    /// The value of counter `n`.
    pub fn get(&self, n: usize) -> u64 {
        self.values[..self.len][n]
    }

    /// Sets counter `n`; bits beyond its width do not exist.
    pub fn set(&mut self, n: usize, value: u64) {
        let mask = self.mask_of(n);
        self.values[..self.len][n] = value & mask;
    }

    /// Sets every counter to 0.
    pub fn clear(&mut self) {
        self.values = [0; MAX_COUNTERS];
    }

    /// Moves counter `n` on; true when it wrapped.
    pub(crate) fn advance(&mut self, n: usize, events: u64) -> bool {
        let wraps = events >= self.until_wrap(n);
        self.set(n, self.get(n).wrapping_add(events));
        wraps
    }

    /// How many events counter `n` is before its wrap, at least 1.
    pub(crate) fn until_wrap(&self, n: usize) -> u64 {
        (1 << self.width) - self.get(n)
    }
}
