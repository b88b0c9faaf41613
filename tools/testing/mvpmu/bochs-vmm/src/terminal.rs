// SPDX-License-Identifier: GPL-2.0

//! stdin as the console's keyboard.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

static COOKED: OnceLock<libc::termios> = OnceLock::new();

/// Whether a person sits at stdin.
pub fn is_terminal() -> bool {
    // SAFETY: No memory involved.
    unsafe { libc::isatty(libc::STDIN_FILENO) == 1 }
}

/// Every key goes to the guest. Does nothing when stdin is not a terminal.
pub fn raw() {
    let mut mode = MaybeUninit::uninit();
    // SAFETY: `mode` is valid for the write.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, mode.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: tcgetattr succeeded and filled it.
    let mut mode = unsafe { mode.assume_init() };
    if COOKED.set(mode).is_err() {
        return;
    }
    mode.c_iflag &= !(libc::ICRNL | libc::IXON | libc::BRKINT | libc::ISTRIP);
    mode.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG | libc::IEXTEN);
    // SAFETY: A termios that tcgetattr filled.
    unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &mode) };
}

/// As it was before [`raw`].
pub fn restore() {
    if let Some(mode) = COOKED.get() {
        // SAFETY: A termios that tcgetattr filled.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, mode) };
    }
}

/// Reads what was typed; waits for it at most so many milliseconds.
pub fn read(bytes: &mut [u8], wait: i32) -> usize {
    let mut poll = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: One valid pollfd.
    let ready = unsafe { libc::poll(&mut poll, 1, wait) };
    if ready != 1 || poll.revents & libc::POLLIN == 0 || bytes.is_empty() {
        return 0;
    }
    // SAFETY: `bytes` is valid for its length.
    let len = unsafe { libc::read(libc::STDIN_FILENO, bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(len).unwrap_or(0)
}
